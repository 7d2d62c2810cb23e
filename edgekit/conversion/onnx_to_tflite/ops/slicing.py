"""Conversion rule of Slice, and helpers that slice tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import Value
from edgekit.conversion.onnx_to_tflite.ops.moving import emit_move
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
from edgekit.tflite.ir import Shape, Tensor


def _slice(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    ranges = _read_ranges(low, node, value.shape)
    made = slice_tensor(
        low, value.tensor, {value.axis(axis): each for axis, each in ranges.items()}
    )
    low.bind(node, made, value.order)


def _read_ranges(low: Lowering, node: NodeProto, shape: Shape) -> dict[int, range]:
    """Read the range of entries taken from each axis, from attributes before opset 10."""
    if low.has(node, 1):
        starts, ends = low.integers(node, 1), low.integers(node, 2)
    else:
        starts, ends = (
            tuple(get_attribute(node, "starts", [])),
            tuple(get_attribute(node, "ends", [])),
        )
    if low.has(node, 3):
        axes = low.integers(node, 3)
    else:
        axes = tuple(get_attribute(node, "axes", range(len(starts))))
    steps = low.integers(node, 4) if low.has(node, 4) else (1,) * len(starts)
    found: dict[int, range] = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        taken = slice(start, end, step).indices(shape[axis])
        found[axis % len(shape)] = range(*taken)
    return found


def slice_tensor(low: Lowering, tensor: Tensor, taken: Mapping[int, range]) -> Tensor:
    """Slice a tensor by evenly spaced indices.

    Args:
        low: receives the operators.
        tensor: of fixed sizes.
        taken: indices for each stored axis that is not taken whole.
    """
    every = [taken.get(axis, range(size)) for axis, size in enumerate(tensor.shape)]
    shape = tuple(len(each) for each in every)
    if all(each == range(size) for each, size in zip(every, tensor.shape, strict=True)):
        return tensor
    if all(each.step == 1 or len(each) <= 1 for each in every):
        begin, size = low.int32([each.start for each in every]), low.int32(shape)
        return emit_move(low, "SLICE", [tensor, begin, size], shape)
    return _emit_strided_slice(low, tensor, every, shape)


def _emit_strided_slice(low: Lowering, tensor: Tensor, every: list[range], shape: Shape) -> Tensor:
    ends, end_mask = [], 0
    for axis, each in enumerate(every):
        ends.append(max(each.stop, 0))
        end_mask |= (each.stop < 0) << axis  # -1 would be the last entry
    inputs = [
        tensor,
        low.int32([each.start for each in every]),
        low.int32(ends),
        low.int32([each.step for each in every]),
    ]
    options = {"begin_mask": 0, "end_mask": end_mask}
    return emit_move(low, "STRIDED_SLICE", inputs, shape, options=options)


def take_index(low: Lowering, value: Value, axis: int, index: int) -> Tensor:
    """Take one entry along an ONNX axis, without that axis; the others keep their storage order.

    Args:
        low: receives the operators.
        value: to be indexed.
        axis: as ONNX numbers it.
        index: of the entry.
    """
    place = value.axis(axis)
    part = slice_tensor(low, value.tensor, {place: range(index, index + 1)})
    return low.reshape(part, part.shape[:place] + part.shape[place + 1 :])


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {"Slice": _slice}
