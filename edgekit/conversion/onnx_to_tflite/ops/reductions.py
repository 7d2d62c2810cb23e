"""Conversion rules of reductions over axes, in the storage order of their input."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import Order, Value
from edgekit.conversion.onnx_to_tflite.ops.arithmetic import emit_binary, emit_unary, reduce_axes
from edgekit.conversion.onnx_to_tflite.ops.elementwise import absolute
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Tensor

Reduce = Callable[[TfliteGraphBuilder, Tensor, list[int], bool], Tensor]
_LEAST = float(np.finfo(np.float32).min)


def make_reduction_rule(
    compute: Reduce, *, empty: float
) -> Callable[[TfliteGraphBuilder, NodeProto], None]:
    """Make the rule of a reduction.

    Args:
        compute: emits it for a tensor, its storage axes, and whether to keep them.
        empty: result of the reduction over no entries.
    """
    return partial(_convert_reduction, compute=compute, empty=empty)


def _convert_reduction(
    builder: TfliteGraphBuilder, node: NodeProto, *, compute: Reduce, empty: float
) -> None:
    value = builder.value(node, 0)
    keep = bool(get_attribute(node, "keepdims", 1))
    axes = _read_axes(builder, node, len(value.order))
    order = value.order if keep else _drop_axes(value.order, axes)
    if 0 in value.shape:
        builder.bind(node, _fill_empty(builder, node, value, empty))
        return
    result = compute(builder, value.tensor, [value.axis(axis) for axis in axes], keep)
    builder.bind(node, result, order)


def _read_axes(builder: TfliteGraphBuilder, node: NodeProto, rank: int) -> list[int]:
    axes = get_attribute(node, "axes")
    if axes is None and builder.has(node, 1):
        axes = builder.integers(node, 1)
    if axes:
        return sorted({axis % rank for axis in axes})
    return [] if get_attribute(node, "noop_with_empty_axes", 0) else list(range(rank))


def _drop_axes(order: Order, axes: list[int]) -> Order:
    """Remove axes from a storage order and renumber the others."""
    kept_axes = [axis for axis in range(len(order)) if axis not in axes]
    return tuple(kept_axes.index(axis) for axis in order if axis not in axes)


def _fill_empty(builder: TfliteGraphBuilder, node: NodeProto, value: Value, empty: float) -> Tensor:
    shape = builder.shape_of(node.output[0])
    dtype = value.tensor.dtype
    if dtype == "bool":
        fill = np.asarray(empty > 0)
    elif dtype == "float32":
        fill = np.asarray(empty, np.float32)
    else:
        bounds = np.iinfo(dtype)
        fill = np.asarray(np.clip(np.nan_to_num(empty), bounds.min, bounds.max)).astype(dtype)
    inputs = [builder.int32(shape), builder.store(fill)]
    return builder.emit("FILL", inputs, shape, dtype=dtype)


def _make_reduce(op_type: str) -> Reduce:
    return lambda builder, x, axes, keep: reduce_axes(builder, op_type, x, axes, keep=keep)


def _make_extremum(op_type: str, on_bool: str) -> Reduce:
    def compute(builder: TfliteGraphBuilder, x: Tensor, axes: list[int], keep: bool) -> Tensor:
        return reduce_axes(builder, on_bool if x.dtype == "bool" else op_type, x, axes, keep=keep)

    return compute


def _mean(builder: TfliteGraphBuilder, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.dtype == "float32":
        return reduce_axes(builder, "MEAN", x, axes, keep=keep)
    count = int(np.prod([x.shape[axis] for axis in axes]))
    return emit_binary(builder, "DIV", reduce_axes(builder, "SUM", x, axes, keep=keep), count)


def _l1(builder: TfliteGraphBuilder, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return reduce_axes(builder, "SUM", absolute(builder, x), axes, keep=keep)


def _sum_square(builder: TfliteGraphBuilder, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return reduce_axes(builder, "SUM", emit_binary(builder, "MUL", x, x), axes, keep=keep)


def _l2(builder: TfliteGraphBuilder, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    result = builder.cast(_sum_square(builder, x, axes, keep), "float32")
    return builder.cast(emit_unary(builder, "SQRT", result), x.dtype)


def _log_sum(builder: TfliteGraphBuilder, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    result = builder.cast(reduce_axes(builder, "SUM", x, axes, keep=keep), "float32")
    return builder.cast(emit_unary(builder, "LOG", result), x.dtype)


def _log_sum_exp(builder: TfliteGraphBuilder, x: Tensor, axes: list[int], keep: bool) -> Tensor:
    """Compute log-sum-exp, with the largest entry subtracted first so that nothing overflows."""
    x_float = builder.cast(x, "float32")
    most = emit_binary(
        builder, "MAXIMUM", reduce_axes(builder, "REDUCE_MAX", x_float, axes), _LEAST
    )
    total = reduce_axes(
        builder, "SUM", emit_unary(builder, "EXP", emit_binary(builder, "SUB", x_float, most)), axes
    )
    result = emit_binary(builder, "ADD", emit_unary(builder, "LOG", total), most)
    if not keep:
        shape = tuple(n for axis, n in enumerate(result.shape) if axis not in axes)
        result = builder.reshape(result, shape)
    return builder.cast(result, x.dtype)


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
