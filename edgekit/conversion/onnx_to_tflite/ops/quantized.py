"""Conversion rules of QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto, helper

from edgekit.conversion.onnx_to_tflite.layout import Value
from edgekit.conversion.onnx_to_tflite.ops.arithmetic import (
    clamp,
    emit_binary,
    emit_unary,
    reduce_axes,
)
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
from edgekit.tflite.ir import Array, Quantization, Tensor, constant

_UNSIGNED_SHIFT = {"uint8": 128, "uint4": 8}
_SIGNED = {"uint8": "int8", "uint4": "int4"}
# Integers that TFLite's QUANTIZE and DEQUANTIZE support.
_KERNEL_TYPES = {"int8", "uint8", "int16"}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Parameters:
    """Constant scales and zero points as ONNX has them, of one tensor or along an axis."""

    scales: Array
    zero_points: Array
    dtype: str
    axis: int

    def quantization(self, axis: int, shift: int = 0) -> Quantization:
        """Return TFLite's parameters along a storage axis, for integers stored less ``shift``."""
        return Quantization(
            scales=self.scales.astype(np.float32).ravel(),
            zero_points=self.zero_points.astype(np.int64).ravel() - shift,
            axis=axis if self.scales.size > 1 else 0,
        )


def _read_parameters(low: Lowering, node: NodeProto, dtype: str) -> _Parameters | None:
    """Read scales and zero points of a node; ``None`` if they are computed."""
    scales = low.constant(node, 1)
    zero_points = low.constant(node, 2)
    if scales is None or (low.has(node, 2) and zero_points is None):
        return None
    if zero_points is None:
        zero_points = np.zeros(scales.shape, np.int64)
    zero_points = zero_points.astype(np.int64).reshape(scales.shape)
    axis = int(get_attribute(node, "axis", 1))
    return _Parameters(scales=scales, zero_points=zero_points, dtype=dtype, axis=axis)


def quantize(low: Lowering, node: NodeProto) -> None:
    """Convert QuantizeLinear to QUANTIZE, or to arithmetic.

    Arithmetic is used for computed or blocked scales, for scales along an axis of a computed
    tensor, and for types without a kernel.
    """
    value = low.value(node, 0, mixed=True)
    dtype = _quantized_type(low, node)
    given = _read_parameters(low, node, dtype)
    is_blocked = bool(get_attribute(node, "block_size", 0))
    if given is None or is_blocked or not _has_kernel(low, value, given):
        value = low.unmix(value)
        low.bind(node, _quantize_by_arithmetic(low, node, value, dtype), value.order)
        return
    if given.scales.size > 1:
        value = low.unmix(value)
    shift = 0
    if dtype == "uint8" and _is_only_dequantized(low, node.output[0]):
        dtype, shift = "int8", 128
    axis = value.axis(given.axis) if given.scales.size > 1 else 0
    made = low.emit("QUANTIZE", [value.tensor], value.tensor.shape, dtype=dtype)
    made.quantization = given.quantization(axis, shift)
    low.bind(node, made, value.order, mixed=value.mixed)


def _has_kernel(low: Lowering, value: Value, given: _Parameters) -> bool:
    if given.dtype not in _KERNEL_TYPES or value.tensor.dtype != "float32":
        return False
    if given.dtype == "int16" and np.any(given.zero_points):
        return False
    # QUANTIZE of a stored weight is folded and never runs, so that any number of scales will do.
    return given.scales.size == 1 or low.is_stored(value.tensor)


def _quantized_type(low: Lowering, node: NodeProto) -> str:
    if low.has(node, 2):
        return low.dtype_of(node.input[2])
    given = get_attribute(node, "output_dtype", 0) or TensorProto.UINT8
    return str(np.dtype(helper.tensor_dtype_to_np_dtype(given)).name)


def _is_only_dequantized(low: Lowering, name: str) -> bool:
    readers = low.index.readers.get(name, [])
    if name in low.index.outputs or name in low.index.inner_reads or not readers:
        return False
    return all(r.op_type == "DequantizeLinear" and r.input[0] == name for r in readers)


def dequantize(low: Lowering, node: NodeProto) -> None:
    """Convert DequantizeLinear to DEQUANTIZE, to a constant, or to arithmetic without a kernel."""
    array = low.constant(node, 0)
    if array is not None and (given := _read_parameters(low, node, array.dtype.name)) is not None:
        _dequantize_stored(low, node, array, given)
        return
    value = low.value(node, 0, mixed=True)
    shift = 128 if low.dtype_of(node.input[0]) == "uint8" and value.tensor.dtype == "int8" else 0
    given = _read_parameters(low, node, low.dtype_of(node.input[0]))
    if given is None or given.scales.size > 1:
        value = low.unmix(value)
    if (
        given is None
        or get_attribute(node, "block_size", 0)
        or not _can_dequantize(low, value, given, shift)
    ):
        value = low.unmix(value)
        made = _dequantize_by_arithmetic(low, node, value, shift)
    else:
        made = low.emit("DEQUANTIZE", [value.tensor], value.tensor.shape)
    low.bind(node, made, value.order, mixed=value.mixed)


def _can_dequantize(low: Lowering, value: Value, given: _Parameters, shift: int) -> bool:
    """Check that DEQUANTIZE can read a tensor; give it the node's parameters if it has none."""
    tensor = value.tensor
    if tensor.dtype not in _KERNEL_TYPES:
        return False
    if tensor.dtype == "int16" and np.any(given.zero_points):
        return False
    axis = value.axis(given.axis) if given.scales.size > 1 else 0
    wanted = given.quantization(axis, shift)
    had = tensor.quantization
    if had is not None:
        return (
            np.array_equal(had.scales, wanted.scales)
            and np.array_equal(had.zero_points, wanted.zero_points)
            and had.axis == wanted.axis
        )
    if given.scales.size > 1 and not low.is_stored(tensor):
        return False
    tensor.quantization = wanted
    return True


def _dequantize_stored(low: Lowering, node: NodeProto, array: Array, given: _Parameters) -> None:
    name = node.input[0]
    is_known = array.dtype.name in ("int8", "uint8", "int16", "int32", "int4", "uint4")
    if not is_known or get_attribute(node, "block_size", 0):
        low.value(node, 0)
        low.bind(node, constant(name, _dequantize_array(node, array, given)))
        return
    shift = _UNSIGNED_SHIFT.get(array.dtype.name, 0)
    dtype = _SIGNED.get(array.dtype.name, array.dtype.name)
    held = "int8" if dtype == "int4" else dtype
    low.value(node, 0)
    axis = given.axis % array.ndim if given.scales.size > 1 else 0
    integers = constant(name, (array.astype(np.int32) - shift).astype(held))
    integers.dtype = dtype
    integers.quantization = given.quantization(axis, shift)
    integers.source = None if shift else name
    low.bind(node, low.emit("DEQUANTIZE", [integers], tuple(array.shape)))


def _dequantize_array(node: NodeProto, array: Array, given: _Parameters) -> Array:
    block, scales, zero_points = (
        get_attribute(node, "block_size", 0),
        given.scales,
        given.zero_points,
    )
    if block:
        scales, zero_points = (
            np.repeat(each, block, axis=given.axis).take(
                range(array.shape[given.axis]), axis=given.axis
            )
            for each in (scales, zero_points)
        )
    elif scales.size > 1:
        shape = [1] * array.ndim
        shape[given.axis] = scales.size
        scales, zero_points = scales.reshape(shape), zero_points.reshape(shape)
    real = array.astype(np.float32) - zero_points.astype(np.float32)
    return np.asarray(real * scales.astype(np.float32), np.float32).reshape(array.shape)


def _read_parameter_along(low: Lowering, node: NodeProto, position: int, value: Value) -> Tensor:
    """Read scales or zero points as float32 that broadcast against a value in its storage order."""
    tensor = low.cast(low.plain(node, position), "float32")
    if tensor.shape in ((), (1,)):
        return low.reshape(tensor, ())
    rank, axis = len(value.order), int(get_attribute(node, "axis", 1)) % len(value.order)
    block = int(get_attribute(node, "block_size", 0))
    if block:
        sizes = tensor.shape
        wide = (*sizes[: axis + 1], block, *sizes[axis + 1 :])
        split = (*sizes[: axis + 1], 1, *sizes[axis + 1 :])
        repeated = low.emit("BROADCAST_TO", [low.reshape(tensor, split), low.int32(wide)], wide)
        full = (*sizes[:axis], sizes[axis] * block, *sizes[axis + 1 :])
        tensor = low.reshape(repeated, full)
        if full != value.shape:
            begin = low.int32([0] * rank)
            tensor = low.emit("SLICE", [tensor, begin, low.int32(value.shape)], value.shape)
        return low.to_order(Value(tensor=tensor, order=tuple(range(rank))), value.order)
    shape = [1] * rank
    shape[value.axis(axis)] = tensor.shape[0]
    return low.reshape(tensor, tuple(shape))


def _quantize_by_arithmetic(low: Lowering, node: NodeProto, value: Value, dtype: str) -> Tensor:
    if dtype not in ("int8", "uint8", "int16", "uint16", "int32"):
        raise low.refusal(node, f"quantizes to {dtype} at run time, which TFLite does not support")
    real = low.cast(value.tensor, "float32")
    made = emit_unary(
        low, "ROUND", emit_binary(low, "DIV", real, _read_parameter_along(low, node, 1, value))
    )
    if low.has(node, 2):
        made = emit_binary(low, "ADD", made, _read_parameter_along(low, node, 2, value))
    bounds = np.iinfo(dtype)
    return low.cast(clamp(low, made, float(bounds.min), float(bounds.max)), dtype)


def _dequantize_by_arithmetic(low: Lowering, node: NodeProto, value: Value, shift: int) -> Tensor:
    real = low.cast(value.tensor, "float32")
    if shift:
        real = emit_binary(low, "ADD", real, float(shift))
    if low.has(node, 2):
        real = emit_binary(low, "SUB", real, _read_parameter_along(low, node, 2, value))
    return emit_binary(low, "MUL", real, _read_parameter_along(low, node, 1, value))


def dynamic_quantize(low: Lowering, node: NodeProto) -> None:
    """Convert DynamicQuantizeLinear: uint8 with scale and zero point from the tensor's range."""
    value = low.value(node, 0)
    axes = list(range(len(value.order)))
    most = clamp(low, reduce_axes(low, "REDUCE_MAX", value.tensor, axes, keep=False), 0.0, None)
    least = clamp(low, reduce_axes(low, "REDUCE_MIN", value.tensor, axes, keep=False), None, 0.0)
    scale = emit_binary(low, "MUL", emit_binary(low, "SUB", most, least), 1 / 255)
    divisor = clamp(low, scale, float(np.finfo(np.float32).tiny), None)
    zero = emit_unary(low, "ROUND", emit_binary(low, "DIV", emit_unary(low, "NEG", least), divisor))
    zero = clamp(low, zero, 0.0, 255.0)
    made = emit_unary(low, "ROUND", emit_binary(low, "DIV", value.tensor, divisor))
    made = clamp(low, emit_binary(low, "ADD", made, zero), 0.0, 255.0)
    low.bind(node, low.cast(made, "uint8"), value.order)
    low.bind(node, scale, output=1)
    low.bind(node, low.cast(zero, "uint8"), output=2)


RULES = {
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "com.microsoft:QuantizeLinear": quantize,
    "com.microsoft:DequantizeLinear": dequantize,
    "DynamicQuantizeLinear": dynamic_quantize,
}
