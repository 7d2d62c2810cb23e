"""Weights of 2 to 8 bits without retraining, as weight-only QDQ in an int8 container."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from edgekit.data import spread
from edgekit.errors import PassRefused
from edgekit.graphs.compact import compact
from edgekit.graphs.index import GraphIndex
from edgekit.graphs.observe import observe
from edgekit.graphs.onnx_file import load, save
from edgekit.graphs.placement import Weighted, as_weighted
from edgekit.graphs.rewrite import prepare
from edgekit.model import Model
from edgekit.passes import Work
from edgekit.passes.affine import Floats, largest_integer
from edgekit.passes.embeddings import quantize_embeddings
from edgekit.passes.gptq import gptq, mse_scales
from edgekit.passes.layer_inputs import Layer, Moments, gather_moments
from edgekit.recipe import QuantizeWeights

# DequantizeLinear has an axis, so a scale per channel, since opset 13.
_OPSET = 13


def quantize_weights(model: Model, settings: QuantizeWeights, work: Work) -> Path:
    """Put the weights of Conv, Gemm, MatMul and embeddings on a grid of few levels.

    GPTQ with a scale per output channel that makes the least error of the output; what the error
    shifts on average goes into the bias. Activations stay float: the static pass quantises them.

    Source: Frantar et al. 2022 (GPTQ); Nagel et al. 2019, "Data-Free Quantization Through Weight
    Equalization and Bias Correction" (bias correction, here from calibration samples).

    Raises:
        PassRefused: nothing to quantise, quantised already, or values that are not finite.
    """
    proto = prepare(load(model.path), _OPSET)
    index = GraphIndex(proto)
    found = _weighted(index)
    if not found:
        raise PassRefused("no Conv, Gemm or MatMul with a stored float32 weight of its own")
    bits = _bits(found, settings)
    moments = _moments(index, found, settings, work)
    for number, (name, weighted) in enumerate(found.items()):
        work.progress("weights", number, len(found))
        _quantize(index, weighted, moments[name], largest_integer(bits[name]))
    graph = index.graph
    made = [n for n in graph.node if n.op_type == "DequantizeLinear"]
    others = [n for n in graph.node if n.op_type != "DequantizeLinear"]
    del graph.node[:]
    graph.node.extend([*made, *others])
    quantize_embeddings(GraphIndex(proto), largest_integer(settings.embedding_bits))
    GraphIndex(proto).drop_unread_constants()
    compact(proto)
    target = work.scratch / "weights.onnx"
    save(proto, target)
    return target


def _weighted(index: GraphIndex) -> dict[str, Weighted]:
    """The nodes whose weight nothing else reads, by the weight."""
    found = (as_weighted(index, node) for node in index.graph.node)
    return {
        w.weight: w
        for w in found
        if w is not None and w.kept is None and index.only_reader(w.weight) is w.node
    }


def _bits(found: dict[str, Weighted], settings: QuantizeWeights) -> dict[str, int]:
    """The first and the last layer see raw inputs and make the outputs: they keep more bits."""
    names = list(found)
    edges = {names[0], names[-1]}
    return {n: settings.edge_bits if n in edges else settings.bits for n in names}


def _moments(
    index: GraphIndex, found: dict[str, Weighted], settings: QuantizeWeights, work: Work
) -> dict[str, Moments]:
    if work.calibration is None:
        raise PassRefused("low-bit weights need calibration data")
    layers = {
        name: Layer(node=w.node, shape=tuple(index.initializers[w.weight].dims), axis=w.axis)
        for name, w in found.items()
    }
    read = list(dict.fromkeys(layer.node.input[0] for layer in layers.values()))
    parts = spread(work.calibration, settings.max_samples)
    stream = observe(index.proto, read, parts, tick=partial(work.progress, "inputs"))
    try:
        return gather_moments(layers, stream)
    except FloatingPointError as error:
        raise PassRefused(f"value {error} is not finite on the calibration samples") from error


def _quantize(index: GraphIndex, weighted: Weighted, moments: Moments, largest: int) -> None:
    """Replace one weight, and correct the bias for what that shifts."""
    node = weighted.node
    weight = index.float_constant(weighted.weight)
    layer = Layer(node=node, shape=weight.shape, axis=weighted.axis)
    matrix = layer.matrix(weight)
    hessian = moments.hessian
    scales = mse_scales(matrix, np.diagonal(hessian, axis1=1, axis2=2), largest)
    integers = gptq(matrix, hessian, scales, largest)
    error = matrix - integers * scales[..., None].astype(np.float64)
    _correct_bias(index, weighted, np.einsum("goi,gi->go", error, moments.mean).ravel())
    node.input[1] = _store(index, layer.weight(integers), scales.ravel(), weighted.axis)


def _correct_bias(index: GraphIndex, weighted: Weighted, shift: NDArray[np.float64]) -> None:
    node = weighted.node
    if weighted.bias is not None:
        bias = index.float_constant(weighted.bias).astype(np.float64)
        node.input[2] = index.add_constant("b", (bias + shift).astype(np.float32))
    elif node.op_type == "Conv":
        del node.input[2:]
        node.input.append(index.add_constant("b", shift.astype(np.float32)))


def _store(index: GraphIndex, integers: NDArray[np.int8], scales: Floats, axis: int) -> str:
    twin = index.fresh("d")
    inputs = [index.add_constant("w", integers), index.add_constant("s", scales)]
    index.graph.node.append(helper.make_node("DequantizeLinear", inputs, [twin], axis=axis))
    return twin
