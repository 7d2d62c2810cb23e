"""Sensitivity of a model's outputs to a change of one layer's weight, on held-out samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from edgekit.compression.budget_allocation import Options, scale_to_divergence
from edgekit.compression.layers.stored_layers import (
    StoredLayer,
    replace_constant,
    restore_constant,
    shift_bias,
)
from edgekit.compression.numerics import Doubles
from edgekit.compression.output_divergence import Reference
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.progress import Tick

# Largest number of held-out samples; each layer is tried on all of them.
MOST_HELD_OUT = 32
# Divergence above which it is not proportional to a layer's error, so the next probe is tried.
_TOO_MUCH = 0.1


def scale_to_probes(
    layers: Sequence[Options],
    probes: Sequence[Sequence[int]],
    measure: Callable[[int, int], float],
    tick: Tick,
) -> list[Options]:
    """Replace the errors of the layers by the output divergences that they cause.

    Divergence grows with the square of a layer's error, and the divergences of layers add up, so
    one measured choice of each layer tells the damage of all.

    Args:
        layers: the choices of each layer, with errors of the layer as damages.
        probes: for each layer the places of the choices to measure, the first one that leaves the
            outputs comparable; a layer without any keeps its errors.
        measure: returns the divergence where one layer alone, by its place, takes a choice.
        tick: called with the number of layers done.
    """
    scaled = []
    for number, (layer, places) in enumerate(zip(layers, probes, strict=True)):
        tick("sensitivity", number, len(layers))
        for tried in places:
            lost = measure(number, tried)
            if lost <= _TOO_MUCH:
                break
        scaled.append(scale_to_divergence(layer, tried, lost) if places else layer)
    return scaled


def measure_damage(
    index: GraphIndex, layer: StoredLayer, matrix: Doubles, reference: Reference
) -> float:
    """Measure the output divergence when one layer alone has another weight [G, O, I].

    The bias makes up for the mean error. The graph is unchanged afterwards.

    Args:
        index: the graph.
        layer: the layer.
        matrix: its other weight, [G, O, I].
        reference: the outputs on held-out samples.
    """
    with _change_temporarily(index, layer, matrix):
        return reference.divergence(index.proto)


@contextmanager
def _change_temporarily(index: GraphIndex, layer: StoredLayer, matrix: Doubles) -> Iterator[None]:
    shift = layer.shift(layer.matrix - matrix)
    before = replace_constant(index, layer.name, layer.tensor(matrix))
    undo = shift_bias(index, layer, shift)
    try:
        yield
    finally:
        undo()
        restore_constant(index, layer.name, before)
