"""What a model's outputs lose when one layer's weight is changed, on samples it has not seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edgekit.graphs.divergence import Reference
from edgekit.graphs.index import GraphIndex
from edgekit.passes.grids import Doubles, Grid
from edgekit.passes.stored_layers import StoredLayer, replaced, restored, shifted_bias
from edgekit.progress import Tick


def damages(
    index: GraphIndex,
    layers: Sequence[StoredLayer],
    probes: Sequence[Grid],
    reference: Reference,
    tick: Tick,
) -> list[float]:
    """Divergence of the outputs when one layer alone is on its grid.

    Divergence grows with the square of a layer's error, and those of all layers add up, so that
    one probe of each tells what any grid costs.

    Args:
        index: the graph with float weights; it comes back as it was.
        layers: its layers.
        probes: for each layer the grid it is tried on.
        reference: the outputs on held-out samples.
        tick: told how many layers are done.
    """
    found = []
    for number, (layer, grid) in enumerate(zip(layers, probes, strict=True)):
        tick("sensitivity", number, len(layers))
        error = layer.error(layer.quantized(grid), grid)
        found.append(damage(index, layer, layer.matrix - error, reference))
    return found


def damage(index: GraphIndex, layer: StoredLayer, matrix: Doubles, reference: Reference) -> float:
    """Divergence of the outputs when one layer alone has another weight [G, O, I].

    The bias makes up for the mean; the graph comes back as it was.
    """
    with _changed(index, layer, matrix):
        return reference.divergence(index.proto)


@contextmanager
def _changed(index: GraphIndex, layer: StoredLayer, matrix: Doubles) -> Iterator[None]:
    shift = layer.shift(layer.matrix - matrix)
    before = replaced(index, layer.name, layer.tensor(matrix))
    undo = shifted_bias(index, layer, shift)
    try:
        yield
    finally:
        undo()
        restored(index, layer.name, before)
