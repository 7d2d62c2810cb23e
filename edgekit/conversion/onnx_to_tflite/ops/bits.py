"""Conversion rules of bitwise operators on integers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.ops.arithmetic import emit_binary
from edgekit.conversion.onnx_to_tflite.ops.elementwise import align_inputs
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Tensor


def _to_int32(builder: TfliteGraphBuilder, node: NodeProto, tensor: Tensor) -> Tensor:
    if tensor.dtype in ("int64", "uint64"):
        raise builder.refusal(
            node, f"works on the bits of {tensor.dtype}; TFLite supports up to 32 bits"
        )
    return builder.cast(tensor, "int32")


def make_bitwise_rule(
    compute: Callable[[TfliteGraphBuilder, Tensor, Tensor], Tensor],
) -> Callable[..., None]:
    """Make the rule of a bitwise operator on two integers.

    Args:
        compute: emits it for two int32 tensors.
    """
    return partial(_convert_bitwise, compute=compute)


def _convert_bitwise(
    builder: TfliteGraphBuilder,
    node: NodeProto,
    *,
    compute: Callable[[TfliteGraphBuilder, Tensor, Tensor], Tensor],
) -> None:
    (left, right), order = align_inputs(builder, node)
    result = compute(builder, _to_int32(builder, node, left), _to_int32(builder, node, right))
    builder.bind(node, builder.cast(result, left.dtype), order)


def _xor(builder: TfliteGraphBuilder, left: Tensor, right: Tensor) -> Tensor:
    return emit_binary(builder, "BITWISE_XOR", left, right)


def _and(builder: TfliteGraphBuilder, left: Tensor, right: Tensor) -> Tensor:
    """Compute the bitwise AND, with the last bit computed separately to avoid overflow.

    ``p`` and ``q`` are the operands without their last bit: ``p + q - (p ^ q)`` is
    ``2 * (p & q)``.
    """
    p, q = (emit_binary(builder, "RIGHT_SHIFT", each, 1) for each in (left, right))
    upper = emit_binary(builder, "SUB", emit_binary(builder, "ADD", p, q), _xor(builder, p, q))
    odd = [emit_binary(builder, "FLOOR_MOD", each, 2) for each in (left, right)]
    return emit_binary(builder, "ADD", upper, emit_binary(builder, "MUL", *odd))


def _or(builder: TfliteGraphBuilder, left: Tensor, right: Tensor) -> Tensor:
    return emit_binary(builder, "ADD", _xor(builder, left, right), _and(builder, left, right))


def bitwise_not(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert BitwiseNot to BITWISE_XOR with -1."""
    value = builder.value(node, 0)
    result = emit_binary(builder, "BITWISE_XOR", _to_int32(builder, node, value.tensor), -1)
    builder.bind(node, builder.cast(result, value.tensor.dtype), value.order)


def bit_shift(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert BitShift of unsigned integers: MUL by a power of two, or RIGHT_SHIFT."""
    (left, right), order = align_inputs(builder, node)
    if not left.dtype.startswith("uint"):
        raise builder.refusal(
            node, f"shifts {left.dtype}; up to opset 25, only unsigned integers can be shifted"
        )
    if get_attribute(node, "direction") == "LEFT":
        a, b = _to_int32(builder, node, left), _to_int32(builder, node, right)
        result = emit_binary(builder, "MUL", a, emit_binary(builder, "POW", builder.int32(2), b))
    elif left.dtype == "uint32":
        shape = np.broadcast_shapes(left.shape, right.shape)
        result = builder.emit("RIGHT_SHIFT", [left, right], shape, dtype="uint32")
    else:
        a, b = _to_int32(builder, node, left), _to_int32(builder, node, right)
        result = emit_binary(builder, "RIGHT_SHIFT", a, b)
    builder.bind(node, builder.cast(result, left.dtype), order)


RULES: dict[str, Callable[[TfliteGraphBuilder, NodeProto], None]] = {
    "BitShift": bit_shift,
    "BitwiseAnd": make_bitwise_rule(_and),
    "BitwiseNot": bitwise_not,
    "BitwiseOr": make_bitwise_rule(_or),
    "BitwiseXor": make_bitwise_rule(_xor),
}
