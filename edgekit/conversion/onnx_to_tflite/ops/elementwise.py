"""Conversion rules of element-wise operators: unary ones, and others with broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from onnx import NodeProto, helper

from edgekit.conversion.onnx_to_tflite.layout import Order, Value, plain_order
from edgekit.conversion.onnx_to_tflite.ops.arithmetic import clamp, emit_binary, emit_unary
from edgekit.conversion.onnx_to_tflite.tflite_builder import (
    Lowering,
    get_attribute,
    get_computed_type,
)
from edgekit.tflite.ir import Tensor

# Types that TFLite's CAST supports; casts from or to others are refused.
_CAST_TYPES = {"bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float32"}


def make_unary_rule(kind: str) -> Callable[[Lowering, NodeProto], None]:
    """Make the rule of a unary operator that becomes one TFLite operator.

    Args:
        kind: TFLite operator type.
    """
    return partial(_lower_unary, kind=kind)


def make_binary_rule(
    kind: str, *, dtype: str | None = None
) -> Callable[[Lowering, NodeProto], None]:
    """Make the rule of a binary operator with broadcasting.

    Args:
        kind: TFLite operator type.
        dtype: of the output, if it differs from that of the inputs.
    """
    return partial(_lower_binary, kind=kind, dtype=dtype)


def make_variadic_rule(kind: str) -> Callable[[Lowering, NodeProto], None]:
    """Make the rule of an operator on any number of inputs, with broadcasting.

    Args:
        kind: TFLite operator type of the pairwise operation.
    """
    return partial(_lower_variadic, kind=kind)


def make_composite_rule(
    compute: Callable[[Lowering, Tensor], Tensor],
) -> Callable[[Lowering, NodeProto], None]:
    """Make the rule of an element-wise function that takes several TFLite operators.

    Args:
        compute: emits them for a tensor.
    """
    return partial(_lower_composite, compute=compute)


def _lower_unary(low: Lowering, node: NodeProto, *, kind: str) -> None:
    value = low.value(node, 0, mixed=True)
    low.bind(node, emit_unary(low, kind, value.tensor), value.order, mixed=value.mixed)


def _lower_composite(
    low: Lowering, node: NodeProto, *, compute: Callable[[Lowering, Tensor], Tensor]
) -> None:
    value = low.value(node, 0, mixed=True)
    low.bind(node, compute(low, value.tensor), value.order, mixed=value.mixed)


def _lower_binary(low: Lowering, node: NodeProto, *, kind: str, dtype: str | None) -> None:
    (left, right), order = align_inputs(low, node)
    low.bind(node, emit_binary(low, kind, left, right, dtype=dtype), order)


def _lower_variadic(low: Lowering, node: NodeProto, *, kind: str) -> None:
    tensors, order = align_inputs(low, node)
    low.bind(node, _accumulate(low, kind, tensors), order)


def _accumulate(low: Lowering, kind: str, tensors: Sequence[Tensor]) -> Tensor:
    made = tensors[0]
    for tensor in tensors[1:]:
        made = emit_binary(low, kind, made, tensor)
    return made


def align_inputs(low: Lowering, node: NodeProto) -> tuple[list[Tensor], Order]:
    """Read all inputs of a node in one storage order, with shapes that broadcast.

    Args:
        low: the conversion in progress.
        node: the ONNX node.

    Returns:
        The tensors, and their storage order.
    """
    return align_values(low, [low.value(node, place) for place in range(len(node.input))])


def align_values(low: Lowering, values: list[Value]) -> tuple[list[Tensor], Order]:
    """Bring values to one storage order, with shapes that broadcast.

    The order is that of the largest computed value of full rank, so that images with channels
    last stay so. The others are transposed.

    Args:
        low: receives the operators.
        values: to align.

    Returns:
        The tensors, and their storage order.
    """
    rank = max(len(v.order) for v in values)
    full = [v for v in values if len(v.order) == rank]
    leader = max(full, key=lambda v: _importance(low, v))
    return [align_value(low, v, leader.order) for v in values], leader.order


def _importance(low: Lowering, value: Value) -> tuple[bool, int, bool]:
    is_computed = not low.is_stored(value.tensor)
    return is_computed, int(np.prod(value.tensor.shape)), not value.is_plain


def align_value(low: Lowering, value: Value, order: Order) -> Tensor:
    """Transpose a value so that it broadcasts against values of a storage order.

    Args:
        low: receives the operators.
        value: of the same or a lower rank.
        order: the storage order of the others.
    """
    missing = len(order) - len(value.order)
    if order == plain_order(len(order)) or not value.order:
        return low.to_order(value, None)
    if missing:
        tensor = low.to_order(value, None)
        tensor = low.reshape(tensor, (1,) * missing + tensor.shape)
        value = Value(tensor=tensor, order=plain_order(len(order)))
    return low.to_order(value, order)


def mean(low: Lowering, node: NodeProto) -> None:
    """Convert Mean of any number of values."""
    tensors, order = align_inputs(low, node)
    made = _accumulate(low, "ADD", tensors)
    low.bind(node, emit_binary(low, "MUL", made, 1 / len(tensors)), order)


def absolute(low: Lowering, tensor: Tensor) -> Tensor:
    """Compute the absolute value of each entry, also of integers."""
    if tensor.dtype.startswith("uint"):
        return tensor
    if tensor.dtype == "float32":
        return emit_unary(low, "ABS", tensor)
    return emit_binary(low, "MAXIMUM", tensor, emit_unary(low, "NEG", tensor))


def sign(low: Lowering, tensor: Tensor) -> Tensor:
    """Compute the sign of each entry (-1, 0 or 1) in the type of the tensor."""
    if tensor.dtype == "float32":
        return emit_unary(low, "SIGN", tensor)
    return clamp(low, tensor, None if tensor.dtype.startswith("uint") else -1, 1)


def _reciprocal(low: Lowering, tensor: Tensor) -> Tensor:
    return emit_binary(low, "DIV", 1.0, tensor)


def power(low: Lowering, node: NodeProto) -> None:
    """Convert Pow in the type of its base; some constant exponents become products and roots."""
    exponent = low.constant(node, 1)
    base = low.value(node, 0)
    if exponent is not None and exponent.size == 1 and base.tensor.dtype == "float32":
        made = _constant_power(low, base.tensor, float(exponent.ravel()[0]))
        if made is not None and exponent.ndim <= len(base.order):
            low.bind(node, made, base.order)
            return
    (left, right), order = align_inputs(low, node)
    dtype = left.dtype
    if right.dtype == "float32" and dtype != "float32":
        left = low.cast(left, "float32")
    made = emit_binary(low, "POW", left, low.cast(right, left.dtype))
    low.bind(node, low.cast(made, dtype), order)


def _constant_power(low: Lowering, tensor: Tensor, exponent: float) -> Tensor | None:
    if exponent == 1:
        return tensor
    if exponent == 2:
        return emit_unary(low, "SQUARE", tensor)
    if exponent == 3:
        return emit_binary(low, "MUL", emit_unary(low, "SQUARE", tensor), tensor)
    if exponent == 0.5:
        return emit_unary(low, "SQRT", tensor)
    if exponent == -0.5:
        return emit_unary(low, "RSQRT", tensor)
    return _reciprocal(low, tensor) if exponent == -1 else None


def modulo(low: Lowering, node: NodeProto) -> None:
    """Convert Mod, with the sign of the divisor, or of the dividend if ``fmod`` is set."""
    (left, right), order = align_inputs(low, node)
    if not get_attribute(node, "fmod", 0):
        low.bind(node, emit_binary(low, "FLOOR_MOD", left, right), order)
        return
    made = emit_binary(low, "FLOOR_MOD", absolute(low, left), absolute(low, right))
    low.bind(node, emit_binary(low, "MUL", made, sign(low, left)), order)


def cast(low: Lowering, node: NodeProto) -> None:
    """Convert Cast; floats of any width are computed in 32 bits."""
    _cast(low, node, str(np.dtype(helper.tensor_dtype_to_np_dtype(get_attribute(node, "to"))).name))


def cast_like(low: Lowering, node: NodeProto) -> None:
    """Convert CastLike to a cast to the type of another value."""
    _cast(low, node, low.dtype_of(node.input[1]))


def _cast(low: Lowering, node: NodeProto, dtype: str) -> None:
    value = low.value(node, 0)
    dtype = get_computed_type(dtype)
    for each in (dtype, value.tensor.dtype):
        if each not in _CAST_TYPES:
            raise low.refusal(
                node, f"converts {value.tensor.dtype} to {dtype}, which TFLite does not support"
            )
    tensor = value.tensor
    if dtype == "bool" and tensor.dtype == "float32":
        tensor = emit_binary(low, "NOT_EQUAL", tensor, 0.0, dtype="bool")
    low.bind(node, low.cast(tensor, dtype), value.order)


def is_nan(low: Lowering, node: NodeProto) -> None:
    """Convert IsNaN: compare a value with itself."""
    value = low.value(node, 0)
    made = emit_binary(low, "NOT_EQUAL", value.tensor, value.tensor, dtype="bool")
    low.bind(node, made, value.order)


def is_inf(low: Lowering, node: NodeProto) -> None:
    """Convert IsInf for both signs or for one."""
    value = low.value(node, 0)
    tensor = value.tensor
    up, down = get_attribute(node, "detect_positive", 1), get_attribute(node, "detect_negative", 1)
    if up and down:
        tensor = emit_unary(low, "ABS", tensor)
    wanted = float("inf") if up else float("-inf")
    if not up and not down:
        wanted = float("nan")
    low.bind(node, emit_binary(low, "EQUAL", tensor, wanted, dtype="bool"), value.order)


def _logical_not(low: Lowering, node: NodeProto) -> None:
    value = low.value(node, 0)
    low.bind(node, emit_unary(low, "LOGICAL_NOT", value.tensor), value.order)


def identity(low: Lowering, node: NodeProto) -> None:
    """Convert Identity to its input."""
    value = low.value(node, 0, mixed=True)
    low.bind(node, value.tensor, value.order, mixed=value.mixed)


def dropout(low: Lowering, node: NodeProto) -> None:
    """Convert Dropout at inference: the output is the input, the mask is all true."""
    value = low.value(node, 0, mixed=True)
    ratio = low.constant(node, 1)
    if low.has(node, 2) and not (ratio is not None and float(ratio) == 0):
        is_training = low.constant(node, 2)
        if is_training is None or bool(is_training):
            raise low.refusal(
                node, "is in training mode (random dropout)", hint="export the model for inference"
            )
    low.bind(node, value.tensor, value.order, mixed=value.mixed)
    if len(node.output) > 1 and node.output[1]:
        low.bind(node, low.store(np.ones(value.shape, np.bool_)), output=1)


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {
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
    "Identity": identity,
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
