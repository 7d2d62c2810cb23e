"""Conversion rule of Slice, and helpers that slice tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import Value
from edgekit.conversion.onnx_to_tflite.ops.moving import emit_move
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Shape, Tensor


def _slice(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    value = builder.value(node, 0)
    ranges = _read_ranges(builder, node, value.shape)
    result = slice_tensor(
        builder, value.tensor, {value.axis(axis): each for axis, each in ranges.items()}
    )
    builder.bind(node, result, value.order)


def _read_ranges(builder: TfliteGraphBuilder, node: NodeProto, shape: Shape) -> dict[int, range]:
    """Read the range of entries taken from each axis, from attributes before opset 10."""
    if builder.has(node, 1):
        starts, ends = builder.integers(node, 1), builder.integers(node, 2)
    else:
        starts, ends = (
            tuple(get_attribute(node, "starts", [])),
            tuple(get_attribute(node, "ends", [])),
        )
    if builder.has(node, 3):
        axes = builder.integers(node, 3)
    else:
        axes = tuple(get_attribute(node, "axes", range(len(starts))))
    steps = builder.integers(node, 4) if builder.has(node, 4) else (1,) * len(starts)
    ranges: dict[int, range] = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        bounds = slice(start, end, step).indices(shape[axis])
        ranges[axis % len(shape)] = range(*bounds)
    return ranges


def slice_tensor(
    builder: TfliteGraphBuilder, tensor: Tensor, ranges: Mapping[int, range]
) -> Tensor:
    """Slice a tensor by evenly spaced indices.

    Args:
        builder: receives the operators.
        tensor: of fixed sizes.
        ranges: indices for each stored axis that is not taken whole.
    """
    all_ranges = [ranges.get(axis, range(size)) for axis, size in enumerate(tensor.shape)]
    shape = tuple(len(indices) for indices in all_ranges)
    if all(indices == range(size) for indices, size in zip(all_ranges, tensor.shape, strict=True)):
        return tensor
    if all(indices.step == 1 or len(indices) <= 1 for indices in all_ranges):
        begin, size = builder.int32([indices.start for indices in all_ranges]), builder.int32(shape)
        return emit_move(builder, "SLICE", [tensor, begin, size], shape)
    return _emit_strided_slice(builder, tensor, all_ranges, shape)


def _emit_strided_slice(
    builder: TfliteGraphBuilder, tensor: Tensor, all_ranges: list[range], shape: Shape
) -> Tensor:
    ends, end_mask = [], 0
    for axis, indices in enumerate(all_ranges):
        ends.append(max(indices.stop, 0))
        end_mask |= (indices.stop < 0) << axis  # -1 would be the last entry
    inputs = [
        tensor,
        builder.int32([indices.start for indices in all_ranges]),
        builder.int32(ends),
        builder.int32([indices.step for indices in all_ranges]),
    ]
    options = {"begin_mask": 0, "end_mask": end_mask}
    return emit_move(builder, "STRIDED_SLICE", inputs, shape, options=options)


def take_index(builder: TfliteGraphBuilder, value: Value, axis: int, index: int) -> Tensor:
    """Take one entry along an ONNX axis, without that axis; the others keep their storage order.

    Args:
        builder: receives the operators.
        value: to be indexed.
        axis: as ONNX numbers it.
        index: of the entry.
    """
    storage_axis = value.axis(axis)
    part = slice_tensor(builder, value.tensor, {storage_axis: range(index, index + 1)})
    return builder.reshape(part, part.shape[:storage_axis] + part.shape[storage_axis + 1 :])


RULES: dict[str, Callable[[TfliteGraphBuilder, NodeProto], None]] = {"Slice": _slice}
