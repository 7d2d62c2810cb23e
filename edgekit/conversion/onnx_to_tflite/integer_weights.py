"""Weights computed from stored integers, rewritten as per-row DequantizeLinear.

Such weights come from Cast, Sub and Mul, or from a DequantizeLinear with blockwise scales. Constant
folding would store them as floats, with four times the bytes. A per-row DequantizeLinear keeps the
integers: the axes along which scales differ are moved to the front and merged into one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from onnx import NodeProto, TensorProto, helper

from edgekit.tflite.ir import Array

# Smaller weights take no more bytes as floats than the nodes that would dequantize them.
_LEAST_ENTRIES = 1024
_AXIS_SINCE = 13  # DequantizeLinear has scales along an axis from this opset on


class Constants(Protocol):
    """Access to the constants of a graph that are known so far."""

    @property
    def opset(self) -> int:
        """Return the opset version of the standard operators."""

    def value(self, name: str) -> Array | None:
        """Return the value of a constant; ``None`` for a value computed at run time."""

    def fresh(self, stem: str) -> str:
        """Return an unused name."""

    def store(self, name: str, array: Array) -> None:
        """Record a value as a constant."""


@dataclass(frozen=True, kw_only=True)
class _Integers:
    """Integers that a Cast reads, and the zero points that a Sub subtracts."""

    array: Array
    zeros: Array | None = None


class StoredProducts:
    """Stored integers behind computed float weights, collected during a walk over the graph."""

    def __init__(self) -> None:
        self._behind: dict[str, _Integers] = {}

    def replace_node(self, graph: Constants, node: NodeProto) -> list[NodeProto] | None:
        """Return a per-row DequantizeLinear that replaces a node, or None for other nodes.

        Args:
            graph: Constants of the graph around the node.
            node: Next node in graph order; Cast and Sub are remembered.
        """
        if graph.opset < _AXIS_SINCE:
            return None
        if node.op_type == "DequantizeLinear":
            return _dequantize_blocks(graph, node)
        if node.op_type == "Cast":
            self._remember_cast(graph, node)
        elif node.op_type == "Sub":
            self._remember_zeros(graph, node)
        elif node.op_type == "Mul":
            for integers, scales in (node.input, reversed(node.input)):
                known = self._behind.get(integers)
                factors = graph.value(scales)
                if known is not None and factors is not None:
                    return _dequantize_product(graph, known, factors, node.output[0])
        return None

    def _remember_cast(self, graph: Constants, node: NodeProto) -> None:
        array = graph.value(node.input[0])
        to = helper.get_node_attr_value(node, "to")
        if array is None or array.dtype not in (np.int8, np.uint8) or to != TensorProto.FLOAT:
            return
        if array.size >= _LEAST_ENTRIES:
            self._behind[node.output[0]] = _Integers(array=array)

    def _remember_zeros(self, graph: Constants, node: NodeProto) -> None:
        known, zeros = self._behind.get(node.input[0]), graph.value(node.input[1])
        if known is None or known.zeros is not None or zeros is None:
            return
        if (zeros == np.rint(zeros)).all():
            self._behind[node.output[0]] = replace(known, zeros=zeros)


def _dequantize_blocks(graph: Constants, node: NodeProto) -> list[NodeProto] | None:
    """Rewrite a blockwise DequantizeLinear per row; int4 is stored in 8 bits."""
    given = {each.name: each.i for each in node.attribute}
    size = given.get("block_size", 0)
    array, scales, *rest = (graph.value(name) for name in node.input)
    if not size or array is None or scales is None or (rest and rest[0] is None):
        return None
    axis = given.get("axis", 1) % array.ndim
    count, remainder = divmod(array.shape[axis], size)
    if remainder or array.size < _LEAST_ENTRIES:
        return None
    dtype = np.int8 if array.dtype.name in ("int4", "int8") else np.uint8
    last = [*(each for each in range(array.ndim) if each != axis), axis]
    wide = scales.transpose(last)
    return _dequantize_rows(
        graph,
        _Rows(
            integers=array.astype(dtype).transpose(last).reshape(-1, size),
            scales=wide.reshape(-1),
            zeros=rest[0].transpose(last).reshape(-1) if rest and rest[0] is not None else None,
            shape=(*wide.shape[:-1], count * size),
            order=last,
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


def _dequantize_rows(graph: Constants, rows: _Rows, name: str) -> list[NodeProto]:
    inputs = [_store(graph, f"{name}_integers", rows.integers)]
    inputs.append(_store(graph, f"{name}_scales", rows.scales.astype(np.float32)))
    if rows.zeros is not None:
        inputs.append(_store(graph, f"{name}_zeros", rows.zeros.astype(rows.integers.dtype)))
    real, whole = graph.fresh(name), graph.fresh(name)
    sizes = _store(graph, f"{name}_sizes", np.asarray(rows.shape, np.int64))
    back = [rows.order.index(axis) for axis in range(len(rows.order))]
    return [
        helper.make_node("DequantizeLinear", inputs, [real], axis=0),
        helper.make_node("Reshape", [real, sizes], [whole]),
        helper.make_node("Transpose", [whole], [name], perm=back),
    ]


def _dequantize_product(
    graph: Constants, known: _Integers, scales: Array, name: str
) -> list[NodeProto] | None:
    """Rewrite the product of integers and broadcast scales per row."""
    array, shape = known.array, known.array.shape
    factors = _align(scales, array.ndim)
    zeros = None if known.zeros is None else _align(known.zeros, array.ndim)
    if factors is None or scales.dtype != np.float32 or not _fits(known):
        return None
    wide = factors.shape if zeros is None else np.broadcast_shapes(factors.shape, zeros.shape)
    along = [axis for axis, size in enumerate(wide) if size > 1]
    count = int(np.prod(wide))
    if any(wide[axis] != shape[axis] for axis in along) or count >= array.size:
        return None
    order = [*along, *(axis for axis in range(array.ndim) if axis not in along)]
    rows = _Rows(
        integers=array.transpose(order).reshape(count, -1),
        scales=np.broadcast_to(factors, wide).reshape(-1),
        zeros=None if zeros is None else np.broadcast_to(zeros, wide).reshape(-1),
        shape=tuple(shape[axis] for axis in order),
        order=order,
    )
    return _dequantize_rows(graph, rows, name)


def _fits(known: _Integers) -> bool:
    """Return whether the integer type can hold the zero points."""
    if known.zeros is None:
        return True
    bounds = np.iinfo(known.array.dtype)
    return bool(((known.zeros >= bounds.min) & (known.zeros <= bounds.max)).all())


def _align(array: Array, rank: int) -> Array | None:
    """Reshape parameters to the rank of the integers; ``None`` where their rank is higher."""
    if array.ndim > rank:
        return None
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _store(graph: Constants, stem: str, array: Array) -> str:
    name = graph.fresh(stem)
    graph.store(name, array)
    return name
