"""Conversion rules of bitwise operators on integers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.ops.arithmetic import emit_binary
from edgekit.conversion.onnx_to_tflite.ops.elementwise import align_inputs
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
from edgekit.tflite.ir import Tensor


def _to_int32(low: Lowering, node: NodeProto, tensor: Tensor) -> Tensor:
    if tensor.dtype in ("int64", "uint64"):
        raise low.refusal(
            node, f"works on the bits of {tensor.dtype}; TFLite supports up to 32 bits"
        )
    return low.cast(tensor, "int32")


def make_bitwise_rule(compute: Callable[[Lowering, Tensor, Tensor], Tensor]) -> Callable[..., None]:
    """Make the rule of a bitwise operator on two integers.

    Args:
        compute: emits it for two int32 tensors.
    """
    return partial(_lower_bitwise, compute=compute)


def _lower_bitwise(
    low: Lowering, node: NodeProto, *, compute: Callable[[Lowering, Tensor, Tensor], Tensor]
) -> None:
    (left, right), order = align_inputs(low, node)
    made = compute(low, _to_int32(low, node, left), _to_int32(low, node, right))
    low.bind(node, low.cast(made, left.dtype), order)


def _xor(low: Lowering, left: Tensor, right: Tensor) -> Tensor:
    return emit_binary(low, "BITWISE_XOR", left, right)


def _and(low: Lowering, left: Tensor, right: Tensor) -> Tensor:
    """Compute the bitwise AND, with the last bit computed separately to avoid overflow.

    ``p`` and ``q`` are the operands without their last bit: ``p + q - (p ^ q)`` is
    ``2 * (p & q)``.
    """
    p, q = (emit_binary(low, "RIGHT_SHIFT", each, 1) for each in (left, right))
    upper = emit_binary(low, "SUB", emit_binary(low, "ADD", p, q), _xor(low, p, q))
    odd = [emit_binary(low, "FLOOR_MOD", each, 2) for each in (left, right)]
    return emit_binary(low, "ADD", upper, emit_binary(low, "MUL", *odd))


def _or(low: Lowering, left: Tensor, right: Tensor) -> Tensor:
    return emit_binary(low, "ADD", _xor(low, left, right), _and(low, left, right))


def bitwise_not(low: Lowering, node: NodeProto) -> None:
    """Convert BitwiseNot to BITWISE_XOR with -1."""
    value = low.value(node, 0)
    made = emit_binary(low, "BITWISE_XOR", _to_int32(low, node, value.tensor), -1)
    low.bind(node, low.cast(made, value.tensor.dtype), value.order)


def bit_shift(low: Lowering, node: NodeProto) -> None:
    """Convert BitShift of unsigned integers: MUL by a power of two, or RIGHT_SHIFT."""
    (left, right), order = align_inputs(low, node)
    if not left.dtype.startswith("uint"):
        raise low.refusal(
            node, f"shifts {left.dtype}; up to opset 25, only unsigned integers can be shifted"
        )
    if get_attribute(node, "direction") == "LEFT":
        a, b = _to_int32(low, node, left), _to_int32(low, node, right)
        made = emit_binary(low, "MUL", a, emit_binary(low, "POW", low.int32(2), b))
    elif left.dtype == "uint32":
        shape = np.broadcast_shapes(left.shape, right.shape)
        made = low.emit("RIGHT_SHIFT", [left, right], shape, dtype="uint32")
    else:
        a, b = _to_int32(low, node, left), _to_int32(low, node, right)
        made = emit_binary(low, "RIGHT_SHIFT", a, b)
    low.bind(node, low.cast(made, left.dtype), order)


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {
    "BitShift": bit_shift,
    "BitwiseAnd": make_bitwise_rule(_and),
    "BitwiseNot": bitwise_not,
    "BitwiseOr": make_bitwise_rule(_or),
    "BitwiseXor": make_bitwise_rule(_xor),
}
