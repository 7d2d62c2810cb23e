"""Dynamic quantization of MatMul and Gemm: integer weights, inputs quantized at run time."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgekit.compression.quantization.affine import Floats, compute_symmetric_scales, to_int8
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.operators import MATRIX_OPS
from edgekit.onnx_graph.qdq_placement import WeightedNode, match_weighted_node


def make_products_dynamic(
    proto: ModelProto,
    largest: int,
    *,
    only: Collection[str] | None = None,
    folder: Path | None = None,
) -> int:
    """Replace MatMul and Gemm with stored weights by MatMulInteger, in place, also in inner graphs.

    Args:
        proto: the model.
        largest: magnitude of the largest integer.
        only: outputs of the nodes to replace; ``None`` = all.
        folder: the folder of offloaded weights.

    Returns:
        The number of replaced nodes.
    """
    weights: dict[tuple[str, int], tuple[str, str]] = {}
    inner = GraphIndex(proto, folder).inner()
    replaced = sum(_Writer(index, weights, largest, only).write() for index in inner)
    replaced += _Writer(GraphIndex(proto, folder), weights, largest, only).write()
    GraphIndex(proto, folder).drop_unread_constants()
    return replaced


class _Writer:
    def __init__(
        self,
        index: GraphIndex,
        weights: dict[tuple[str, int], tuple[str, str]],
        largest: int,
        only: Collection[str] | None,
    ) -> None:
        self.index = index
        self.largest = largest
        self.only = only
        self.nodes: list[NodeProto] = []
        self.activations: dict[str, tuple[str, str, str]] = {}
        self.weights = weights  # shared by all graphs of the model

    def write(self) -> int:
        """Rewrite the graph and return the number of replaced nodes."""
        replaced = 0
        for node in self.index.graph.node:
            weighted = self._select(node)
            if weighted:
                self._write_product(weighted)
                replaced += 1
            else:
                self.nodes.append(node)
        read = {name for node in self.nodes for name in node.input}
        read |= self.index.outputs | self.index.inner_reads
        # The DequantizeLinear of a weight that MatMulInteger now reads directly has no reader left.
        self.index.replace_nodes(
            [
                node
                for node in self.nodes
                if node.op_type != "DequantizeLinear" or node.output[0] in read
            ]
        )
        return replaced

    def _select(self, node: NodeProto) -> WeightedNode | None:
        if node.op_type not in MATRIX_OPS or (
            self.only is not None and node.output[0] not in self.only
        ):
            return None
        return match_weighted_node(self.index, node)

    def _add(self, op: str, inputs: list[str], stem: str, **attributes: int) -> str:
        output = self.index.fresh(stem)
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def _write_product(self, weighted: WeightedNode) -> None:
        """Write a MatMulInteger, the multiplication by both scales, and the bias."""
        source = weighted.node.input[0]
        integer, scale, zero = self._quantize_activation(source)
        weight, weight_scales = self._store_weight(weighted)
        product = self._add("MatMulInteger", [integer, weight, zero], "i")
        real = self._add("Cast", [product], "c", to=TensorProto.FLOAT)
        scales = self._add("Mul", [scale, weight_scales], "s")
        output = weighted.node.output[0]
        if weighted.bias is None:
            self.nodes.append(helper.make_node("Mul", [real, scales], [output]))
        else:
            scaled = self._add("Mul", [real, scales], "m")
            self.nodes.append(helper.make_node("Add", [scaled, weighted.bias], [output]))

    def _quantize_activation(self, name: str) -> tuple[str, str, str]:
        """Quantize an activation once for all readers; return integers, scale and zero point."""
        if name not in self.activations:
            outputs = [self.index.fresh(stem) for stem in ("q", "qs", "qz")]
            self.nodes.append(helper.make_node("DynamicQuantizeLinear", [name], outputs))
            self.activations[name] = (outputs[0], outputs[1], outputs[2])
        return self.activations[name]

    def _store_weight(self, weighted: WeightedNode) -> tuple[str, str]:
        """Store an int8 weight [in, out] and its scales [out]; return their names."""
        key = (weighted.weight, weighted.axis)
        if key not in self.weights:
            integers, scales = self._quantize_weight(weighted)
            if weighted.axis == 0:
                integers = integers.T
            names = (self.index.add_constant("w", integers), self.index.add_constant("ws", scales))
            self.weights[key] = names
        return self.weights[key]

    def _quantize_weight(self, weighted: WeightedNode) -> tuple[NDArray[np.int8], Floats]:
        weight = self.index.float_constant(weighted.weight)
        if weighted.qdq_weight is not None:
            return weight.astype(np.int8), self.index.float_constant(weighted.qdq_weight.scales)
        scales = compute_symmetric_scales(weight, weighted.axis, self.largest)
        return to_int8(weight, scales, weighted.axis, self.largest), scales
