"""Dynamic int8: integer MatMul and Gemm, embeddings stored in 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgekit.errors import PassRefused
from edgekit.graphs.compact import compact, share_transposed
from edgekit.graphs.index import GraphIndex
from edgekit.graphs.onnx_file import save
from edgekit.graphs.placement import Weighted, as_weighted
from edgekit.model import Model
from edgekit.passes import Work
from edgekit.passes.affine import LARGEST, Floats, symmetric_scales, to_int8
from edgekit.passes.embeddings import quantize_embeddings
from edgekit.passes.integer_kernels import settle_kernels
from edgekit.passes.reasons import WEIGHT_OPS, why_nothing
from edgekit.passes.recurrent_trials import quantize_layers
from edgekit.passes.sources import open_source
from edgekit.passes.storage import LEAST_STORED, store_in_8_bits
from edgekit.passes.weight_bits import told_bits
from edgekit.recipe import QuantizeDynamic

_OPSET = 13
# Convolutions are not for this pass.
_LEFT = {"Conv": "quantize-dynamic leaves convolutions in float; quantize takes them"}


def quantize_dynamic(model: Model, settings: QuantizeDynamic, work: Work) -> Path:
    """Replace MatMul, Gemm and LSTM by integer ones, and embeddings by int8 tables.

    Activations get their scale at run time, over the whole tensor; weights are signed, symmetric,
    per output channel; an embedding has a scale per row, gathered along with it. Inner graphs
    (If, Loop, Scan) are treated alike; weights of other kinds (GRU, transposed convolution) are
    stored as int8.

    Raises:
        PassRefused: nothing to quantise, or quantised already.
    """
    source = open_source(model, work, _OPSET, folded=True)
    proto = source.proto
    largest = LARGEST[told_bits(settings, work)]
    found = quantize_embeddings(GraphIndex(proto))
    found += quantize_layers(proto, largest, model, work)
    found += _integer_products(proto, largest)
    found += store_in_8_bits(proto, _is_plain_convolution)
    if not found:
        reason = why_nothing(proto, ops=WEIGHT_OPS - {"Conv"}, least=LEAST_STORED)
        raise PassRefused(f"nothing to quantise: {reason}")
    settle_kernels(proto, work, known=_LEFT)
    share_transposed(proto)
    source.restore(proto)
    compact(proto)
    target = work.scratch / "dynamic.onnx"
    save(proto, target)
    return target


def _integer_products(proto: ModelProto, largest: int) -> int:
    weights: dict[tuple[str, int], tuple[str, str]] = {}
    inner = GraphIndex(proto).inner()
    replaced = sum(_Writer(index, weights, largest).write() for index in inner)
    replaced += _Writer(GraphIndex(proto), weights, largest).write()
    GraphIndex(proto).drop_unread_constants()
    return replaced


def _is_plain_convolution(index: GraphIndex, node: NodeProto) -> bool:
    """Those of the main graph stay as they are: the static pass is for them."""
    return node.op_type == "Conv" and index.main is index


class _Writer:
    def __init__(
        self, index: GraphIndex, weights: dict[tuple[str, int], tuple[str, str]], largest: int
    ) -> None:
        self.index = index
        self.largest = largest
        self.nodes: list[NodeProto] = []
        self.activations: dict[str, tuple[str, str, str]] = {}
        self.weights = weights  # shared by all graphs of the model

    def write(self) -> int:
        """Rewrite the graph; returns the number of nodes replaced."""
        replaced = 0
        for node in self.index.graph.node:
            weighted = as_weighted(self.index, node)
            if weighted and node.op_type in ("MatMul", "Gemm"):
                self._matmul(weighted)
                replaced += 1
            else:
                self.nodes.append(node)
        read = {name for node in self.nodes for name in node.input}
        read |= self.index.outputs | self.index.inner_reads
        # What dequantised a weight that is now multiplied as it is has no reader left.
        self.index.replace_nodes(
            [
                node
                for node in self.nodes
                if node.op_type != "DequantizeLinear" or node.output[0] in read
            ]
        )
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
            integers, scales = self._integers(weighted)
            if weighted.axis == 0:
                integers = integers.T
            names = (self.index.add_constant("w", integers), self.index.add_constant("ws", scales))
            self.weights[key] = names
        return self.weights[key]

    def _integers(self, weighted: Weighted) -> tuple[NDArray[np.int8], Floats]:
        weight = self.index.float_constant(weighted.weight)
        if weighted.kept is not None:
            return weight.astype(np.int8), self.index.float_constant(weighted.kept.scales)
        scales = symmetric_scales(weight, weighted.axis, self.largest)
        return to_int8(weight, scales, weighted.axis, self.largest), scales
