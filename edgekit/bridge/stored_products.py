"""Weights that are computed from stored integers, kept as the integers they are.

Cast, Sub and Mul make such weights, and a DequantizeLinear with scales for blocks. Folding them
would store floats: four bytes for each of one. A DequantizeLinear of rows says the same: the axes
along which scales differ are stored first and taken for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from onnx import NodeProto, TensorProto, helper

from edgekit.bridge.graph import Array

# Smaller ones take no more as floats than the nodes that would restore them.
_LEAST_ENTRIES = 1024
_AXIS_SINCE = 13  # DequantizeLinear has scales along an axis from this opset on


class Constants(Protocol):
    """What is known of a graph so far, and where constants go."""

    @property
    def opset(self) -> int:
        """The version of the standard operators."""

    def value(self, name: str) -> Array | None:
        """The value of a constant; ``None`` for what only a run tells."""

    def fresh(self, stem: str) -> str:
        """A name that nothing else has."""

    def store(self, name: str, array: Array) -> None:
        """Say that a value is a constant."""


@dataclass(frozen=True, kw_only=True)
class _Integers:
    """Stored integers as a Cast reads them, less a zero point for each scale."""

    array: Array
    zeros: Array | None = None


class StoredProducts:
    """The integers behind the floats that are computed while a graph is walked."""

    def __init__(self) -> None:
        self._behind: dict[str, _Integers] = {}

    def instead(self, graph: Constants, node: NodeProto) -> list[NodeProto] | None:
        """Return nodes that dequantize rows of integers and make what a node makes, or None.

        Args:
            graph: the graph around the node.
            node: the next one; a Cast or a Sub is remembered.
        """
        if graph.opset < _AXIS_SINCE:
            return None
        if node.op_type == "DequantizeLinear":
            return _blocks(graph, node)
        if node.op_type == "Cast":
            self._remember_cast(graph, node)
        elif node.op_type == "Sub":
            self._remember_zeros(graph, node)
        elif node.op_type == "Mul":
            for integers, scales in (node.input, reversed(node.input)):
                known = self._behind.get(integers)
                factors = graph.value(scales)
                if known is not None and factors is not None:
                    return _dequantized(graph, known, factors, node.output[0])
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


def _blocks(graph: Constants, node: NodeProto) -> list[NodeProto] | None:
    """A DequantizeLinear with a scale for each block of an axis; int4 is stored in 8 bits."""
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
    return _rows(
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
    """Integers as rows of one scale each.

    Args:
        integers: (rows, entries).
        scales: one for each row.
        zeros: likewise; ``None`` for zeros.
        shape: of the weight with its axes as they are stored.
        order: which axis of the weight each stored one is.
    """

    integers: Array
    scales: Array
    zeros: Array | None
    shape: tuple[int, ...]
    order: Sequence[int]


def _rows(graph: Constants, rows: _Rows, name: str) -> list[NodeProto]:
    inputs = [_stored(graph, f"{name}_integers", rows.integers)]
    inputs.append(_stored(graph, f"{name}_scales", rows.scales.astype(np.float32)))
    if rows.zeros is not None:
        inputs.append(_stored(graph, f"{name}_zeros", rows.zeros.astype(rows.integers.dtype)))
    real, whole = graph.fresh(name), graph.fresh(name)
    sizes = _stored(graph, f"{name}_sizes", np.asarray(rows.shape, np.int64))
    back = [rows.order.index(axis) for axis in range(len(rows.order))]
    return [
        helper.make_node("DequantizeLinear", inputs, [real], axis=0),
        helper.make_node("Reshape", [real, sizes], [whole]),
        helper.make_node("Transpose", [whole], [name], perm=back),
    ]


def _dequantized(
    graph: Constants, known: _Integers, scales: Array, name: str
) -> list[NodeProto] | None:
    """Rows of what a Mul makes of integers and scales that broadcast against them."""
    array, shape = known.array, known.array.shape
    factors = _aligned(scales, array.ndim)
    zeros = None if known.zeros is None else _aligned(known.zeros, array.ndim)
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
    return _rows(graph, rows, name)


def _fits(known: _Integers) -> bool:
    """Whether the zero points are of the integers' own type."""
    if known.zeros is None:
        return True
    bounds = np.iinfo(known.array.dtype)
    return bool(((known.zeros >= bounds.min) & (known.zeros <= bounds.max)).all())


def _aligned(array: Array, rank: int) -> Array | None:
    """Parameters with as many axes as the integers; ``None`` where they have more."""
    if array.ndim > rank:
        return None
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _stored(graph: Constants, stem: str, array: Array) -> str:
    name = graph.fresh(stem)
    graph.store(name, array)
    return name
