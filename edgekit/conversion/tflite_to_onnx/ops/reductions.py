"""Conversion rules of reductions, arg-max, top-k, cumulative sums and normalizations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from edgekit.conversion.onnx_to_tflite.layout import plain_order
from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder, Rule
from edgekit.conversion.tflite_to_onnx.onnx_model_builder import get_quantization
from edgekit.conversion.tflite_to_onnx.ops.axes import drop_axes, normalize_axis
from edgekit.tflite.ir import Op

_AXES_AS_INPUT = 18  # opset from which reductions take axes as an input; ReduceSum since 13


def reduce_axes(
    builder: OnnxGraphBuilder, op_type: str, name: str, axes: Sequence[int], *, keep: bool = True
) -> str:
    """Add a reduction, with the axes as an attribute or an input depending on the opset.

    Args:
        builder: the ONNX graph under construction.
        op_type: ONNX operator type.
        name: of the value.
        axes: of the value.
        keep: keep the reduced axes with size 1.
    """
    attributes = {"keepdims": int(keep)}
    if op_type == "ReduceSum" or builder.model_builder.opset >= _AXES_AS_INPUT:
        return builder.node(op_type, [name, builder.ints(*axes)], attributes)
    return builder.node(op_type, [name], attributes | {"axes": list(axes)})


def make_reduction_rule(op_type: str, *, truth: bool = False) -> Rule:
    """Make the rule of a reduction.

    Args:
        op_type: ONNX operator type.
        truth: the values are boolean, which ONNX does not reduce: compute them as int32.
    """
    return partial(_convert_reduction, op_type=op_type, truth=truth)


def _convert_reduction(builder: OnnxGraphBuilder, op: Op, *, op_type: str, truth: bool) -> None:
    order, tensor = builder.order(op, 0), builder.tensor(op, 0)
    rank = len(order)
    axes = sorted({normalize_axis(a, rank) for a in builder.integers(op, 1)})
    name, keep = builder.read(tensor, order), bool(op.options.get("keep_dims", False))
    if not axes:
        builder.bind(op, name, order)
        return
    if truth:
        name = builder.cast(name, "int32")
    onnx_axes = sorted(order.index(a) for a in axes)
    is_pooled = op_type == "ReduceMean" and rank == 4 and onnx_axes == [2, 3]
    if is_pooled and get_quantization(tensor) is not None:
        # Only pooling has an integer kernel.
        name = builder.node("GlobalAveragePool", [name])
        if not keep:
            name = builder.node("Squeeze", [name, builder.ints(2, 3)])
    else:
        name = reduce_axes(builder, op_type, name, onnx_axes, keep=keep)
    if truth:
        name = builder.cast(name, "bool")
    builder.bind(op, name, order if keep else drop_axes(order, axes))


def make_arg_rule(op_type: str) -> Rule:
    """Make the rule of ARG_MAX or ARG_MIN.

    Args:
        op_type: ONNX operator type.
    """
    return partial(_convert_arg, op_type=op_type)


def _convert_arg(builder: OnnxGraphBuilder, op: Op, *, op_type: str) -> None:
    order = builder.order(op, 0)
    axis = normalize_axis(builder.integers(op, 1)[0], len(order))
    attributes = {"axis": order.index(axis), "keepdims": 0}
    name = builder.node(op_type, [builder.read(builder.tensor(op, 0), order)], attributes)
    if op.outputs[0].dtype != "int64":
        name = builder.cast(name, op.outputs[0].dtype)
    builder.bind(op, name, drop_axes(order, [axis]))


def top_k(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert TOPK_V2: the largest entries along the last axis, and their indices."""
    count = builder.node("Reshape", [builder.int64(op, 1), builder.ints(1)])
    values, indices = builder.nodes("TopK", [builder.plain(op, 0), count], 2)
    builder.bind(op, values)
    dtype = op.outputs[1].dtype
    builder.bind(op, indices if dtype == "int64" else builder.cast(indices, dtype), output=1)


def cumsum(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert CUMSUM to CumSum."""
    order = builder.order(op, 0)
    axis = order.index(normalize_axis(builder.integers(op, 1)[0], len(order)))
    attributes = {k: int(op.options.get(k, False)) for k in ("exclusive", "reverse")}
    inputs = [
        builder.read(builder.tensor(op, 0), order),
        builder.numbers(np.asarray(axis, np.int64)),
    ]
    builder.bind(op, builder.node("CumSum", inputs, attributes), order)


def l2_normalization(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert L2_NORMALIZATION over the last axis; norms below 1e-6 count as 1e-6."""
    order = builder.order(op, 0)
    x = builder.read(builder.tensor(op, 0), order)
    length = reduce_axes(builder, "ReduceL2", x, [order.index(len(order) - 1)])
    length = builder.node("Max", [length, builder.scalar(1e-6)])
    builder.bind(op, builder.node("Div", [x, length]), order)


def local_response_normalization(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert LOCAL_RESPONSE_NORMALIZATION to LRN.

    ``alpha`` is multiplied by the size of the window, because ONNX divides it by that.
    """
    order = (0, 3, 1, 2)
    size = 2 * op.options["radius"] + 1
    attributes = {
        "size": size,
        "alpha": op.options["alpha"] * size,
        "beta": op.options["beta"],
        "bias": op.options["bias"],
    }
    x = builder.read(builder.tensor(op, 0), order)
    builder.bind(op, builder.node("LRN", [x], attributes), order)


def rank_of(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert RANK to a constant."""
    rank = len(plain_order(len(builder.tensor(op, 0).shape)))
    builder.bind(op, builder.numbers(np.asarray(rank, op.outputs[0].dtype)))


RULES: dict[str, Rule] = {
    "ARG_MAX": make_arg_rule("ArgMax"),
    "ARG_MIN": make_arg_rule("ArgMin"),
    "CUMSUM": cumsum,
    "L2_NORMALIZATION": l2_normalization,
    "LOCAL_RESPONSE_NORMALIZATION": local_response_normalization,
    "MEAN": make_reduction_rule("ReduceMean"),
    "RANK": rank_of,
    "REDUCE_ALL": make_reduction_rule("ReduceMin", truth=True),
    "REDUCE_ANY": make_reduction_rule("ReduceMax", truth=True),
    "REDUCE_MAX": make_reduction_rule("ReduceMax"),
    "REDUCE_MIN": make_reduction_rule("ReduceMin"),
    "REDUCE_PROD": make_reduction_rule("ReduceProd"),
    "SUM": make_reduction_rule("ReduceSum"),
    "TOPK_V2": top_k,
}
