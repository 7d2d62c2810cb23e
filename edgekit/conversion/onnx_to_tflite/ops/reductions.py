"""Conversion rules of reductions over axes, in the storage order of their input."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import Order, Value
from edgekit.conversion.onnx_to_tflite.ops.arithmetic import emit_binary, emit_unary, reduce_axes
from edgekit.conversion.onnx_to_tflite.ops.elementwise import absolute
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
from edgekit.tflite.ir import Tensor

Reduce = Callable[[Lowering, Tensor, list[int], bool], Tensor]
_LEAST = float(np.finfo(np.float32).min)


def make_reduction_rule(compute: Reduce, *, empty: float) -> Callable[[Lowering, NodeProto], None]:
    """Make the rule of a reduction.

    Args:
        compute: emits it for a tensor, its storage axes, and whether to keep them.
        empty: result of the reduction over no entries.
    """
    return partial(_lower_reduction, compute=compute, empty=empty)


def _lower_reduction(low: Lowering, node: NodeProto, *, compute: Reduce, empty: float) -> None:
    value = low.value(node, 0)
    keep = bool(get_attribute(node, "keepdims", 1))
    axes = _read_axes(low, node, len(value.order))
    order = value.order if keep else _drop_axes(value.order, axes)
    if 0 in value.shape:
        low.bind(node, _fill_empty(low, node, value, empty))
        return
    made = compute(low, value.tensor, [value.axis(axis) for axis in axes], keep)
    low.bind(node, made, order)


def _read_axes(low: Lowering, node: NodeProto, rank: int) -> list[int]:
    given = get_attribute(node, "axes")
    if given is None and low.has(node, 1):
        given = low.integers(node, 1)
    if given:
        return sorted({axis % rank for axis in given})
    return [] if get_attribute(node, "noop_with_empty_axes", 0) else list(range(rank))


def _drop_axes(order: Order, axes: list[int]) -> Order:
    """Remove axes from a storage order and renumber the others."""
    kept = [axis for axis in range(len(order)) if axis not in axes]
    return tuple(kept.index(axis) for axis in order if axis not in axes)


def _fill_empty(low: Lowering, node: NodeProto, value: Value, empty: float) -> Tensor:
    shape = low.shape_of(node.output[0])
    dtype = value.tensor.dtype
    if dtype == "bool":
        fill = np.asarray(empty > 0)
    elif dtype == "float32":
        fill = np.asarray(empty, np.float32)
    else:
        bounds = np.iinfo(dtype)
        fill = np.asarray(np.clip(np.nan_to_num(empty), bounds.min, bounds.max)).astype(dtype)
    inputs = [low.int32(shape), low.store(fill)]
    return low.emit("FILL", inputs, shape, dtype=dtype)


def _make_reduce(kind: str) -> Reduce:
    return lambda low, x, axes, keep: reduce_axes(low, kind, x, axes, keep=keep)


def _make_extremum(kind: str, on_bool: str) -> Reduce:
    def compute(low: Lowering, x: Tensor, axes: list[int], keep: bool) -> Tensor:
        return reduce_axes(low, on_bool if x.dtype == "bool" else kind, x, axes, keep=keep)

    return compute


def _mean(low: Lowering, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.dtype == "float32":
        return reduce_axes(low, "MEAN", x, axes, keep=keep)
    count = int(np.prod([x.shape[axis] for axis in axes]))
    return emit_binary(low, "DIV", reduce_axes(low, "SUM", x, axes, keep=keep), count)


def _l1(low: Lowering, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return reduce_axes(low, "SUM", absolute(low, x), axes, keep=keep)


def _sum_square(low: Lowering, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return reduce_axes(low, "SUM", emit_binary(low, "MUL", x, x), axes, keep=keep)


def _l2(low: Lowering, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    made = low.cast(_sum_square(low, x, axes, keep), "float32")
    return low.cast(emit_unary(low, "SQRT", made), x.dtype)


def _log_sum(low: Lowering, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    made = low.cast(reduce_axes(low, "SUM", x, axes, keep=keep), "float32")
    return low.cast(emit_unary(low, "LOG", made), x.dtype)


def _log_sum_exp(low: Lowering, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Compute log-sum-exp, with the largest entry subtracted first so that nothing overflows."""
    real = low.cast(x, "float32")
    most = emit_binary(low, "MAXIMUM", reduce_axes(low, "REDUCE_MAX", real, axes), _LEAST)
    total = reduce_axes(
        low, "SUM", emit_unary(low, "EXP", emit_binary(low, "SUB", real, most)), axes
    )
    made = emit_binary(low, "ADD", emit_unary(low, "LOG", total), most)
    if not keep:
        shape = tuple(n for axis, n in enumerate(made.shape) if axis not in axes)
        made = low.reshape(made, shape)
    return low.cast(made, x.dtype)


RULES = {
    "ReduceL1": make_reduction_rule(_l1, empty=0),
    "ReduceL2": make_reduction_rule(_l2, empty=0),
    "ReduceLogSum": make_reduction_rule(_log_sum, empty=-np.inf),
    "ReduceLogSumExp": make_reduction_rule(_log_sum_exp, empty=-np.inf),
    "ReduceMax": make_reduction_rule(_make_extremum("REDUCE_MAX", "REDUCE_ANY"), empty=-np.inf),
    "ReduceMean": make_reduction_rule(_mean, empty=np.nan),
    "ReduceMin": make_reduction_rule(_make_extremum("REDUCE_MIN", "REDUCE_ALL"), empty=np.inf),
    "ReduceProd": make_reduction_rule(_make_reduce("REDUCE_PROD"), empty=1),
    "ReduceSum": make_reduction_rule(_make_reduce("SUM"), empty=0),
    "ReduceSumSquare": make_reduction_rule(_sum_square, empty=0),
}
