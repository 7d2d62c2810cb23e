"""Candidate grids of a layer's weights, with the bits and the output divergence of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekit.compression.budget_allocation import (
    Choice,
    Options,
    choose_nearest,
    raise_to_measured,
)
from edgekit.compression.layers.stored_layers import StoredLayer
from edgekit.compression.output_divergence import Reference
from edgekit.compression.quantization.affine import LARGEST, get_largest_integer
from edgekit.compression.quantization.few_bits.containers import get_native_widths
from edgekit.compression.quantization.few_bits.grids import (
    Grid,
    build_entropy_grids,
    estimate_rate_and_error,
    fit_fixed_grid,
)
from edgekit.compression.quantization.weight_bits import choose_bits
from edgekit.compression.sensitivity import measure_damage, scale_to_probes
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.operators import MATRIX_OPS
from edgekit.pass_settings import QuantizeWeights
from edgekit.progress import Tick

FLOAT_BITS, HALF_BITS = 32, 16
_MOST_HALF = 65504.0  # the largest float16
# Bits at which a layer is tried. The loss must exceed the noise; if it is so large that the
# outputs are no longer the same ones, the layer is tried again at more bits.
_PROBE_BITS = (3.0, 5.5)
# Recurrent layers are tried on their finest grid as well: a few large weights in a row leave the
# others coarse at any number of bits.
_MOST_BITS = 8.0


@dataclass(frozen=True, kw_only=True)
class LayerGrids:
    """Layer with its candidate grids and their bit widths.

    ``options`` has one choice for each grid. ``add_float_choices`` appends further ones: to store
    the weights of a recurrent layer in 16 bits, and to leave the layer float.
    """

    layer: StoredLayer
    grids: Sequence[Grid]
    widths: Sequence[int]
    options: Options


def build_layer_grids(layer: StoredLayer, settings: QuantizeWeights) -> LayerGrids:
    """Build the candidate grids of a layer, with bits and error of each."""
    most, matrix, power = LARGEST[choose_bits(settings)], layer.matrix, layer.power
    if settings.grid == "entropy" and settings.container == "int8":
        grids = build_entropy_grids(matrix, most)
        widths: list[int] = [choose_bits(settings)] * len(grids)
        told = [estimate_rate_and_error(matrix, power, grid) for grid in grids]
    else:
        native = settings.container == "native"
        widths = list[int](
            get_native_widths(layer) if native else range(2, choose_bits(settings) + 1)
        )
        block = settings.block if native and _takes_blocks(layer, settings.block) else 0
        grids = [
            # Few-bit kernels widen before they multiply, so that nothing saturates.
            fit_fixed_grid(
                matrix, power, _get_largest_integer(width, None if native else most), block
            )
            for width in widths
        ]
        errors = [estimate_rate_and_error(matrix, power, grid)[1] for grid in grids]
        told = list(zip(map(float, widths), errors, strict=True))
    choices = [Choice(cost=bits, damage=error) for bits, error in told]
    return LayerGrids(
        layer=layer,
        grids=grids,
        widths=widths,
        options=Options(size=layer.weight.size, choices=choices),
    )


def _takes_blocks(layer: StoredLayer, block: int) -> bool:
    """Return whether blocks of the layer's inputs may have scales of their own.

    GatherBlockQuantized wants rows of whole blocks; a convolution has a scale per channel.
    """
    whole = layer.weight.shape[-1] % block == 0
    if layer.is_widened:
        return False
    return layer.op in MATRIX_OPS or (layer.is_embedding and whole)


def _get_largest_integer(width: int, most: int | None) -> int:
    largest = get_largest_integer(width)
    return largest if most is None else min(largest, most)


def measure_divergences(
    index: GraphIndex, rows: Sequence[LayerGrids], reference: Reference, tick: Tick
) -> list[LayerGrids]:
    """Replace the errors of the layers by the output divergences that they cause.

    Args:
        index: the graph with float weights; unchanged afterwards.
        rows: the layers, with errors.
        reference: the outputs on held-out samples.
        tick: called with the number of layers done.
    """

    def measure(number: int, place: int) -> float:
        layer, grid = rows[number].layer, rows[number].grids[place]
        error = layer.error(layer.quantize(grid), grid)
        return measure_damage(index, layer, layer.matrix - error, reference)

    probes = [[choose_nearest(row.options, bits) for bits in _PROBE_BITS] for row in rows]
    known = scale_to_probes([row.options for row in rows], probes, measure, tick)
    for i, row in enumerate(rows):
        if row.layer.recurrent:
            finest = choose_nearest(known[i], _MOST_BITS)
            known[i] = raise_to_measured(known[i], finest, measure(i, finest))
    return [replace(row, options=each) for row, each in zip(rows, known, strict=True)]


def add_float_choices(row: LayerGrids) -> LayerGrids:
    """Append the choices to store a recurrent layer in 16 bits and to leave the layer float."""
    choices = list(row.options.choices)
    if row.layer.recurrent and float(np.abs(row.layer.weight).max()) <= _MOST_HALF:
        choices.append(Choice(cost=HALF_BITS, damage=0.0))
    choices.append(Choice(cost=FLOAT_BITS, damage=0.0))
    return replace(row, options=replace(row.options, choices=choices))
