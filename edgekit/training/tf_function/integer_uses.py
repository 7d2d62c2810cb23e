"""Places where a graph dequantizes weights that are stored as integers.

Integers are dequantized by DequantizeLinear, by Cast and Mul (when the file is loaded), row by row
behind the Gather of an embedding, or by integer kernels (MatMulInteger, DynamicQuantizeLSTM) whose
activations are rounded at run time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from onnx import NodeProto, TensorProto

from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.tflite.ir import Array
from edgekit.training.tf_function.grids import Grid, find_level_range, repeat_blocks

INTEGER_LSTM = "DynamicQuantizeLSTM"
_SCALE_READERS = {"DequantizeLinear", "Gather", INTEGER_LSTM, "Mul", "QuantizeLinear"}
_INTEGER_TYPES = {
    TensorProto.INT4, TensorProto.UINT4, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16,
    TensorProto.UINT16, TensorProto.INT32,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Use:
    """Place where a graph dequantizes stored integers.

    Args:
        kind: how they are dequantized.
        grid: of the integers, in their stored layout.
        output: the value that the nodes of this place compute in the end.
        node: the node that reads the integers.
        other: the other operand: the row numbers of a Gather, the activation of a product.
        turned: whether the graph reads the integers transposed.
    """

    kind: Literal["weight", "rows", "product", "lstm"]
    grid: Grid
    output: str
    node: NodeProto
    other: str = ""
    turned: bool = False


def find_uses(index: GraphIndex) -> dict[str, list[Use]]:
    """Find the stored integers that are only ever dequantized, always with the same scales.

    Args:
        index: the main graph of a copy from ``copy_with_stored_scales``.

    Returns:
        The places where the graph dequantizes them, by initializer name.
    """
    found: dict[str, list[Use]] = {}
    for name, tensor in index.initializers.items():
        if tensor.data_type in _INTEGER_TYPES and index.readers[name]:
            uses = _match_readers(index, name)
            if uses and all(uses[0].grid.agrees_with(use.grid) for use in uses[1:]):
                found[name] = uses
    return found


def find_fixed_scales(index: GraphIndex, uses: Mapping[str, Sequence[Use]]) -> set[str]:
    """Find the scales that cannot be learned, because other nodes or tables read them otherwise.

    Args:
        index: the graph.
        uses: result of ``find_uses``.
    """
    fixed: set[str] = set()
    for places in uses.values():
        names = {use.grid.scale for use in places}
        if len(names) > 1:
            fixed |= names
        fixed |= {
            name
            for name in names
            if name in index.outputs | index.inner_reads
            or any(node.op_type not in _SCALE_READERS for node in index.readers[name])
        }
    return fixed


def _match_readers(index: GraphIndex, name: str) -> list[Use] | None:
    """Match all readers of stored integers; ``None`` if one of them does not dequantize them."""
    if name in index.outputs or name in index.inner_reads:
        return None
    integers = np.asarray(index.constant(name))
    uses: list[Use] = []
    for node in index.readers[name]:
        match = _match_turned if node.op_type == "Transpose" else _match_reader
        found = match(index, name, integers, node)
        if not found:
            return None
        uses += found
    return uses


def _match_reader(index: GraphIndex, name: str, integers: Array, node: NodeProto) -> list[Use]:
    if list(node.input).count(name) != 1 or not integers.size:
        return []
    place = list(node.input).index(name)
    if node.op_type == "DequantizeLinear" and place == 0:
        return _match_dequantize(index, integers, node)
    if node.op_type == "Cast" and read_attribute(node, "to", 0) == TensorProto.FLOAT:
        return _match_cast(index, integers, node)
    if node.op_type == "Gather" and place == 0 and read_attribute(node, "axis", 0) == 0:
        return _match_rows(index, integers, node)
    if node.op_type == "MatMulInteger" and place == 1:
        return _match_product(index, integers, node)
    if node.op_type == INTEGER_LSTM and place in (1, 2):
        return _match_lstm(index, integers, node, place)
    return []


def _match_turned(index: GraphIndex, name: str, integers: Array, node: NodeProto) -> list[Use]:
    """Match the readers of a transposed matrix."""
    del name
    output = node.output[0]
    is_plain = integers.ndim == 2 and read_attribute(node, "perm", [1, 0]) == [1, 0]
    if not is_plain or output in index.outputs | index.inner_reads:
        return []
    uses: list[Use] = []
    for reader in index.readers[output]:
        found = _match_reader(index, output, integers.T, reader)
        if not found or any(use.grid.block or use.kind == "rows" for use in found):
            return []
        uses += [replace(use, grid=_turn_grid(use.grid), turned=True) for use in found]
    return uses


def _turn_grid(grid: Grid) -> Grid:
    return replace(
        grid,
        shape=grid.shape[::-1],
        scale_shape=grid.scale_shape[::-1],
        zero_points=grid.zero_points.T,
    )


def _match_dequantize(index: GraphIndex, integers: Array, node: NodeProto) -> list[Use]:
    scales = _read_floats(index, node.input[1])
    zero = node.input[2] if len(node.input) > 2 else ""
    zeros = index.constant(zero) if zero else None
    if scales is None or (zero and zeros is None):
        return []
    axis = _read_int(node, "axis", 1) % max(integers.ndim, 1) if scales.size > 1 else 0
    block = _read_int(node, "block_size", 0)
    flat = np.zeros(scales.shape, np.int64) if zeros is None else zeros.astype(np.int64)
    if block:
        sizes = scales.shape
        zero_points = repeat_blocks(flat.reshape(sizes), integers.shape, axis, block)
    else:
        sizes = _find_scale_shape(scales.size, integers.ndim, axis)
        zero_points = flat.reshape(sizes)
    grid = _make_grid(integers, node.input[1], scales, sizes, zero_points)
    grid = replace(grid, axis=axis, block=block)
    return [Use(kind="weight", grid=grid, output=node.output[0], node=node)]


def _find_scale_shape(count: int, rank: int, axis: int) -> tuple[int, ...]:
    if count == 1:
        return (1,) * rank
    return tuple(count if other == axis else 1 for other in range(rank))


def _match_cast(index: GraphIndex, integers: Array, node: NodeProto) -> list[Use]:
    """Match Cast and Mul, which onnxruntime folds into a float weight at load."""
    uses: list[Use] = []
    for product in index.readers[node.output[0]]:
        factor = _find_factor(product, node.output[0])
        scales = _read_floats(index, factor)
        if scales is None or not _broadcasts(scales, integers):
            return []
        sizes = (1,) * (integers.ndim - scales.ndim) + scales.shape
        grid = _make_grid(integers, factor, scales, sizes)
        uses.append(Use(kind="weight", grid=grid, output=product.output[0], node=product))
    return uses if node.output[0] not in index.outputs | index.inner_reads else []


def _match_rows(index: GraphIndex, integers: Array, node: NodeProto) -> list[Use]:
    """Match an embedding whose rows and their scales are gathered alike."""
    cast = index.only_reader(node.output[0])
    product = None if cast is None or cast.op_type != "Cast" else index.only_reader(cast.output[0])
    if cast is None or product is None:
        return []
    gathered = index.producer.get(_find_factor(product, cast.output[0]))
    if gathered is None or gathered.op_type != "Gather" or gathered.input[1] != node.input[1]:
        return []
    scales = _read_floats(index, gathered.input[0])
    if scales is None or scales.shape != (integers.shape[0], *(1,) * (integers.ndim - 1)):
        return []
    grid = _make_grid(integers, gathered.input[0], scales, scales.shape)
    output = product.output[0]
    return [Use(kind="rows", grid=grid, output=output, node=node, other=node.input[1])]


def _match_product(index: GraphIndex, integers: Array, node: NodeProto) -> list[Use]:
    """Match MatMulInteger of a rounded activation, scaled by the scales of both factors."""
    source = index.producer.get(node.input[0])
    cast = index.only_reader(node.output[0])
    product = None if cast is None or cast.op_type != "Cast" else index.only_reader(cast.output[0])
    if source is None or source.op_type != "DynamicQuantizeLinear" or cast is None:
        return []
    if product is None or not _is_dynamic(index, node, source):
        return []
    both = index.producer.get(_find_factor(product, cast.output[0]))
    factor = "" if both is None else _find_factor(both, source.output[1])
    scales = _read_floats(index, factor)
    if scales is None or integers.ndim != 2 or scales.size not in (1, integers.shape[1]):
        return []
    sizes = (1, scales.size)
    grid = _make_grid(integers, factor, scales, sizes)
    output = product.output[0]
    return [Use(kind="product", grid=grid, output=output, node=node, other=source.input[0])]


def _is_dynamic(index: GraphIndex, node: NodeProto, source: NodeProto) -> bool:
    """Return whether a product has its activation's zero point, and none of the weight."""
    zeros = [*node.input[2:], "", ""][:2]
    weight_zeros = index.constant(zeros[1]) if zeros[1] else np.zeros(1)
    return zeros[0] == source.output[2] and weight_zeros is not None and not weight_zeros.any()


def _match_lstm(index: GraphIndex, integers: Array, node: NodeProto, place: int) -> list[Use]:
    """Match onnxruntime's integer LSTM, whose weights are [directions, inputs, rows]."""
    if not all(_is_lstm_weight(index, node, each) for each in (1, 2)):
        return []
    factor = node.input[6 + 2 * place]
    scales = _read_floats(index, factor)
    if scales is None:
        return []
    sizes = (integers.shape[0], 1, scales.size // integers.shape[0])
    grid = _make_grid(integers, factor, scales, sizes)
    return [Use(kind="lstm", grid=grid, output="", node=node)]


def _is_lstm_weight(index: GraphIndex, node: NodeProto, place: int) -> bool:
    """Return whether only integer LSTMs with the same scales and no zero points read a weight."""
    name, factor, zero = (node.input[n] for n in (place, 6 + 2 * place, 7 + 2 * place))
    zeros, readers = index.constant(zero), index.readers[name]
    return (
        name in index.initializers
        and factor in index.initializers
        and zeros is not None
        and not zeros.any()
        and name not in index.outputs | index.inner_reads
        and all(
            each.op_type == INTEGER_LSTM
            and each.input[place] == name
            and each.input[6 + 2 * place] == factor
            for each in readers
        )
    )


def _find_factor(product: NodeProto, first: str) -> str:
    """Return the other factor of a Mul; empty for another operator."""
    if product.op_type != "Mul" or first not in product.input:
        return ""
    return str(product.input[1] if product.input[0] == first else product.input[0])


def _read_floats(index: GraphIndex, name: str) -> Array | None:
    tensor = index.initializers.get(name)
    if tensor is None or tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        return None
    return index.float_constant(name)


def _broadcasts(scales: Array, integers: Array) -> bool:
    return scales.ndim <= integers.ndim and all(
        size in (1, whole)
        for size, whole in zip(scales.shape[::-1], integers.shape[::-1], strict=False)
    )


def _make_grid(
    integers: Array,
    scale: str,
    scales: Array,
    sizes: tuple[int, ...],
    zero_points: Array | None = None,
) -> Grid:
    zeros = np.zeros((1,) * integers.ndim, np.int64) if zero_points is None else zero_points
    return Grid(
        dtype=integers.dtype.name,
        scale=scale,
        scales=scales.astype(np.float32),
        scale_shape=sizes,
        zero_points=zeros,
        shape=integers.shape,
        levels=find_level_range(integers, zeros),
    )


def _read_int(node: NodeProto, name: str, default: int) -> int:
    return int(str(read_attribute(node, name, default)))
