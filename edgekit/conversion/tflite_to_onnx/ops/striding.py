"""Conversion rule of STRIDED_SLICE and its masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.conversion.onnx_to_tflite.layout import Order, plain_order
from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder, Rule
from edgekit.conversion.tflite_to_onnx.ops.axes import squeeze_axes, unsqueeze_axes
from edgekit.tflite.ir import Op

_FAR = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class _AxisSlice:
    """Begin, end and step of the slice of one axis."""

    axis: int
    begin: int
    end: int
    step: int


@dataclass(kw_only=True)
class _DecodedMasks:
    """Decoded masks: slices, input axes to remove (``shrunk``), output axes to add (``new``)."""

    cuts: list[_AxisSlice]
    shrunk: list[int]
    new: list[int]


def strided_slice(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert STRIDED_SLICE to Slice, Squeeze and Unsqueeze.

    Raises:
        PassRefused: computed bounds together with steps, an ellipsis or new axes.
    """
    if any(builder.array(op, i) is None for i in (1, 2, 3)):
        _slice_dynamically(builder, op)
        return
    spec = _decode_masks(builder, op)
    x, order = builder.tensor(op, 0), builder.order(op, 0)
    name = _slice_axes(builder, builder.read(x, order), order, spec.cuts)
    name, order = squeeze_axes(builder, name, order, spec.shrunk)
    builder.bind(op, *unsqueeze_axes(builder, name, order, spec.new))


def _slice_axes(
    builder: OnnxGraphBuilder, name: str, order: Order, cuts: Sequence[_AxisSlice]
) -> str:
    if not cuts:
        return name
    columns = [
        [c.begin for c in cuts],
        [c.end for c in cuts],
        [order.index(c.axis) for c in cuts],
        [c.step for c in cuts],
    ]
    return builder.node("Slice", [name, *(builder.ints(*column) for column in columns)])


def _decode_masks(builder: OnnxGraphBuilder, op: Op) -> _DecodedMasks:
    shape = builder.shape(builder.tensor(op, 0))
    begins, ends, steps = (builder.integers(op, i) for i in (1, 2, 3))
    spec, axis, out = _DecodedMasks(cuts=[], shrunk=[], new=[]), 0, 0
    count = len(begins)
    new_axes = sum(_has_bit(op, "new_axis", i) for i in range(count))
    for i in range(count):
        if _has_bit(op, "ellipsis", i):
            skipped = len(shape) - (count - 1 - new_axes)
            axis, out = axis + skipped, out + skipped
        elif _has_bit(op, "new_axis", i):
            spec.new.append(out)
            out += 1
        else:
            end = begins[i] + ends[i] if op.options.get("offset", False) else ends[i]
            cut = _apply_masks(
                op, i, _AxisSlice(axis=axis, begin=begins[i], end=end, step=steps[i])
            )
            if not _is_whole(cut, shape[axis]):
                spec.cuts.append(cut)
            if _has_bit(op, "shrink_axis", i):
                spec.shrunk.append(axis)
            else:
                out += 1
            axis += 1
    return spec


def _has_bit(op: Op, mask: str, position: int) -> bool:
    return bool(int(op.options.get(f"{mask}_mask", 0)) >> position & 1)


def _apply_masks(op: Op, position: int, cut: _AxisSlice) -> _AxisSlice:
    begin, end = cut.begin, cut.end
    if _has_bit(op, "shrink_axis", position):
        begin = 0 if _has_bit(op, "begin", position) else begin
        return _AxisSlice(axis=cut.axis, begin=begin, end=begin + 1 or _FAR, step=1)
    if _has_bit(op, "begin", position):
        begin = 0 if cut.step > 0 else -1
    if _has_bit(op, "end", position):
        end = _FAR if cut.step > 0 else -_FAR
    return _AxisSlice(axis=cut.axis, begin=begin, end=end, step=cut.step)


def _is_whole(cut: _AxisSlice, size: int) -> bool:
    return cut.begin == 0 and cut.step == 1 and (cut.end == _FAR or cut.end >= size > 0)


def _slice_dynamically(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert computed bounds: an index into the first axes, or a slice with steps of 1."""
    x, begin = builder.tensor(op, 0), builder.tensor(op, 1)
    steps = builder.integers(op, 3)
    count = begin.shape[0] if begin.shape else 1
    masks = {m: op.options.get(f"{m}_mask", 0) for m in ("begin", "end", "ellipsis", "new_axis")}
    shrunk = [i for i in range(count) if _has_bit(op, "shrink_axis", i)]
    if count < 1 or any(s != 1 for s in steps) or masks["ellipsis"] or masks["new_axis"]:
        raise builder.refusal(op, "has bounds that are computed at run time")
    starts, ends = builder.int64(op, 1), builder.int64(op, 2)
    starts = _replace_masked(builder, starts, masks["begin"], count, 0)
    ends = _replace_masked(builder, ends, masks["end"], count, _FAR)
    if shrunk:
        after = builder.node("Add", [starts, builder.ints(1)])
        is_last = builder.node("Equal", [after, builder.ints(0)])
        after = builder.node("Where", [is_last, builder.ints(_FAR), after])
        flags = builder.ints(*(int(i in shrunk) for i in range(count)))
        ends = builder.node("Where", [builder.cast(flags, "bool"), after, ends])
    axes = builder.ints(*range(count))
    name = builder.node("Slice", [builder.plain(op, 0), starts, ends, axes])
    builder.bind(op, *squeeze_axes(builder, name, plain_order(len(x.shape)), shrunk))


def _replace_masked(
    builder: OnnxGraphBuilder, bounds: str, mask: int, count: int, replacement: int
) -> str:
    if not mask:
        return bounds
    flags = builder.ints(*(mask >> i & 1 for i in range(count)))
    return builder.node("Where", [builder.cast(flags, "bool"), builder.ints(replacement), bounds])


RULES: dict[str, Rule] = {"STRIDED_SLICE": strided_slice}
