"""Dynamic int8: integer MatMul and Gemm, embeddings stored in 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgekit.errors import PassRefused
from edgekit.graphs.index import GraphIndex, attribute
from edgekit.graphs.onnx_file import load, save
from edgekit.graphs.placement import Weighted, as_weighted
from edgekit.graphs.rewrite import at_least_opset, refuse_quantized
from edgekit.model import Model
from edgekit.passes import Work
from edgekit.passes.affine import symmetric_scales, to_int8
from edgekit.recipe import QuantizeDynamic

_OPSET = 13
# Below this an embedding is cheaper left alone than gathered twice.
_MIN_EMBEDDING = 4096


def quantize_dynamic(model: Model, settings: QuantizeDynamic, work: Work) -> Path:
    """Replace MatMul and Gemm with stored weights by integer ones, and embeddings by int8 tables.

    Activations get their scale at run time, over the whole tensor; weights are signed, symmetric,
    per output channel; an embedding has a scale per row, gathered along with it.

    Raises:
        PassRefused: nothing to quantise, or quantised already.
    """
    del settings
    proto = load(model.path)
    refuse_quantized(proto)
    proto = at_least_opset(proto, _OPSET)
    writer = _Writer(GraphIndex(proto))
    if not writer.write():
        raise PassRefused("no MatMul, Gemm or embedding with stored float32 weights to quantise")
    target = work.scratch / "dynamic.onnx"
    save(proto, target)
    return target


class _Writer:
    def __init__(self, index: GraphIndex) -> None:
        self.index = index
        self.proto: ModelProto = index.proto
        self.nodes: list[NodeProto] = []
        self.activations: dict[str, tuple[str, str, str]] = {}
        self.weights: dict[tuple[str, int], tuple[str, str]] = {}

    def write(self) -> int:
        """Rewrite the graph; returns the number of nodes replaced."""
        replaced = 0
        for node in self.index.graph.node:
            weighted = as_weighted(self.index, node)
            if weighted and node.op_type in ("MatMul", "Gemm"):
                self._matmul(weighted)
            elif self._is_embedding(node):
                self._embedding(node)
            else:
                self.nodes.append(node)
                continue
            replaced += 1
        nodes = list(self.nodes)
        del self.index.graph.node[:]
        self.index.graph.node.extend(nodes)
        del self.index.graph.value_info[:]
        self.index.drop_unread_constants()
        return replaced

    def _add(self, op: str, inputs: list[str], stem: str, **attributes: int) -> str:
        output = self.index.fresh(stem)
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def _matmul(self, weighted: Weighted) -> None:
        """MatMulInteger, then the product of both scales, then the bias."""
        source = weighted.node.input[0]
        integer, scale, zero = self._quantized(source)
        weight, weight_scales = self._weight(weighted)
        product = self._add("MatMulInteger", [integer, weight, zero], "i")
        real = self._add("Cast", [product], "c", to=TensorProto.FLOAT)
        scales = self._add("Mul", [scale, weight_scales], "s")
        output = weighted.node.output[0]
        if weighted.bias is None:
            self.nodes.append(helper.make_node("Mul", [real, scales], [output]))
        else:
            scaled = self._add("Mul", [real, scales], "m")
            self.nodes.append(helper.make_node("Add", [scaled, weighted.bias], [output]))

    def _quantized(self, name: str) -> tuple[str, str, str]:
        """Integer, scale and zero point of an activation; made once for all its readers."""
        if name not in self.activations:
            outputs = [self.index.fresh(stem) for stem in ("q", "qs", "qz")]
            self.nodes.append(helper.make_node("DynamicQuantizeLinear", [name], outputs))
            self.activations[name] = (outputs[0], outputs[1], outputs[2])
        return self.activations[name]

    def _weight(self, weighted: Weighted) -> tuple[str, str]:
        """int8 weight [in, out] and its scales [out]."""
        key = (weighted.weight, weighted.axis)
        if key not in self.weights:
            weight = self._values(weighted.weight)
            scales = symmetric_scales(weight, weighted.axis)
            integers = to_int8(weight, scales, weighted.axis)
            if weighted.axis == 0:
                integers = integers.T
            names = (self.index.add_constant("w", integers), self.index.add_constant("ws", scales))
            self.weights[key] = names
        return self.weights[key]

    def _values(self, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        value = self.index.constant(name)
        if value is None:
            raise PassRefused(f"weight {name} is not stored in the file")
        return value.astype(np.float32)

    def _is_embedding(self, node: NodeProto) -> bool:
        if node.op_type != "Gather" or attribute(node, "axis", 0) != 0:
            return False
        table = self.index.initializers.get(node.input[0])
        if table is None or table.data_type != TensorProto.FLOAT or len(table.dims) != 2:
            return False
        return bool(table.dims[0] * table.dims[1] >= _MIN_EMBEDDING)

    def _embedding(self, node: NodeProto) -> None:
        """Gather int8 rows and their scales, so that only what is read gets dequantised."""
        key = (node.input[0], 0)
        if key not in self.weights:
            table = self._values(node.input[0])
            scales = symmetric_scales(table, 0)
            integers = self.index.add_constant("e", to_int8(table, scales, 0))
            self.weights[key] = (integers, self.index.add_constant("es", scales[:, None]))
        integers, scales_name = self.weights[key]
        rows = self._add("Gather", [integers, node.input[1]], "g", axis=0)
        scale = self._add("Gather", [scales_name, node.input[1]], "gs", axis=0)
        real = self._add("Cast", [rows], "c", to=TensorProto.FLOAT)
        self.nodes.append(helper.make_node("Mul", [real, scale], [node.output[0]]))
