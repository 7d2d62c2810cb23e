"""Adam with steps relative to the size of each tensor, and a running average of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from edgekit.tflite.ir import Array

_FIRST, _SECOND, _TINY = 0.9, 0.99, 1e-10
# Biases of smaller RMS than this share of the median RMS of biases move as if they had it, or
# biases of zero would never learn.
_LEAST_SHARE = 0.05


class RelativeAdam:
    """Adam whose rate is relative to the root mean square of each tensor at the start.

    A step changes no weight by more than about ``rate`` times the RMS of its tensor, so that one
    rate fits tensors of any scale, such as convolutions with folded normalization.

    Sources: Kingma and Ba, Adam, ICLR 2015; You et al., Large Batch Training of Convolutional
    Networks, 2017 (rates relative to a tensor's norm); Polyak and Juditsky 1992 (averaging).

    Args:
        variables: float32 variables by name.
        masks: entries that stay as they are, by name.
        factors: factor of the rate, by name; 1 for the others.
        most_decay: largest weight of the past in the running average of the variables.
    """

    def __init__(
        self,
        variables: Mapping[str, Any],
        *,
        masks: Mapping[str, Array],
        factors: Mapping[str, float],
        most_decay: float = 0.998,
    ) -> None:
        self._names = list(variables)
        self._variables = [variables[name] for name in self._names]
        self._free = [
            tf.constant(~masks[name], tf.float32) if name in masks else None for name in self._names
        ]
        is_scale = [name in factors for name in self._names]
        sizes = _compute_step_sizes([v.numpy() for v in self._variables], is_scale)
        self._sizes = [
            size * factors.get(name, 1.0) for name, size in zip(self._names, sizes, strict=True)
        ]
        self._first = [tf.Variable(tf.zeros_like(v)) for v in self._variables]
        self._second = [tf.Variable(tf.zeros_like(v)) for v in self._variables]
        self._average = [tf.Variable(v) for v in self._variables]
        self._sums = [tf.Variable(tf.zeros_like(v)) for v in self._variables]
        self._most_decay = most_decay

    def add(self, gradients: Sequence[Any], share: float) -> None:
        """Add the gradients of a part of a batch; ``None`` counts as zero."""
        for total, gradient in zip(self._sums, gradients, strict=True):
            if gradient is not None:
                total.assign_add(share * tf.convert_to_tensor(gradient))

    def step(self, rate: Any, number: Any) -> None:  # noqa: ANN401 - TensorFlow has no types
        """Change the variables by the gradients added since the last step.

        Args:
            rate: scalar tensor.
            number: of the step, from 1 on, a scalar tensor.
        """
        decay = tf.minimum(self._most_decay, number / (number + 10.0))
        # A gradient that is not finite, as of a first step in half precision, is left out.
        norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(g)) for g in self._sums]))
        use = tf.cast(tf.math.is_finite(norm), tf.float32)
        for i, variable in enumerate(self._variables):
            gradient = tf.where(tf.math.is_finite(self._sums[i]), self._sums[i], 0.0) * use
            if self._free[i] is not None:
                gradient *= self._free[i]
            self._first[i].assign(_FIRST * self._first[i] + (1 - _FIRST) * gradient)
            self._second[i].assign(_SECOND * self._second[i] + (1 - _SECOND) * tf.square(gradient))
            mean = self._first[i] / (1 - tf.pow(_FIRST, number))
            square = self._second[i] / (1 - tf.pow(_SECOND, number))
            variable.assign_sub(rate * self._sizes[i] * mean / (tf.sqrt(square) + _TINY))
            self._average[i].assign(decay * self._average[i] + (1 - decay) * variable)
            self._sums[i].assign(tf.zeros_like(variable))

    @property
    def variables(self) -> list[Any]:
        """Return the variables in the order in which gradients are given."""
        return self._variables

    def read_average(self) -> dict[str, Array]:
        """Return the running average of the variables by name."""
        return dict(zip(self._names, (v.numpy() for v in self._average), strict=True))

    def swap_average(self) -> None:
        """Exchange the variables and their running averages."""
        for variable, average in zip(self._variables, self._average, strict=True):
            kept = variable.numpy()
            variable.assign(average)
            average.assign(kept)

    def read_state(self) -> dict[str, Array]:
        """Return everything that the next steps depend on, by name."""
        state: dict[str, Array] = {}
        for kind, tensors in self._list_states():
            state |= {f"{kind}/{n}": t.numpy() for n, t in zip(self._names, tensors, strict=True)}
        return state

    def restore_state(self, state: Mapping[str, Array]) -> None:
        """Continue from a state of ``read_state``.

        Raises:
            KeyError: a tensor is missing.
            ValueError: a tensor has another shape.
        """
        for kind, tensors in self._list_states():
            for name, tensor in zip(self._names, tensors, strict=True):
                tensor.assign(np.asarray(state[f"{kind}/{name}"], np.float32))

    def _list_states(self) -> list[tuple[str, list[Any]]]:
        return [
            ("variable", self._variables),
            ("first", self._first),
            ("second", self._second),
            ("average", self._average),
        ]


def _compute_step_sizes(values: Sequence[Array], is_scale: Sequence[bool]) -> list[float]:
    """Compute the RMS of each tensor; of biases at least a share of the median RMS of biases."""
    squares = [float(np.square(v, dtype=np.float64).mean()) if v.size else 0.0 for v in values]
    sizes = [float(np.sqrt(square)) for square in squares]
    are_biases = [v.ndim < 2 and not scale for v, scale in zip(values, is_scale, strict=True)]
    known = [size for size, is_bias in zip(sizes, are_biases, strict=True) if is_bias and size > 0]
    least = _LEAST_SHARE * float(np.median(known)) if known else 0.0
    pairs = zip(sizes, are_biases, strict=True)
    return [max(size, least) if is_bias else size for size, is_bias in pairs]
