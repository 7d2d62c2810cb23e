"""A student that learns to match the values of a teacher, step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from onnx import ModelProto

from edgekit.errors import PassRefused
from edgekit.tflite.ir import Array
from edgekit.training.learning.losses import compute_agreement, compute_loss
from edgekit.training.learning.optimizer import RelativeAdam
from edgekit.training.learning.rate import Price, Rate, find_zero_masks
from edgekit.training.learning.targets import Targets
from edgekit.training.tf_function.onnx_function import GraphFunction, write_back

Arrays = Mapping[str, Array]

# Scales of activations decide on clipping and rounding at once, and so learn more slowly.
_SCALE_FACTOR = 0.25
# Least, first and largest price of all packed bits together, in units of the loss.
_PRICES = (1e-3, 0.05, 20.0)
# Start of the names of linear maps beside those of the student's initializers.
_MAP = "linear map of "
_FEWEST_RUNS = 4  # of held-out samples, for a standard error
_COUNTED_EVERY = 10  # steps between two counts of the packed bits


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Match of a student with its teacher on samples that it does not learn from.

    Attributes:
        outputs: loss of the outputs.
        losses: the same with that of the inner values, of each run, by which students are chosen.
        agreement: share of rows of scores with the same largest entry; ``None`` without scores.
        growth: packed bits of weights with few bits, relative to those at the start.
    """

    outputs: float
    losses: tuple[float, ...]
    agreement: float | None
    growth: float = 1.0

    @property
    def loss(self) -> float:
        """Return the mean of the losses; infinite without any."""
        return sum(self.losses) / len(self.losses) if self.losses else math.inf

    def is_worse(self, other: Progress) -> bool:
        """Return whether the losses are larger than those of another student, beyond chance.

        The mean difference must exceed twice its standard error; of fewer than four runs, zero.
        """
        differences = np.subtract(self.losses, other.losses)
        if differences.size < _FEWEST_RUNS:
            return bool(differences.sum() > 0)
        error = differences.std(ddof=1) / math.sqrt(differences.size)
        return bool(differences.mean() > 2 * error)


class Learner:
    """A graph that learns to match the values of another one.

    Args:
        proto: the student; not changed.
        targets: values to match.

    Pruned weights stay zero. Integers stay in the range of their bits; of weights with few bits,
    the packed size does not grow: bits get a price in the loss that keeps them from it.

    Raises:
        PassRefused: the student has no weights.
    """

    def __init__(self, proto: ModelProto, targets: Targets) -> None:
        self._proto = proto
        self._function = GraphFunction(proto, learn_scales=True)
        self._targets = targets
        self._rate = Rate(self._function.parameters)
        self._budget = self._rate.measure() if self._rate.names else 0
        share = 1 / max(self._budget, 1)
        self._price = Price(
            budget=self._budget,
            value=_PRICES[1] * share,
            least=_PRICES[0] * share,
            most=_PRICES[2] * share,
        )
        self._paid = tf.Variable(self._price.value, trainable=False, dtype=tf.float32)
        # Scales of few-bit weights are short numbers that take few bytes in a packed file.
        short = {self._function.parameters[name].grid_scale for name in self._rate.names}
        scales = {n: v for n, v in self._function.scales_by_name.items() if n not in short}
        self._maps = _make_maps(targets)
        maps = {_MAP + name: variable for name, variable in self._maps.items()}
        variables = self._function.variables_by_name | scales
        if not variables:
            raise PassRefused("the student has no weights that can learn")
        variables |= maps
        factors = dict.fromkeys(scales, _SCALE_FACTOR)
        self._optimizer = RelativeAdam(
            variables, masks=find_zero_masks(self._function.parameters), factors=factors
        )
        self._add = tf.function(self._add_gradients, autograph=False)
        self._step = tf.function(self._optimizer.step, autograph=False)
        self._run = tf.function(self._compare, autograph=False)

    @property
    def has_integers(self) -> bool:
        """Return whether weights are stored as integers."""
        return any(parameter.grid for parameter in self._function.parameters.values())

    def learn(
        self, parts: Sequence[tuple[Arrays, Arrays]], *, rate: float, number: int
    ) -> tuple[float, float]:
        """Learn from one batch; return the loss of the outputs and that of the inner values.

        Args:
            parts: inputs, and the teacher's values for them, of each part of the batch.
            rate: largest change of a weight relative to the RMS of its tensor.
            number: of the step, from 1 on.

        Raises:
            PassRefused: an operator of the student has no gradient here.
        """
        share = tf.constant(1 / len(parts), tf.float32)
        losses = [self._add(_to_tensors(fed), _to_tensors(wanted), share) for fed, wanted in parts]
        self._step(tf.constant(rate, tf.float32), tf.constant(float(number), tf.float32))
        if self._rate.names and number % _COUNTED_EVERY == 0:
            scales = self._function.scales()
            self._rate.update(scales)
            self._paid.assign(self._price.update(self._rate.measure(scales)))
        return _average([(float(a), float(b)) for a, b in losses])

    def measure(self, parts: Sequence[tuple[Arrays, Arrays]]) -> Progress:
        """Measure how well the averaged weights match the teacher on the given runs."""
        self._optimizer.swap_average()
        try:
            found = [self._run(_to_tensors(fed), _to_tensors(wanted)) for fed, wanted in parts]
            bits = self._rate.measure(self._function.scales()) if self._rate.names else 0
        finally:
            self._optimizer.swap_average()
        outputs, features, agreement = np.asarray(found, np.float64).T
        scored = any(target.kind != "values" for target in self._targets.outputs)
        return Progress(
            outputs=float(outputs.mean()),
            losses=tuple((outputs + self._targets.feature_weight * features).tolist()),
            agreement=float(agreement.mean()) if scored else None,
            growth=bits / self._budget if self._budget else 1.0,
        )

    def read_average(self) -> dict[str, Array]:
        """Return the running average of the learned tensors by name."""
        return self._optimizer.read_average()

    def read_state(self) -> dict[str, Array]:
        """Return everything that the next steps depend on, by name."""
        return self._optimizer.read_state() | {"price": np.array(self._price.value)}

    def restore_state(self, state: Arrays) -> None:
        """Continue from a state of ``read_state``; raises ``KeyError`` or ``ValueError``."""
        self._optimizer.restore_state(state)
        self._price.value = float(state["price"])
        self._paid.assign(self._price.value)
        if self._rate.names:
            self._rate.update(self._function.scales())

    def write(self, learned: Arrays) -> ModelProto:
        """Return a copy of the student with learned tensors.

        Raises:
            UserError: a tensor holds a value that is not finite.
        """
        for name, value in learned.items():
            if name.startswith(_MAP):
                continue
            variables = self._function.variables_by_name
            held = variables.get(name, self._function.scales_by_name.get(name))
            assert held is not None
            held.assign(value)
        return write_back(self._proto, self._function)

    def _add_gradients(
        self,
        fed: Mapping[str, Any],
        wanted: Mapping[str, Any],
        share: Any,  # noqa: ANN401
    ) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            of_outputs, of_features, _ = self._compare(fed, wanted)
            loss = of_outputs + self._targets.feature_weight * of_features
            if self._rate.names:
                loss += self._paid * self._rate.bits(scales=self._function.scales())
        self._optimizer.add(tape.gradient(loss, self._optimizer.variables), share)
        return of_outputs, of_features

    def _compare(self, fed: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        """Return the loss of the outputs, that of the inner values, and the agreement."""
        made = self._function(fed, taps=self._targets.student_values)
        losses = compute_loss(self._targets, made, wanted, self._maps)
        return (*losses, compute_agreement(self._targets, made, wanted))


def _make_maps(targets: Targets) -> dict[str, Any]:
    """Make the linear maps of inner values of other widths, at random."""
    rng = np.random.default_rng(0)
    return {
        target.name: tf.Variable(
            rng.normal(0, target.widths[0] ** -0.5, target.widths).astype(np.float32)
        )
        for target in targets.features
        if target.widths is not None
    }


def _to_tensors(arrays: Arrays) -> dict[str, Any]:
    return {name: tf.constant(value) for name, value in arrays.items()}


def _average(losses: Sequence[tuple[float, float]]) -> tuple[float, float]:
    first, second = np.mean(np.asarray(losses), axis=0)
    return float(first), float(second)
