"""Fusion of ONNX operators that together compute GELU into one Gelu node."""

from __future__ import annotations

import math
from collections.abc import Iterator

from onnx import ModelProto, NodeProto, helper

from edgekit.onnx_graph.graph_index import GraphIndex

_TOLERANCE = 1e-4
_CUBIC = 0.044715


def fuse_gelu(proto: ModelProto) -> None:
    """Replace ``x * (1 + erf(x / sqrt 2)) / 2``, or its tanh approximation, by ``Gelu`` in place.

    Nodes that only fed these products stay in the graph, unread.

    Args:
        proto: Result of ``fix_shapes``: constants are initializers.

    Source: D. Hendrycks, K. Gimpel, Gaussian Error Linear Units; ONNX operator Gelu.
    """
    matcher = _GeluMatcher(GraphIndex(proto))
    for node in proto.graph.node:
        match = matcher.match(node) if node.op_type == "Mul" else None
        if match is not None:
            source, approximate = match
            output, name = node.output[0], node.name
            gelu = helper.make_node("Gelu", [source], [output], name=name, approximate=approximate)
            node.CopyFrom(gelu)


class _GeluMatcher:
    """Matcher of products and sums in a graph."""

    def __init__(self, index: GraphIndex) -> None:
        self.index = index

    def match(self, node: NodeProto) -> tuple[str, str] | None:
        """Return input and ``approximate`` attribute of the GELU that a Mul computes, if any."""
        factor, leaves = self._factorize(node.output[0])
        if len(leaves) != 2 or not _is_near(factor, 0.5):
            return None
        for source, gate in (leaves, leaves[::-1]):
            inner = self._match_addition(gate, 1.0)
            if inner is not None and self._is_erf_of(inner, source):
                return source, "none"
            if inner is not None and self._is_tanh_of(inner, source):
                return source, "tanh"
        return None

    def _find_producer(self, name: str, op_type: str) -> NodeProto | None:
        node = self.index.producer.get(name)
        return node if node is not None and node.op_type == op_type else None

    def _read_number(self, name: str) -> float | None:
        array = self.index.constant(name)
        return float(array.item()) if array is not None and array.size == 1 else None

    def _factorize(self, name: str) -> tuple[float, list[str]]:
        """Split a value into a constant factor and values that are no products."""
        factor, leaves = 1.0, []
        for sign, leaf in self._iter_factors(name):
            number = self._read_number(leaf)
            if number is None and sign > 0:
                leaves.append(leaf)
            elif number:
                factor *= number**sign
            else:
                return math.nan, []
        return factor, leaves

    def _iter_factors(self, name: str) -> Iterator[tuple[int, str]]:
        product, quotient = self._find_producer(name, "Mul"), self._find_producer(name, "Div")
        if product is not None:
            yield from self._iter_factors(product.input[0])
            yield from self._iter_factors(product.input[1])
        elif quotient is not None and self._read_number(quotient.input[1]) is not None:
            yield from self._iter_factors(quotient.input[0])
            yield -1, quotient.input[1]
        else:
            yield 1, name

    def _match_addition(self, name: str, addend: float) -> str | None:
        """Return the operand to which an Add adds the given number."""
        node = self._find_producer(name, "Add")
        if node is None:
            return None
        left, right = str(node.input[0]), str(node.input[1])
        if _is_near(self._read_number(left), addend):
            return right
        return left if _is_near(self._read_number(right), addend) else None

    def _is_erf_of(self, name: str, source: str) -> bool:
        node = self._find_producer(name, "Erf")
        if node is None:
            return False
        factor, leaves = self._factorize(node.input[0])
        return _is_near(factor, math.sqrt(0.5)) and leaves == [source]

    def _is_tanh_of(self, name: str, source: str) -> bool:
        node = self._find_producer(name, "Tanh")
        if node is None:
            return False
        factor, leaves = self._factorize(node.input[0])
        if not _is_near(factor, math.sqrt(2 / math.pi)) or len(leaves) != 1:
            return False
        total = self._find_producer(leaves[0], "Add")
        if total is None:
            return False
        left, right = total.input
        return (left == source and self._is_cubic(right, source)) or (
            right == source and self._is_cubic(left, source)
        )

    def _is_cubic(self, name: str, source: str) -> bool:
        """Return whether a value is 0.044715 times the cube of a value."""
        factor, leaves = self._factorize(name)
        if not _is_near(factor, _CUBIC):
            return False
        if leaves == [source] * 3:
            return True
        power = self._find_producer(leaves[0], "Pow") if len(leaves) == 1 else None
        if power is None or power.input[0] != source:
            return False
        return _is_near(self._read_number(power.input[1]), 3.0)


def _is_near(value: float | None, expected: float) -> bool:
    return value is not None and abs(value - expected) <= _TOLERANCE * expected
