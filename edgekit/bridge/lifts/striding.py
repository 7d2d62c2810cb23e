"""Conversion rule of STRIDED_SLICE and its masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.bridge.graph import Op
from edgekit.bridge.layout import Order, plain_order
from edgekit.bridge.lifting import Lifting
from edgekit.bridge.lifts.activations import Rule
from edgekit.bridge.lifts.axes import squeezed, unsqueezed

_FAR = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """Begin, end and step of the slice of one axis."""

    axis: int
    begin: int
    end: int
    step: int


@dataclass(kw_only=True)
class _Spec:
    """Decoded masks: slices, input axes to remove (``shrunk``), output axes to add (``new``)."""

    cuts: list[_Cut]
    shrunk: list[int]
    new: list[int]


def strided_slice(lifting: Lifting, op: Op) -> None:
    """Convert STRIDED_SLICE to Slice, Squeeze and Unsqueeze.

    Raises:
        PassRefused: computed bounds together with steps, an ellipsis or new axes.
    """
    if any(lifting.array(op, i) is None for i in (1, 2, 3)):
        _computed(lifting, op)
        return
    spec = _spec(lifting, op)
    x, order = lifting.tensor(op, 0), lifting.order(op, 0)
    name = _cut(lifting, lifting.read(x, order), order, spec.cuts)
    name, order = squeezed(lifting, name, order, spec.shrunk)
    lifting.bind(op, *unsqueezed(lifting, name, order, spec.new))


def _cut(lifting: Lifting, name: str, order: Order, cuts: Sequence[_Cut]) -> str:
    if not cuts:
        return name
    columns = [
        [c.begin for c in cuts],
        [c.end for c in cuts],
        [order.index(c.axis) for c in cuts],
        [c.step for c in cuts],
    ]
    return lifting.node("Slice", [name, *(lifting.ints(*column) for column in columns)])


def _spec(lifting: Lifting, op: Op) -> _Spec:
    shape = lifting.shape(lifting.tensor(op, 0))
    begins, ends, steps = (lifting.integers(op, i) for i in (1, 2, 3))
    spec, axis, out = _Spec(cuts=[], shrunk=[], new=[]), 0, 0
    count = len(begins)
    new_axes = sum(_bit(op, "new_axis", i) for i in range(count))
    for i in range(count):
        if _bit(op, "ellipsis", i):
            skipped = len(shape) - (count - 1 - new_axes)
            axis, out = axis + skipped, out + skipped
        elif _bit(op, "new_axis", i):
            spec.new.append(out)
            out += 1
        else:
            end = begins[i] + ends[i] if op.options.get("offset", False) else ends[i]
            cut = _bounds(op, i, _Cut(axis=axis, begin=begins[i], end=end, step=steps[i]))
            if not _is_whole(cut, shape[axis]):
                spec.cuts.append(cut)
            if _bit(op, "shrink_axis", i):
                spec.shrunk.append(axis)
            else:
                out += 1
            axis += 1
    return spec


def _bit(op: Op, mask: str, position: int) -> bool:
    return bool(int(op.options.get(f"{mask}_mask", 0)) >> position & 1)


def _bounds(op: Op, position: int, cut: _Cut) -> _Cut:
    begin, end = cut.begin, cut.end
    if _bit(op, "shrink_axis", position):
        begin = 0 if _bit(op, "begin", position) else begin
        return _Cut(axis=cut.axis, begin=begin, end=begin + 1 or _FAR, step=1)
    if _bit(op, "begin", position):
        begin = 0 if cut.step > 0 else -1
    if _bit(op, "end", position):
        end = _FAR if cut.step > 0 else -_FAR
    return _Cut(axis=cut.axis, begin=begin, end=end, step=cut.step)


def _is_whole(cut: _Cut, size: int) -> bool:
    return cut.begin == 0 and cut.step == 1 and (cut.end == _FAR or cut.end >= size > 0)


def _computed(lifting: Lifting, op: Op) -> None:
    """Convert computed bounds: an index into the first axes, or a slice with steps of 1."""
    x, begin = lifting.tensor(op, 0), lifting.tensor(op, 1)
    steps = lifting.integers(op, 3)
    count = begin.shape[0] if begin.shape else 1
    masks = {m: op.options.get(f"{m}_mask", 0) for m in ("begin", "end", "ellipsis", "new_axis")}
    shrunk = [i for i in range(count) if _bit(op, "shrink_axis", i)]
    if count < 1 or any(s != 1 for s in steps) or masks["ellipsis"] or masks["new_axis"]:
        raise lifting.refusal(op, "takes its bounds from a computation")
    starts, ends = lifting.int64(op, 1), lifting.int64(op, 2)
    starts = _masked(lifting, starts, masks["begin"], count, 0)
    ends = _masked(lifting, ends, masks["end"], count, _FAR)
    if shrunk:
        after = lifting.node("Add", [starts, lifting.ints(1)])
        is_last = lifting.node("Equal", [after, lifting.ints(0)])
        after = lifting.node("Where", [is_last, lifting.ints(_FAR), after])
        flags = lifting.ints(*(int(i in shrunk) for i in range(count)))
        ends = lifting.node("Where", [lifting.cast(flags, "bool"), after, ends])
    axes = lifting.ints(*range(count))
    name = lifting.node("Slice", [lifting.plain(op, 0), starts, ends, axes])
    lifting.bind(op, *squeezed(lifting, name, plain_order(len(x.shape)), shrunk))


def _masked(lifting: Lifting, bounds: str, mask: int, count: int, instead: int) -> str:
    if not mask:
        return bounds
    flags = lifting.ints(*(mask >> i & 1 for i in range(count)))
    return lifting.node("Where", [lifting.cast(flags, "bool"), lifting.ints(instead), bounds])


LIFTS: dict[str, Rule] = {"STRIDED_SLICE": strided_slice}
