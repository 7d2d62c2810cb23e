"""Gradient scores of channel groups: the first-order effect of their removal on the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.compression.pruning.dependency import Channels, Family
from edgekit.onnx_graph.runs.activations import get_input_tensors
from edgekit.progress import Tick
from edgekit.training.messages import silence_tensorflow
from edgekit_agent.measure.feeds import iter_batches
from edgekit_agent.samples import Samples

# Samples are few, as each takes a backward pass.
_MOST_SAMPLES = 128
_SUMS_TO_ONE = 1e-3
_TINY = 1e-12

if TYPE_CHECKING:
    from edgekit.training.tf_function.onnx_function import GraphFunction

Tap = tuple[str, int]  # a value and one of its axes
Floats = NDArray[np.float64]


def compute_gradient_scores(
    channels: Channels,
    families: Sequence[Family],
    parts: Sequence[Samples],
    *,
    kind: Literal["fisher", "taylor"],
    tick: Tick,
) -> dict[int, float]:
    """Compute a score for each channel group of dependency groups, from gradients on a few samples.

    With a channel's gate g at 1, dL/dg is the sum over its positions of activation times gradient.
    ``fisher`` is the mean of its square over the samples, ``taylor`` the mean of its magnitude.
    The loss is taken against labels that are drawn from the model's own predictions: against the
    predictions themselves every gradient would be zero.

    Source: Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning"; Theis et
    al. 2018, "Faster gaze prediction with dense networks and Fisher pruning".

    Args:
        channels: channels of the model.
        families: the dependency groups to score.
        parts: samples to run, one at a time.
        kind: the score.
        tick: called with the number of samples done.

    Returns:
        Scores by channel group; they add up.

    Raises:
        UserError: TensorFlow is missing.
        PassRefused: the graph has an operator that cannot be differentiated.
    """
    with silence_tensorflow():
        from edgekit.training.tf_function.onnx_function import GraphFunction

    taps = {family.name: _find_taps(channels, family) for family in families}
    names = list(dict.fromkeys(value for each in taps.values() for value, _ in each))
    function = GraphFunction(channels.proto)
    gradients = _Gradients(function, names)
    squared = dict.fromkeys((g for f in families for g in f.groups), 0.0)
    rng = np.random.default_rng(0)
    fed = (
        b.inputs for part in parts for b in iter_batches(part, get_input_tensors(channels.proto), 1)
    )
    for number, feeds in enumerate(fed):
        if number == _MOST_SAMPLES:
            break
        tick("gradients", number, _MOST_SAMPLES)
        products = gradients.compute(feeds, rng)
        for family in families:
            for group, gate in _compute_gate_gradients(
                channels, family, taps[family.name], products
            ).items():
                squared[group] += gate**2 if kind == "fisher" else abs(gate)
    return squared


def _find_taps(channels: Channels, family: Family) -> tuple[Tap, ...]:
    """Find the values and axes at which the activations of a dependency group are read.

    The readers see the activations last. Where several values are read, one may be computed from
    another, so the outputs of the producers are taken, which count each channel once.
    """
    places = channels.groups[family.groups[0]].places
    read = tuple(dict.fromkeys((p.value, p.value_axis) for p in places if p.role == "reads"))
    made = tuple(dict.fromkeys((p.value, p.value_axis) for p in places if p.role == "makes"))
    return read if len(read) == 1 else made


def _compute_gate_gradients(
    channels: Channels, family: Family, taps: Sequence[Tap], products: Mapping[str, Floats]
) -> dict[int, float]:
    """Compute the gradient of each channel group's gate on one sample."""
    found = dict.fromkeys(family.groups, 0.0)
    for value, axis in taps:
        product = products[value]
        axis %= product.ndim
        along = product.sum(axis=tuple(a for a in range(product.ndim) if a != axis))
        members = channels.members(channels.walk.axes[value][axis])
        for position, groups in enumerate(members.tolist()):
            for group in groups:
                if group in found:
                    found[group] += float(along[position])
    return found


class _Gradients:
    """Activation times gradient of values inside a graph, one sample at a time."""

    def __init__(self, function: GraphFunction, names: Sequence[str]) -> None:
        self._function = function
        self._names = names

    def compute(self, feeds: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Floats]:
        """Compute activation times loss gradient for each entry of the values, on one sample."""
        from edgekit.training.tf_function.onnx_function import compute_gradients

        made, slopes = compute_gradients(
            self._function,
            feeds,
            self._names,
            lambda outputs: _compute_loss_gradients(outputs, rng),
        )
        return {
            name: np.asarray(made[name], np.float64) * np.asarray(slope, np.float64)
            for name, slope in slopes.items()
        }


def _compute_loss_gradients(
    outputs: Mapping[str, Floats], rng: np.random.Generator
) -> dict[str, Floats]:
    """Compute the gradient of the loss by each output, for a label drawn from the prediction."""
    return {name: _compute_loss_gradient(value, rng) for name, value in outputs.items()}


def _compute_loss_gradient(value: Floats, rng: np.random.Generator) -> Floats:
    if value.ndim != 2 or value.shape[1] < 2:
        about: Floats = rng.normal(size=value.shape) * value.std()  # a Gaussian about the value
        return about
    flat = value.sum(axis=1)
    probable = bool((value >= 0).all() and (np.abs(flat - 1) < _SUMS_TO_ONE).all())
    shifted = np.exp(value - value.max(axis=1, keepdims=True))
    chances = value / flat[:, None] if probable else shifted / shifted.sum(axis=1, keepdims=True)
    drawn = np.zeros_like(value)
    for row, chance in enumerate(chances):
        drawn[row, rng.choice(len(chance), p=chance)] = 1
    slope: Floats = -drawn / np.maximum(value, _TINY) if probable else chances - drawn
    return slope
