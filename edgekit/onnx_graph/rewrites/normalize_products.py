"""Normalization of products with a stored weight to a few canonical forms.

The results are Gemm with an untransposed input and a bias of one axis, and MatMul with a matrix on
the right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from functools import cached_property

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.io import iter_graphs
from edgekit.onnx_graph.operators import is_standard
from edgekit.onnx_graph.shape_inference import infer_ranks

# A matrix on the left is moved to the right between two Transpose nodes. They pay off only if both
# sides of the matrix are at least this long.
_LEAST_SIDE = 16


def normalize_products(proto: ModelProto, *, keep_ties: bool = False) -> None:
    """Rewrite Gemm and MatMul with float32 constants into canonical form in all graphs, in place.

    Rewritten are alpha, beta, transA and biases of other shapes of a Gemm, and constants of a
    MatMul that are on the left, have leading axes of size 1, or are transposed in the graph.

    Args:
        proto: the model.
        keep_ties: skip rewrites that would copy a weight with another reader, such as an embedding
            table that is also the output layer.
    """
    main = GraphIndex(proto)
    ranks = _LazyRanks(proto)
    tied = _find_tied_weights(proto) if keep_ties else frozenset()
    for index in main.inner():
        _ProductRewriter(index, ranks, tied).write()
    _ProductRewriter(main, ranks, tied).write()
    GraphIndex(proto).drop_unread_constants()


def _find_tied_weights(proto: ModelProto) -> frozenset[str]:
    """Find the constants with several reads; being a graph output counts as a read."""
    reads = Counter(
        name for graph in iter_graphs(proto.graph) for node in graph.node for name in node.input
    )
    reads.update(value.name for graph in iter_graphs(proto.graph) for value in graph.output)
    return frozenset(t.name for t in proto.graph.initializer if reads[t.name] > 1)


class _LazyRanks:
    """Ranks of all values, inferred at the first use."""

    def __init__(self, proto: ModelProto) -> None:
        self._proto = proto

    @cached_property
    def by_name(self) -> dict[str, int]:
        """Known ranks by value name."""
        return infer_ranks(self._proto)


class _ProductRewriter:
    """Rewriter of the products in one graph."""

    def __init__(self, index: GraphIndex, ranks: _LazyRanks, tied: Collection[str]) -> None:
        self.index = index
        self.ranks = ranks
        self.tied = tied
        self.nodes: list[NodeProto] = []
        self.transpose: dict[str, str] = {}

    def write(self) -> None:
        """Replace the nodes of the graph by the rewritten ones."""
        for node in self.index.graph.node:
            standard = is_standard(node)
            if standard and node.op_type == "Gemm":
                self._rewrite_gemm(node)
            elif standard and node.op_type == "MatMul":
                self._rewrite_matmul(node)
            else:
                self.nodes.append(node)
        self.index.replace_nodes(_drop_unread_transposes(self.nodes, self.index))

    def _add(self, op: str, inputs: list[str], output: str = "", **attributes: object) -> str:
        output = output or self.index.fresh("n")
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    # ------------------------------------------------------------ Gemm

    def _rewrite_gemm(self, node: NodeProto) -> None:
        """Rewrite alpha A B + beta C as Gemm(A, alpha B, beta C), with a bias per column."""
        rows, weight = node.input[0], node.input[1]
        if self._is_matrix(rows) and not self._is_stored(weight):
            self._rewrite_left_gemm(node)
        elif (
            not self._is_matrix(weight)
            or self._is_stored(rows)
            or self._is_plain(node)
            or (_get_factor(node, "alpha") != 1.0 and weight in self.tied)
        ):
            self.nodes.append(node)
        else:
            by_row = bool(read_attribute(node, "transB", 0))
            if read_attribute(node, "transA", 0):
                rows = self._add("Transpose", [rows], perm=[1, 0])
            width = self.index.initializers[weight].dims[0 if by_row else 1]
            bias = self._store_bias(node, width)
            inputs = [
                rows,
                self._scale_weight(weight, _get_factor(node, "alpha")),
                *([bias] if bias else []),
            ]
            output = "" if self._has_separate_bias(node, bias) else node.output[0]
            product = self._add("Gemm", inputs, output, transB=int(by_row))
            self._add_bias(node, product, bias)

    def _is_plain(self, node: NodeProto) -> bool:
        if any(_get_factor(node, name) != 1.0 for name in ("alpha", "beta")):
            return False
        if read_attribute(node, "transA", 0):
            return False
        by_row = read_attribute(node, "transB", 0)
        width = self.index.initializers[node.input[1]].dims[0 if by_row else 1]
        if not _has_bias(node):
            return True
        stored = self.index.initializers.get(node.input[2])
        if stored is None or list(stored.dims) != [width]:
            return False
        return self.index.is_finite(node.input[2])

    def _rewrite_left_gemm(self, node: NodeProto) -> None:
        """Rewrite a Gemm with a constant A as a MatMul between two Transpose nodes."""
        left = self.index.float_constant(node.input[0])
        left = left.T if read_attribute(node, "transA", 0) else left
        alpha = _get_factor(node, "alpha")
        if min(left.shape) < _LEAST_SIDE or node.input[0] in self.tied:
            self.nodes.append(node)
            return
        right = self.index.add_constant("n", (left.T * alpha).astype(np.float32))
        columns = node.input[1]
        if not read_attribute(node, "transB", 0):
            columns = self._add("Transpose", [columns], perm=[1, 0])
        product = self._add("MatMul", [columns, right])
        output = "" if _has_bias(node) else node.output[0]
        turned = self._add("Transpose", [product], output, perm=[1, 0])
        self._add_bias(node, turned, None)

    def _store_bias(self, node: NodeProto, width: int) -> str | None:
        """Store beta C as a vector; ``None`` if there is no C or it is no value per column."""
        name = node.input[2] if _has_bias(node) else ""
        if not self._is_stored(name):
            return None
        bias = self.index.float_constant(name)
        if not np.isfinite(bias).all():  # such as a mask: integer kernels support no infinite bias
            return None
        if (
            bias.ndim > 2
            or bias.size not in (1, width)
            or bias.shape[-1:] not in ((1,), (width,), ())
        ):
            return None
        scaled = (bias.ravel() * _get_factor(node, "beta")).astype(np.float32)
        return self.index.add_constant("n", np.broadcast_to(scaled, (width,)))

    def _has_separate_bias(self, node: NodeProto, bias: str | None) -> bool:
        return bias is None and _has_bias(node)

    def _add_bias(self, node: NodeProto, product: str, bias: str | None) -> None:
        """Add beta C by a separate Add if the product cannot take it as its bias."""
        if not self._has_separate_bias(node, bias):
            return
        added, beta = node.input[2], _get_factor(node, "beta")
        if beta != 1.0:
            added = self._add(
                "Mul", [added, self.index.add_constant("n", np.array(beta, np.float32))]
            )
        self._add("Add", [product, added], node.output[0])

    def _scale_weight(self, weight: str, factor: float) -> str:
        if factor == 1.0:
            return weight
        scaled = (self.index.float_constant(weight) * factor).astype(np.float32)
        return self.index.add_constant("n", scaled)

    # ------------------------------------------------------------ MatMul

    def _rewrite_matmul(self, node: NodeProto) -> None:
        left, right = node.input
        matrix = self._find_matrix(right, other=left)
        if matrix is not None and not self._is_stored(left):
            node.input[1] = matrix
            self.nodes.append(node)
            return
        matrix = self._find_matrix(left, other=right)
        pays = (
            matrix is not None
            and matrix not in self.tied
            and self._is_worth_transposing(matrix, right)
        )
        if matrix is None or self._is_stored(right) or not pays:
            self.nodes.append(node)
            return
        rank = self.ranks.by_name[right]
        perm = [*range(rank - 2), rank - 1, rank - 2]
        turned = self._add("Transpose", [right], perm=perm)
        product = self._add("MatMul", [turned, self._transpose_weight(matrix)])
        self._add("Transpose", [product], node.output[0], perm=perm)

    def _find_matrix(self, name: str, *, other: str) -> str | None:
        """Return an equivalent constant matrix for a MatMul operand; ``None`` without one."""
        producer = self.index.producer.get(name)
        if (
            producer is not None
            and producer.op_type == "Transpose"
            and self._is_matrix(producer.input[0])
        ):
            perm = read_attribute(producer, "perm", [1, 0])
            if producer.input[0] in self.tied:
                return None
            return (
                self._transpose_weight(producer.input[0]) if perm == [1, 0] else producer.input[0]
            )
        if self._is_matrix(name):
            return name
        dims = list(self.index.initializers[name].dims) if self._is_stored(name) else []
        if len(dims) < 3 or any(d != 1 for d in dims[:-2]) or name in self.tied:
            return None
        if self.ranks.by_name.get(other, 0) < len(dims):
            return None
        return self.index.add_constant("n", self.index.float_constant(name).reshape(dims[-2:]))

    def _is_worth_transposing(self, matrix: str, other: str) -> bool:
        sides = self.index.initializers[matrix].dims
        return min(sides) >= _LEAST_SIDE and self.ranks.by_name.get(other, 0) >= 2

    def _transpose_weight(self, name: str) -> str:
        if name not in self.transpose:
            value = np.ascontiguousarray(self.index.float_constant(name).T)
            self.transpose[name] = self.index.add_constant("n", value)
        return self.transpose[name]

    # ------------------------------------------------------------ constants

    def _is_stored(self, name: str) -> bool:
        tensor = self.index.initializers.get(name)
        return tensor is not None and tensor.data_type == TensorProto.FLOAT

    def _is_matrix(self, name: str) -> bool:
        return self._is_stored(name) and len(self.index.initializers[name].dims) == 2


def _get_factor(node: NodeProto, name: str) -> float:
    value = read_attribute(node, name, 1.0)
    return value if isinstance(value, float) else 1.0


def _has_bias(node: NodeProto) -> bool:
    return len(node.input) > 2 and bool(node.input[2])


def _drop_unread_transposes(nodes: list[NodeProto], index: GraphIndex) -> list[NodeProto]:
    """Drop the Transpose nodes whose output nothing reads."""
    read_names = {name for node in nodes for name in node.input} | index.outputs | index.inner_reads
    return [n for n in nodes if n.op_type != "Transpose" or n.output[0] in read_names]
