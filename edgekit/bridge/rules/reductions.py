"""Conversion rules of reductions over axes, in the storage order of their input."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from onnx import NodeProto

from edgekit.bridge.graph import Tensor
from edgekit.bridge.layout import Order, Value
from edgekit.bridge.lowering import Lowering, attr
from edgekit.bridge.rules.elementwise import absolute
from edgekit.bridge.rules.maths import pair, reduced, single

Reduce = Callable[[Lowering, Tensor, list[int], bool], Tensor]
_LEAST = float(np.finfo(np.float32).min)


def reduction(compute: Reduce, *, empty: float) -> Callable[[Lowering, NodeProto], None]:
    """Make the rule of a reduction.

    Args:
        compute: emits it for a tensor, its storage axes, and whether to keep them.
        empty: result of the reduction over no entries.
    """
    return partial(_reduction, compute=compute, empty=empty)


def _reduction(low: Lowering, node: NodeProto, *, compute: Reduce, empty: float) -> None:
    value = low.value(node, 0)
    keep = bool(attr(node, "keepdims", 1))
    axes = _axes(low, node, len(value.order))
    order = value.order if keep else _remaining(value.order, axes)
    if 0 in value.shape:
        low.bind(node, _of_nothing(low, node, value, empty))
        return
    made = compute(low, value.tensor, [value.axis(axis) for axis in axes], keep)
    low.bind(node, made, order)


def _axes(low: Lowering, node: NodeProto, rank: int) -> list[int]:
    given = attr(node, "axes")
    if given is None and low.has(node, 1):
        given = low.integers(node, 1)
    if given:
        return sorted({axis % rank for axis in given})
    return [] if attr(node, "noop_with_empty_axes", 0) else list(range(rank))


def _remaining(order: Order, axes: list[int]) -> Order:
    """Remove axes from a storage order and renumber the others."""
    kept = [axis for axis in range(len(order)) if axis not in axes]
    return tuple(kept.index(axis) for axis in order if axis not in axes)


def _of_nothing(low: Lowering, node: NodeProto, value: Value, empty: float) -> Tensor:
    shape = low.shape_of(node.output[0])
    dtype = value.tensor.dtype
    if dtype == "bool":
        fill = np.asarray(empty > 0)
    elif dtype == "float32":
        fill = np.asarray(empty, np.float32)
    else:
        bounds = np.iinfo(dtype)
        fill = np.asarray(np.clip(np.nan_to_num(empty), bounds.min, bounds.max)).astype(dtype)
    inputs = [low.int32(shape), low.stored(fill)]
    return low.emit("FILL", inputs, shape, dtype=dtype)


def _plain(kind: str) -> Reduce:
    return lambda low, x, axes, keep: reduced(low, kind, x, axes, keep=keep)


def _extreme(kind: str, on_bool: str) -> Reduce:
    def compute(low: Lowering, x: Tensor, axes: list[int], keep: bool) -> Tensor:
        return reduced(low, on_bool if x.dtype == "bool" else kind, x, axes, keep=keep)

    return compute


def _mean(low: Lowering, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.dtype == "float32":
        return reduced(low, "MEAN", x, axes, keep=keep)
    count = int(np.prod([x.shape[axis] for axis in axes]))
    return pair(low, "DIV", reduced(low, "SUM", x, axes, keep=keep), count)


def _l1(low: Lowering, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return reduced(low, "SUM", absolute(low, x), axes, keep=keep)


def _sum_square(low: Lowering, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return reduced(low, "SUM", pair(low, "MUL", x, x), axes, keep=keep)


def _l2(low: Lowering, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    made = low.cast(_sum_square(low, x, axes, keep), "float32")
    return low.cast(single(low, "SQRT", made), x.dtype)


def _log_sum(low: Lowering, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    made = low.cast(reduced(low, "SUM", x, axes, keep=keep), "float32")
    return low.cast(single(low, "LOG", made), x.dtype)


def _log_sum_exp(low: Lowering, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Compute log-sum-exp, with the largest entry subtracted first so that nothing overflows."""
    real = low.cast(x, "float32")
    most = pair(low, "MAXIMUM", reduced(low, "REDUCE_MAX", real, axes), _LEAST)
    total = reduced(low, "SUM", single(low, "EXP", pair(low, "SUB", real, most)), axes)
    made = pair(low, "ADD", single(low, "LOG", total), most)
    if not keep:
        shape = tuple(n for axis, n in enumerate(made.shape) if axis not in axes)
        made = low.reshaped(made, shape)
    return low.cast(made, x.dtype)


RULES = {
    "ReduceL1": reduction(_l1, empty=0),
    "ReduceL2": reduction(_l2, empty=0),
    "ReduceLogSum": reduction(_log_sum, empty=-np.inf),
    "ReduceLogSumExp": reduction(_log_sum_exp, empty=-np.inf),
    "ReduceMax": reduction(_extreme("REDUCE_MAX", "REDUCE_ANY"), empty=-np.inf),
    "ReduceMean": reduction(_mean, empty=np.nan),
    "ReduceMin": reduction(_extreme("REDUCE_MIN", "REDUCE_ALL"), empty=np.inf),
    "ReduceProd": reduction(_plain("REDUCE_PROD"), empty=1),
    "ReduceSum": reduction(_plain("SUM"), empty=0),
    "ReduceSumSquare": reduction(_sum_square, empty=0),
}
