"""Weights computed from stored integers, rewritten as per-row DequantizeLinear.

Such weights come from Cast, Sub and Mul, or from a DequantizeLinear with blockwise scales. Constant
folding would store them as floats, with four times the bytes. A per-row DequantizeLinear keeps the
integers: the axes along which scales differ are moved to the front and merged into one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import NodeProto, TensorProto, helper

from edgekit.conversion.onnx_to_tflite.evaluation_context import EvaluationContext
from edgekit.tflite.ir import Array

# Smaller weights take no more bytes as floats than the nodes that would dequantize them.
_LEAST_ENTRIES = 1024
_AXIS_SINCE = 13  # DequantizeLinear has scales along an axis from this opset on


@dataclass(frozen=True, kw_only=True)
class _Integers:
    """Integers that a Cast reads, and the zero points that a Sub subtracts."""

    array: Array
    zeros: Array | None = None


class IntegerWeightRewriter:
    """Rewrite of float weights that are computed from stored integers, node by node."""

    def __init__(self) -> None:
        self._integers: dict[str, _Integers] = {}

    def replace_node(self, context: EvaluationContext, node: NodeProto) -> list[NodeProto] | None:
        """Return a per-row DequantizeLinear that replaces a node, or None for other nodes.

        Args:
            context: Constants of the graph around the node.
            node: Next node in graph order; Cast and Sub are remembered.
        """
        if context.opset < _AXIS_SINCE:
            return None
        if node.op_type == "DequantizeLinear":
            return _dequantize_blocks(context, node)
        if node.op_type == "Cast":
            self._remember_cast(context, node)
        elif node.op_type == "Sub":
            self._remember_zeros(context, node)
        elif node.op_type == "Mul":
            for integers, scales in (node.input, reversed(node.input)):
                stored = self._integers.get(integers)
                factors = context.value(scales)
                if stored is not None and factors is not None:
                    return _dequantize_product(context, stored, factors, node.output[0])
        return None

    def _remember_cast(self, context: EvaluationContext, node: NodeProto) -> None:
        array = context.value(node.input[0])
        target = helper.get_node_attr_value(node, "to")
        if array is None or array.dtype not in (np.int8, np.uint8) or target != TensorProto.FLOAT:
            return
        if array.size >= _LEAST_ENTRIES:
            self._integers[node.output[0]] = _Integers(array=array)

    def _remember_zeros(self, context: EvaluationContext, node: NodeProto) -> None:
        stored, zeros = self._integers.get(node.input[0]), context.value(node.input[1])
        if stored is None or stored.zeros is not None or zeros is None:
            return
        if (zeros == np.rint(zeros)).all():
            self._integers[node.output[0]] = replace(stored, zeros=zeros)


def _dequantize_blocks(context: EvaluationContext, node: NodeProto) -> list[NodeProto] | None:
    """Rewrite a blockwise DequantizeLinear per row; int4 is stored in 8 bits."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    size = attributes.get("block_size", 0)
    array, scales, *rest = (context.value(name) for name in node.input)
    if not size or array is None or scales is None or (rest and rest[0] is None):
        return None
    axis = attributes.get("axis", 1) % array.ndim
    count, remainder = divmod(array.shape[axis], size)
    if remainder or array.size < _LEAST_ENTRIES:
        return None
    dtype = np.int8 if array.dtype.name in ("int4", "int8") else np.uint8
    order = [*(other for other in range(array.ndim) if other != axis), axis]
    ordered_scales = scales.transpose(order)
    return _dequantize_rows(
        context,
        _Rows(
            integers=array.astype(dtype).transpose(order).reshape(-1, size),
            scales=ordered_scales.reshape(-1),
            zeros=rest[0].transpose(order).reshape(-1) if rest and rest[0] is not None else None,
            shape=(*ordered_scales.shape[:-1], count * size),
            order=order,
        ),
        node.output[0],
    )


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """A weight as rows of integers, each row with one scale.

    Args:
        integers: (rows, entries).
        scales: One for each row.
        zeros: Zero point of each row; ``None`` where all are 0.
        shape: Shape of the weight with its axes in stored order.
        order: For each stored axis, the axis of the weight.
    """

    integers: Array
    scales: Array
    zeros: Array | None
    shape: tuple[int, ...]
    order: Sequence[int]


def _dequantize_rows(context: EvaluationContext, rows: _Rows, name: str) -> list[NodeProto]:
    inputs = [_store(context, f"{name}_integers", rows.integers)]
    inputs.append(_store(context, f"{name}_scales", rows.scales.astype(np.float32)))
    if rows.zeros is not None:
        inputs.append(_store(context, f"{name}_zeros", rows.zeros.astype(rows.integers.dtype)))
    rows_name, reshaped_name = context.fresh(name), context.fresh(name)
    sizes = _store(context, f"{name}_sizes", np.asarray(rows.shape, np.int64))
    permutation = [rows.order.index(axis) for axis in range(len(rows.order))]
    return [
        helper.make_node("DequantizeLinear", inputs, [rows_name], axis=0),
        helper.make_node("Reshape", [rows_name, sizes], [reshaped_name]),
        helper.make_node("Transpose", [reshaped_name], [name], perm=permutation),
    ]


def _dequantize_product(
    context: EvaluationContext, stored: _Integers, scales: Array, name: str
) -> list[NodeProto] | None:
    """Rewrite the product of integers and broadcast scales per row."""
    array, shape = stored.array, stored.array.shape
    factors = _align(scales, array.ndim)
    zeros = None if stored.zeros is None else _align(stored.zeros, array.ndim)
    if factors is None or scales.dtype != np.float32 or not _zeros_fit(stored):
        return None
    parameter_shape = (
        factors.shape if zeros is None else np.broadcast_shapes(factors.shape, zeros.shape)
    )
    scaled_axes = [axis for axis, size in enumerate(parameter_shape) if size > 1]
    count = int(np.prod(parameter_shape))
    if any(parameter_shape[axis] != shape[axis] for axis in scaled_axes) or count >= array.size:
        return None
    order = [*scaled_axes, *(axis for axis in range(array.ndim) if axis not in scaled_axes)]
    rows = _Rows(
        integers=array.transpose(order).reshape(count, -1),
        scales=np.broadcast_to(factors, parameter_shape).reshape(-1),
        zeros=None if zeros is None else np.broadcast_to(zeros, parameter_shape).reshape(-1),
        shape=tuple(shape[axis] for axis in order),
        order=order,
    )
    return _dequantize_rows(context, rows, name)


def _zeros_fit(stored: _Integers) -> bool:
    """Return whether the integer type can hold the zero points."""
    if stored.zeros is None:
        return True
    bounds = np.iinfo(stored.array.dtype)
    return bool(((stored.zeros >= bounds.min) & (stored.zeros <= bounds.max)).all())


def _align(array: Array, rank: int) -> Array | None:
    """Reshape parameters to the rank of the integers; ``None`` where their rank is higher."""
    if array.ndim > rank:
        return None
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _store(context: EvaluationContext, stem: str, array: Array) -> str:
    name = context.fresh(stem)
    context.store(name, array)
    return name
