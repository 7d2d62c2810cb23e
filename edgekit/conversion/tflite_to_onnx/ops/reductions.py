"""Conversion rules of reductions, arg-max, top-k, cumulative sums and normalizations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from edgekit.conversion.onnx_to_tflite.layout import plain_order
from edgekit.conversion.tflite_to_onnx.graph_builder import Lifting, Rule
from edgekit.conversion.tflite_to_onnx.onnx_builder import get_quantization
from edgekit.conversion.tflite_to_onnx.ops.axes import drop_axes, normalize_axis
from edgekit.tflite.ir import Op

_AXES_AS_INPUT = 18  # opset from which reductions take axes as an input; ReduceSum since 13


def reduce_axes(
    lifting: Lifting, kind: str, name: str, axes: Sequence[int], *, keep: bool = True
) -> str:
    """Add a reduction, with the axes as an attribute or an input depending on the opset.

    Args:
        lifting: the ONNX graph under construction.
        kind: ONNX operator type.
        name: of the value.
        axes: of the value.
        keep: keep the reduced axes with size 1.
    """
    attributes = {"keepdims": int(keep)}
    if kind == "ReduceSum" or lifting.written.opset >= _AXES_AS_INPUT:
        return lifting.node(kind, [name, lifting.ints(*axes)], attributes)
    return lifting.node(kind, [name], attributes | {"axes": list(axes)})


def make_reduction_rule(kind: str, *, truth: bool = False) -> Rule:
    """Make the rule of a reduction.

    Args:
        kind: ONNX operator type.
        truth: the values are boolean, which ONNX does not reduce: compute them as int32.
    """
    return partial(_lift_reduction, kind=kind, truth=truth)


def _lift_reduction(lifting: Lifting, op: Op, *, kind: str, truth: bool) -> None:
    order, tensor = lifting.order(op, 0), lifting.tensor(op, 0)
    rank = len(order)
    axes = sorted({normalize_axis(a, rank) for a in lifting.integers(op, 1)})
    name, keep = lifting.read(tensor, order), bool(op.options.get("keep_dims", False))
    if not axes:
        lifting.bind(op, name, order)
        return
    if truth:
        name = lifting.cast(name, "int32")
    where = sorted(order.index(a) for a in axes)
    is_pooled = kind == "ReduceMean" and rank == 4 and where == [2, 3]
    if is_pooled and get_quantization(tensor) is not None:
        # Only pooling has an integer kernel.
        name = lifting.node("GlobalAveragePool", [name])
        if not keep:
            name = lifting.node("Squeeze", [name, lifting.ints(2, 3)])
    else:
        name = reduce_axes(lifting, kind, name, where, keep=keep)
    if truth:
        name = lifting.cast(name, "bool")
    lifting.bind(op, name, order if keep else drop_axes(order, axes))


def make_arg_rule(kind: str) -> Rule:
    """Make the rule of ARG_MAX or ARG_MIN.

    Args:
        kind: ONNX operator type.
    """
    return partial(_lift_arg, kind=kind)


def _lift_arg(lifting: Lifting, op: Op, *, kind: str) -> None:
    order = lifting.order(op, 0)
    axis = normalize_axis(lifting.integers(op, 1)[0], len(order))
    attributes = {"axis": order.index(axis), "keepdims": 0}
    name = lifting.node(kind, [lifting.read(lifting.tensor(op, 0), order)], attributes)
    if op.outputs[0].dtype != "int64":
        name = lifting.cast(name, op.outputs[0].dtype)
    lifting.bind(op, name, drop_axes(order, [axis]))


def top_k(lifting: Lifting, op: Op) -> None:
    """Convert TOPK_V2: the largest entries along the last axis, and their indices."""
    count = lifting.node("Reshape", [lifting.int64(op, 1), lifting.ints(1)])
    values, indices = lifting.nodes("TopK", [lifting.plain(op, 0), count], 2)
    lifting.bind(op, values)
    dtype = op.outputs[1].dtype
    lifting.bind(op, indices if dtype == "int64" else lifting.cast(indices, dtype), output=1)


def cumsum(lifting: Lifting, op: Op) -> None:
    """Convert CUMSUM to CumSum."""
    order = lifting.order(op, 0)
    axis = order.index(normalize_axis(lifting.integers(op, 1)[0], len(order)))
    attributes = {k: int(op.options.get(k, False)) for k in ("exclusive", "reverse")}
    inputs = [
        lifting.read(lifting.tensor(op, 0), order),
        lifting.numbers(np.asarray(axis, np.int64)),
    ]
    lifting.bind(op, lifting.node("CumSum", inputs, attributes), order)


def l2_normalization(lifting: Lifting, op: Op) -> None:
    """Convert L2_NORMALIZATION over the last axis; norms below 1e-6 count as 1e-6."""
    order = lifting.order(op, 0)
    x = lifting.read(lifting.tensor(op, 0), order)
    length = reduce_axes(lifting, "ReduceL2", x, [order.index(len(order) - 1)])
    length = lifting.node("Max", [length, lifting.scalar(1e-6)])
    lifting.bind(op, lifting.node("Div", [x, length]), order)


def local_response_normalization(lifting: Lifting, op: Op) -> None:
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
    x = lifting.read(lifting.tensor(op, 0), order)
    lifting.bind(op, lifting.node("LRN", [x], attributes), order)


def rank_of(lifting: Lifting, op: Op) -> None:
    """Convert RANK to a constant."""
    rank = len(plain_order(len(lifting.tensor(op, 0).shape)))
    lifting.bind(op, lifting.numbers(np.asarray(rank, op.outputs[0].dtype)))


LIFTS: dict[str, Rule] = {
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
