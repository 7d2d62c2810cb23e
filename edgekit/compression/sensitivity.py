"""Sensitivity of a model's outputs to a change of one layer's weight, on held-out samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edgekit.compression.layers.stored_layers import (
    StoredLayer,
    replace_constant,
    restore_constant,
    shift_bias,
)
from edgekit.compression.output_divergence import Reference
from edgekit.compression.quantization.few_bits.grids import Doubles, Grid
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.progress import Tick


def measure_damages(
    index: GraphIndex,
    layers: Sequence[StoredLayer],
    probes: Sequence[Grid],
    reference: Reference,
    tick: Tick,
) -> list[float]:
    """Measure the output divergence of each layer alone on its grid.

    Divergence grows with the square of a layer's error, and the divergences of layers add up, so
    one probe of each layer tells the damage of any grid.

    Args:
        index: the graph with float weights; unchanged afterwards.
        layers: the layers.
        probes: the grid to try on each layer.
        reference: the outputs on held-out samples.
        tick: called with the number of layers done.
    """
    found = []
    for number, (layer, grid) in enumerate(zip(layers, probes, strict=True)):
        tick("sensitivity", number, len(layers))
        error = layer.error(layer.quantize(grid), grid)
        found.append(measure_damage(index, layer, layer.matrix - error, reference))
    return found


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
