"""Conversion rules of element-wise operators: unary ones, and others with broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from onnx import NodeProto, helper

from edgekit.conversion.onnx_to_tflite.layout import Order, Value, plain_order
from edgekit.conversion.onnx_to_tflite.ops.arithmetic import clamp, emit_binary, emit_unary
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import (
    TfliteGraphBuilder,
    get_attribute,
    get_computed_type,
)
from edgekit.tflite.ir import Tensor

# Types that TFLite's CAST supports; casts from or to others are refused.
_CAST_TYPES = {"bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float32"}


def make_unary_rule(op_type: str) -> Callable[[TfliteGraphBuilder, NodeProto], None]:
    """Make the rule of a unary operator that becomes one TFLite operator.

    Args:
        op_type: TFLite operator type.
    """
    return partial(_convert_unary, op_type=op_type)


def make_binary_rule(
    op_type: str, *, dtype: str | None = None
) -> Callable[[TfliteGraphBuilder, NodeProto], None]:
    """Make the rule of a binary operator with broadcasting.

    Args:
        op_type: TFLite operator type.
        dtype: of the output, if it differs from that of the inputs.
    """
    return partial(_convert_binary, op_type=op_type, dtype=dtype)


def make_variadic_rule(op_type: str) -> Callable[[TfliteGraphBuilder, NodeProto], None]:
    """Make the rule of an operator on any number of inputs, with broadcasting.

    Args:
        op_type: TFLite operator type of the pairwise operation.
    """
    return partial(_convert_variadic, op_type=op_type)


def make_composite_rule(
    compute: Callable[[TfliteGraphBuilder, Tensor], Tensor],
) -> Callable[[TfliteGraphBuilder, NodeProto], None]:
    """Make the rule of an element-wise function that takes several TFLite operators.

    Args:
        compute: emits them for a tensor.
    """
    return partial(_convert_composite, compute=compute)


def _convert_unary(builder: TfliteGraphBuilder, node: NodeProto, *, op_type: str) -> None:
    value = builder.value(node, 0, mixed=True)
    builder.bind(node, emit_unary(builder, op_type, value.tensor), value.order, mixed=value.mixed)


def _convert_composite(
    builder: TfliteGraphBuilder,
    node: NodeProto,
    *,
    compute: Callable[[TfliteGraphBuilder, Tensor], Tensor],
) -> None:
    value = builder.value(node, 0, mixed=True)
    builder.bind(node, compute(builder, value.tensor), value.order, mixed=value.mixed)


def _convert_binary(
    builder: TfliteGraphBuilder, node: NodeProto, *, op_type: str, dtype: str | None
) -> None:
    (left, right), order = align_inputs(builder, node)
    builder.bind(node, emit_binary(builder, op_type, left, right, dtype=dtype), order)


def _convert_variadic(builder: TfliteGraphBuilder, node: NodeProto, *, op_type: str) -> None:
    tensors, order = align_inputs(builder, node)
    builder.bind(node, _accumulate(builder, op_type, tensors), order)


def _accumulate(builder: TfliteGraphBuilder, op_type: str, tensors: Sequence[Tensor]) -> Tensor:
    result = tensors[0]
    for tensor in tensors[1:]:
        result = emit_binary(builder, op_type, result, tensor)
    return result


def align_inputs(builder: TfliteGraphBuilder, node: NodeProto) -> tuple[list[Tensor], Order]:
    """Read all inputs of a node in one storage order, with shapes that broadcast.

    Args:
        builder: the conversion in progress.
        node: the ONNX node.

    Returns:
        The tensors, and their storage order.
    """
    return align_values(
        builder, [builder.value(node, position) for position in range(len(node.input))]
    )


def align_values(builder: TfliteGraphBuilder, values: list[Value]) -> tuple[list[Tensor], Order]:
    """Bring values to one storage order, with shapes that broadcast.

    The order is that of the largest computed value of full rank, so that images with channels
    last stay so. The others are transposed.

    Args:
        builder: receives the operators.
        values: to align.

    Returns:
        The tensors, and their storage order.
    """
    rank = max(len(v.order) for v in values)
    full = [v for v in values if len(v.order) == rank]
    leader = max(full, key=lambda v: _importance(builder, v))
    return [align_value(builder, v, leader.order) for v in values], leader.order


def _importance(builder: TfliteGraphBuilder, value: Value) -> tuple[bool, int, bool]:
    is_computed = not builder.is_stored(value.tensor)
    return is_computed, int(np.prod(value.tensor.shape)), not value.is_plain


def align_value(builder: TfliteGraphBuilder, value: Value, order: Order) -> Tensor:
    """Transpose a value so that it broadcasts against values of a storage order.

    Args:
        builder: receives the operators.
        value: of the same or a lower rank.
        order: the storage order of the others.
    """
    missing = len(order) - len(value.order)
    if order == plain_order(len(order)) or not value.order:
        return builder.to_order(value, None)
    if missing:
        tensor = builder.to_order(value, None)
        tensor = builder.reshape(tensor, (1,) * missing + tensor.shape)
        value = Value(tensor=tensor, order=plain_order(len(order)))
    return builder.to_order(value, order)


def mean(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert Mean of any number of values."""
    tensors, order = align_inputs(builder, node)
    result = _accumulate(builder, "ADD", tensors)
    builder.bind(node, emit_binary(builder, "MUL", result, 1 / len(tensors)), order)


def absolute(builder: TfliteGraphBuilder, tensor: Tensor) -> Tensor:
    """Compute the absolute value of each entry, also of integers."""
    if tensor.dtype.startswith("uint"):
        return tensor
    if tensor.dtype == "float32":
        return emit_unary(builder, "ABS", tensor)
    return emit_binary(builder, "MAXIMUM", tensor, emit_unary(builder, "NEG", tensor))


def sign(builder: TfliteGraphBuilder, tensor: Tensor) -> Tensor:
    """Compute the sign of each entry (-1, 0 or 1) in the type of the tensor."""
    if tensor.dtype == "float32":
        return emit_unary(builder, "SIGN", tensor)
    return clamp(builder, tensor, None if tensor.dtype.startswith("uint") else -1, 1)


def _reciprocal(builder: TfliteGraphBuilder, tensor: Tensor) -> Tensor:
    return emit_binary(builder, "DIV", 1.0, tensor)


def power(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert Pow in the type of its base; some constant exponents become products and roots."""
    exponent = builder.constant(node, 1)
    base = builder.value(node, 0)
    if exponent is not None and exponent.size == 1 and base.tensor.dtype == "float32":
        result = _constant_power(builder, base.tensor, float(exponent.ravel()[0]))
        if result is not None and exponent.ndim <= len(base.order):
            builder.bind(node, result, base.order)
            return
    (left, right), order = align_inputs(builder, node)
    dtype = left.dtype
    if right.dtype == "float32" and dtype != "float32":
        left = builder.cast(left, "float32")
    result = emit_binary(builder, "POW", left, builder.cast(right, left.dtype))
    builder.bind(node, builder.cast(result, dtype), order)


def _constant_power(builder: TfliteGraphBuilder, tensor: Tensor, exponent: float) -> Tensor | None:
    if exponent == 1:
        return tensor
    if exponent == 2:
        return emit_unary(builder, "SQUARE", tensor)
    if exponent == 3:
        return emit_binary(builder, "MUL", emit_unary(builder, "SQUARE", tensor), tensor)
    if exponent == 0.5:
        return emit_unary(builder, "SQRT", tensor)
    if exponent == -0.5:
        return emit_unary(builder, "RSQRT", tensor)
    return _reciprocal(builder, tensor) if exponent == -1 else None


def modulo(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert Mod, with the sign of the divisor, or of the dividend if ``fmod`` is set."""
    (left, right), order = align_inputs(builder, node)
    if not get_attribute(node, "fmod", 0):
        builder.bind(node, emit_binary(builder, "FLOOR_MOD", left, right), order)
        return
    result = emit_binary(builder, "FLOOR_MOD", absolute(builder, left), absolute(builder, right))
    builder.bind(node, emit_binary(builder, "MUL", result, sign(builder, left)), order)


def cast(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert Cast; floats of any width are computed in 32 bits."""
    _cast(
        builder,
        node,
        str(np.dtype(helper.tensor_dtype_to_np_dtype(get_attribute(node, "to"))).name),
    )


def cast_like(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert CastLike to a cast to the type of another value."""
    _cast(builder, node, builder.dtype_of(node.input[1]))


def _cast(builder: TfliteGraphBuilder, node: NodeProto, dtype: str) -> None:
    value = builder.value(node, 0)
    dtype = get_computed_type(dtype)
    for each in (dtype, value.tensor.dtype):
        if each not in _CAST_TYPES:
            raise builder.refusal(
                node, f"converts {value.tensor.dtype} to {dtype}, which TFLite does not support"
            )
    tensor = value.tensor
    if dtype == "bool" and tensor.dtype == "float32":
        tensor = emit_binary(builder, "NOT_EQUAL", tensor, 0.0, dtype="bool")
    builder.bind(node, builder.cast(tensor, dtype), value.order)


def is_nan(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert IsNaN: compare a value with itself."""
    value = builder.value(node, 0)
    result = emit_binary(builder, "NOT_EQUAL", value.tensor, value.tensor, dtype="bool")
    builder.bind(node, result, value.order)


def is_inf(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert IsInf for both signs or for one."""
    value = builder.value(node, 0)
    tensor = value.tensor
    up, down = get_attribute(node, "detect_positive", 1), get_attribute(node, "detect_negative", 1)
    if up and down:
        tensor = emit_unary(builder, "ABS", tensor)
    infinity = float("inf") if up else float("-inf")
    if not up and not down:
        infinity = float("nan")
    builder.bind(node, emit_binary(builder, "EQUAL", tensor, infinity, dtype="bool"), value.order)


def _logical_not(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    value = builder.value(node, 0)
    builder.bind(node, emit_unary(builder, "LOGICAL_NOT", value.tensor), value.order)


def dropout(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert Dropout at inference: the output is the input, the mask is all true."""
    value = builder.value(node, 0, mixed=True)
    ratio = builder.constant(node, 1)
    if builder.has(node, 2) and not (ratio is not None and float(ratio) == 0):
        is_training = builder.constant(node, 2)
        if is_training is None or bool(is_training):
            raise builder.refusal(
                node, "is in training mode (random dropout)", hint="export the model for inference"
            )
    builder.bind(node, value.tensor, value.order, mixed=value.mixed)
    if len(node.output) > 1 and node.output[1]:
        builder.bind(node, builder.store(np.ones(value.shape, np.bool_)), output=1)


RULES: dict[str, Callable[[TfliteGraphBuilder, NodeProto], None]] = {
    "Abs": make_composite_rule(absolute),
    "Add": make_binary_rule("ADD"),
    "And": make_binary_rule("LOGICAL_AND"),
    "Cast": cast,
    "CastLike": cast_like,
    "Ceil": make_unary_rule("CEIL"),
    "Div": make_binary_rule("DIV"),
    "Dropout": dropout,
    "Equal": make_binary_rule("EQUAL", dtype="bool"),
    "Exp": make_unary_rule("EXP"),
    "Floor": make_unary_rule("FLOOR"),
    "Greater": make_binary_rule("GREATER", dtype="bool"),
    "GreaterOrEqual": make_binary_rule("GREATER_EQUAL", dtype="bool"),
    "IsInf": is_inf,
    "IsNaN": is_nan,
    "Less": make_binary_rule("LESS", dtype="bool"),
    "LessOrEqual": make_binary_rule("LESS_EQUAL", dtype="bool"),
    "Log": make_unary_rule("LOG"),
    "Max": make_variadic_rule("MAXIMUM"),
    "Mean": mean,
    "Min": make_variadic_rule("MINIMUM"),
    "Mod": modulo,
    "Mul": make_binary_rule("MUL"),
    "Neg": make_unary_rule("NEG"),
    "Not": _logical_not,
    "Or": make_binary_rule("LOGICAL_OR"),
    "Pow": power,
    "Reciprocal": make_composite_rule(_reciprocal),
    "Round": make_unary_rule("ROUND"),
    "Sign": make_composite_rule(sign),
    "Sqrt": make_unary_rule("SQRT"),
    "Sub": make_binary_rule("SUB"),
    "Sum": make_variadic_rule("ADD"),
    "Xor": make_binary_rule("NOT_EQUAL", dtype="bool"),
}
