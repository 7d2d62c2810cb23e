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
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
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


def _read_parameters(
    builder: TfliteGraphBuilder, node: NodeProto, dtype: str
) -> _Parameters | None:
    """Read scales and zero points of a node; ``None`` if they are computed."""
    scales = builder.constant(node, 1)
    zero_points = builder.constant(node, 2)
    if scales is None or (builder.has(node, 2) and zero_points is None):
        return None
    if zero_points is None:
        zero_points = np.zeros(scales.shape, np.int64)
    zero_points = zero_points.astype(np.int64).reshape(scales.shape)
    axis = int(get_attribute(node, "axis", 1))
    return _Parameters(scales=scales, zero_points=zero_points, dtype=dtype, axis=axis)


def quantize(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert QuantizeLinear to QUANTIZE, or to arithmetic.

    Arithmetic is used for computed or blocked scales, for scales along an axis of a computed
    tensor, and for types without a kernel.
    """
    value = builder.value(node, 0, mixed=True)
    dtype = _quantized_type(builder, node)
    parameters = _read_parameters(builder, node, dtype)
    is_blocked = bool(get_attribute(node, "block_size", 0))
    if parameters is None or is_blocked or not _has_kernel(builder, value, parameters):
        value = builder.unmix(value)
        builder.bind(node, _quantize_by_arithmetic(builder, node, value, dtype), value.order)
        return
    if parameters.scales.size > 1:
        value = builder.unmix(value)
    shift = 0
    if dtype == "uint8" and _is_only_dequantized(builder, node.output[0]):
        dtype, shift = "int8", 128
    axis = value.axis(parameters.axis) if parameters.scales.size > 1 else 0
    result = builder.emit("QUANTIZE", [value.tensor], value.tensor.shape, dtype=dtype)
    result.quantization = parameters.quantization(axis, shift)
    builder.bind(node, result, value.order, mixed=value.mixed)


def _has_kernel(builder: TfliteGraphBuilder, value: Value, parameters: _Parameters) -> bool:
    if parameters.dtype not in _KERNEL_TYPES or value.tensor.dtype != "float32":
        return False
    if parameters.dtype == "int16" and np.any(parameters.zero_points):
        return False
    # QUANTIZE of a stored weight is folded and never runs, so any number of scales is supported.
    return parameters.scales.size == 1 or builder.is_stored(value.tensor)


def _quantized_type(builder: TfliteGraphBuilder, node: NodeProto) -> str:
    if builder.has(node, 2):
        return builder.dtype_of(node.input[2])
    element_type = get_attribute(node, "output_dtype", 0) or TensorProto.UINT8
    return str(np.dtype(helper.tensor_dtype_to_np_dtype(element_type)).name)


def _is_only_dequantized(builder: TfliteGraphBuilder, name: str) -> bool:
    readers = builder.index.readers.get(name, [])
    if name in builder.index.outputs or name in builder.index.inner_reads or not readers:
        return False
    return all(r.op_type == "DequantizeLinear" and r.input[0] == name for r in readers)


def dequantize(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert DequantizeLinear to DEQUANTIZE, to a constant, or to arithmetic without a kernel."""
    array = builder.constant(node, 0)
    if (
        array is not None
        and (parameters := _read_parameters(builder, node, array.dtype.name)) is not None
    ):
        _dequantize_stored(builder, node, array, parameters)
        return
    value = builder.value(node, 0, mixed=True)
    shift = (
        128 if builder.dtype_of(node.input[0]) == "uint8" and value.tensor.dtype == "int8" else 0
    )
    parameters = _read_parameters(builder, node, builder.dtype_of(node.input[0]))
    if parameters is None or parameters.scales.size > 1:
        value = builder.unmix(value)
    if (
        parameters is None
        or get_attribute(node, "block_size", 0)
        or not _can_dequantize(builder, value, parameters, shift)
    ):
        value = builder.unmix(value)
        result = _dequantize_by_arithmetic(builder, node, value, shift)
    else:
        result = builder.emit("DEQUANTIZE", [value.tensor], value.tensor.shape)
    builder.bind(node, result, value.order, mixed=value.mixed)


def _can_dequantize(
    builder: TfliteGraphBuilder, value: Value, parameters: _Parameters, shift: int
) -> bool:
    """Check that DEQUANTIZE can read a tensor; give it the node's parameters if it has none."""
    tensor = value.tensor
    if tensor.dtype not in _KERNEL_TYPES:
        return False
    if tensor.dtype == "int16" and np.any(parameters.zero_points):
        return False
    axis = value.axis(parameters.axis) if parameters.scales.size > 1 else 0
    quantization = parameters.quantization(axis, shift)
    had = tensor.quantization
    if had is not None:
        return (
            np.array_equal(had.scales, quantization.scales)
            and np.array_equal(had.zero_points, quantization.zero_points)
            and had.axis == quantization.axis
        )
    if parameters.scales.size > 1 and not builder.is_stored(tensor):
        return False
    tensor.quantization = quantization
    return True


def _dequantize_stored(
    builder: TfliteGraphBuilder, node: NodeProto, array: Array, parameters: _Parameters
) -> None:
    name = node.input[0]
    is_known = array.dtype.name in ("int8", "uint8", "int16", "int32", "int4", "uint4")
    if not is_known or get_attribute(node, "block_size", 0):
        builder.value(node, 0)
        builder.bind(node, constant(name, _dequantize_array(node, array, parameters)))
        return
    shift = _UNSIGNED_SHIFT.get(array.dtype.name, 0)
    dtype = _SIGNED.get(array.dtype.name, array.dtype.name)
    storage_type = "int8" if dtype == "int4" else dtype
    builder.value(node, 0)
    axis = parameters.axis % array.ndim if parameters.scales.size > 1 else 0
    integers = constant(name, (array.astype(np.int32) - shift).astype(storage_type))
    integers.dtype = dtype
    integers.quantization = parameters.quantization(axis, shift)
    integers.source = None if shift else name
    builder.bind(node, builder.emit("DEQUANTIZE", [integers], tuple(array.shape)))


def _dequantize_array(node: NodeProto, array: Array, parameters: _Parameters) -> Array:
    block, scales, zero_points = (
        get_attribute(node, "block_size", 0),
        parameters.scales,
        parameters.zero_points,
    )
    if block:
        scales, zero_points = (
            np.repeat(each, block, axis=parameters.axis).take(
                range(array.shape[parameters.axis]), axis=parameters.axis
            )
            for each in (scales, zero_points)
        )
    elif scales.size > 1:
        shape = [1] * array.ndim
        shape[parameters.axis] = scales.size
        scales, zero_points = scales.reshape(shape), zero_points.reshape(shape)
    difference = array.astype(np.float32) - zero_points.astype(np.float32)
    return np.asarray(difference * scales.astype(np.float32), np.float32).reshape(array.shape)


def _read_parameter_along(
    builder: TfliteGraphBuilder, node: NodeProto, position: int, value: Value
) -> Tensor:
    """Read scales or zero points as float32 that broadcast against a value in its storage order."""
    tensor = builder.cast(builder.plain(node, position), "float32")
    if tensor.shape in ((), (1,)):
        return builder.reshape(tensor, ())
    rank, axis = len(value.order), int(get_attribute(node, "axis", 1)) % len(value.order)
    block = int(get_attribute(node, "block_size", 0))
    if block:
        sizes = tensor.shape
        blocked_shape = (*sizes[: axis + 1], block, *sizes[axis + 1 :])
        split = (*sizes[: axis + 1], 1, *sizes[axis + 1 :])
        repeated = builder.emit(
            "BROADCAST_TO",
            [builder.reshape(tensor, split), builder.int32(blocked_shape)],
            blocked_shape,
        )
        full = (*sizes[:axis], sizes[axis] * block, *sizes[axis + 1 :])
        tensor = builder.reshape(repeated, full)
        if full != value.shape:
            begin = builder.int32([0] * rank)
            tensor = builder.emit("SLICE", [tensor, begin, builder.int32(value.shape)], value.shape)
        return builder.to_order(Value(tensor=tensor, order=tuple(range(rank))), value.order)
    shape = [1] * rank
    shape[value.axis(axis)] = tensor.shape[0]
    return builder.reshape(tensor, tuple(shape))


def _quantize_by_arithmetic(
    builder: TfliteGraphBuilder, node: NodeProto, value: Value, dtype: str
) -> Tensor:
    if dtype not in ("int8", "uint8", "int16", "uint16", "int32"):
        raise builder.refusal(
            node, f"quantizes to {dtype} at run time, which TFLite does not support"
        )
    value_float = builder.cast(value.tensor, "float32")
    result = emit_unary(
        builder,
        "ROUND",
        emit_binary(builder, "DIV", value_float, _read_parameter_along(builder, node, 1, value)),
    )
    if builder.has(node, 2):
        result = emit_binary(builder, "ADD", result, _read_parameter_along(builder, node, 2, value))
    bounds = np.iinfo(dtype)
    return builder.cast(clamp(builder, result, float(bounds.min), float(bounds.max)), dtype)


def _dequantize_by_arithmetic(
    builder: TfliteGraphBuilder, node: NodeProto, value: Value, shift: int
) -> Tensor:
    value_float = builder.cast(value.tensor, "float32")
    if shift:
        value_float = emit_binary(builder, "ADD", value_float, float(shift))
    if builder.has(node, 2):
        value_float = emit_binary(
            builder, "SUB", value_float, _read_parameter_along(builder, node, 2, value)
        )
    return emit_binary(builder, "MUL", value_float, _read_parameter_along(builder, node, 1, value))


def dynamic_quantize(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert DynamicQuantizeLinear: uint8 with scale and zero point from the tensor's range."""
    value = builder.value(node, 0)
    axes = list(range(len(value.order)))
    most = clamp(
        builder, reduce_axes(builder, "REDUCE_MAX", value.tensor, axes, keep=False), 0.0, None
    )
    least = clamp(
        builder, reduce_axes(builder, "REDUCE_MIN", value.tensor, axes, keep=False), None, 0.0
    )
    scale = emit_binary(builder, "MUL", emit_binary(builder, "SUB", most, least), 1 / 255)
    divisor = clamp(builder, scale, float(np.finfo(np.float32).tiny), None)
    zero = emit_unary(
        builder, "ROUND", emit_binary(builder, "DIV", emit_unary(builder, "NEG", least), divisor)
    )
    zero = clamp(builder, zero, 0.0, 255.0)
    result = emit_unary(builder, "ROUND", emit_binary(builder, "DIV", value.tensor, divisor))
    result = clamp(builder, emit_binary(builder, "ADD", result, zero), 0.0, 255.0)
    builder.bind(node, builder.cast(result, "uint8"), value.order)
    builder.bind(node, scale, output=1)
    builder.bind(node, builder.cast(zero, "uint8"), output=2)


RULES = {
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "com.microsoft:QuantizeLinear": quantize,
    "com.microsoft:DequantizeLinear": dequantize,
    "DynamicQuantizeLinear": dynamic_quantize,
}
