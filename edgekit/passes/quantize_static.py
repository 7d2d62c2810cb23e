"""Static int8 as QDQ: ranges from calibration samples, per-channel weights, int32 biases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from edgekit.data import rows_of
from edgekit.errors import PassRefused
from edgekit.graphs.compact import compact
from edgekit.graphs.index import GraphIndex
from edgekit.graphs.observe import Values, observe
from edgekit.graphs.onnx_file import load, save
from edgekit.graphs.placement import Placement, Weighted, place
from edgekit.graphs.rewrite import prepare
from edgekit.model import Model
from edgekit.passes import Work
from edgekit.passes.affine import Affine, Floats, symmetric_scales, to_int8, unsigned_affine
from edgekit.passes.embeddings import quantize_embeddings
from edgekit.passes.ranges import find_ranges
from edgekit.recipe import QuantizeStatic
from edgekit_agent.records import Samples

# QuantizeLinear has an axis, so per-channel parameters, since opset 13.
_OPSET = 13
_INT32 = 2**31 - 1
# Calibration samples that are read in a row.
_BLOCK = 8
_SMALLEST = np.finfo(np.float32).tiny


def quantize_static(model: Model, settings: QuantizeStatic, work: Work) -> Path:
    """Quantise Conv, Gemm, MatMul and what lies between them to 8 bits.

    Weights are signed, symmetric, per output channel; activations unsigned and per tensor, with
    ranges taken from the calibration samples; biases int32 with the scale input times weight.

    Source: Jacob et al. 2018; Krishnamoorthi 2018 (per-channel weights).

    Raises:
        PassRefused: nothing to quantise, quantised already, or values that are not finite.
    """
    proto = prepare(load(model.path), _OPSET)
    quantize_embeddings(GraphIndex(proto))
    index = GraphIndex(proto)
    placement = place(index)
    if not placement.weighted:
        raise PassRefused("no Conv, Gemm or MatMul with stored float32 weights to quantise")
    parameters = _parameters(proto, placement, settings, work)
    target = work.scratch / "static.onnx"
    save(_Writer(index, placement, parameters).write(), target)
    return target


def _parameters(
    proto: ModelProto, placement: Placement, settings: QuantizeStatic, work: Work
) -> dict[str, Affine]:
    """uint8 parameters of every value, those of moved values being their source's."""
    if work.calibration is None:
        raise PassRefused("static quantisation needs calibration data")
    parts = spread(work.calibration, settings.max_samples)
    roots = list(dict.fromkeys(placement.root(name) for name in placement.values))

    def passes() -> Iterator[Iterable[Values]]:
        for what in ("ranges", "histograms"):
            yield observe(proto, roots, parts, tick=partial(work.progress, what))

    try:
        ranges = find_ranges(passes(), settings)
    except FloatingPointError as error:
        raise PassRefused(f"value {error} is not finite on the calibration samples") from error
    # A value that never has an entry has no range; any parameters will do.
    affine = {name: unsigned_affine(*ranges.get(name, (0.0, 0.0))) for name in roots}
    return {name: affine[placement.root(name)] for name in placement.values}


def spread(samples: Samples, count: int) -> list[Samples]:
    """``count`` samples in blocks from all over the split, which may be sorted by class."""
    total = samples.columns[0].shape[0]
    if total <= count:
        return [samples]
    sizes = [min(_BLOCK, count - start) for start in range(0, count, _BLOCK)]
    starts = np.linspace(0, total - sizes[0], len(sizes)).astype(int)
    return [rows_of(samples, int(s), size) for s, size in zip(starts, sizes, strict=True)]


class _Writer:
    """Puts the QDQ nodes into the graph."""

    def __init__(
        self, index: GraphIndex, placement: Placement, parameters: dict[str, Affine]
    ) -> None:
        self.index = index
        self.placement = placement
        self.parameters = parameters
        self.dequantized: dict[str, str] = {}  # value -> its dequantised twin
        self.weights: dict[tuple[str, int], tuple[str, Floats]] = {}
        self.constants: dict[tuple[str, bytes], str] = {}
        self.nodes: list[NodeProto] = []

    def write(self) -> ModelProto:
        graph = self.index.graph
        by_output = {w.node.output[0]: w for w in self.placement.weighted}
        for value in graph.input:
            self._quantize(value.name)
        for node in list(graph.node):
            self._read_dequantized(node)
            if weighted := by_output.get(node.output[0]):
                self._quantize_weight(weighted)
            self.nodes.append(node)
            for name in list(node.output):
                self._quantize(name, maker=node)
        del graph.node[:]
        graph.node.extend(self.nodes)
        self.index.drop_unread_constants()
        compact(self.index.proto)
        return self.index.proto

    def _quantize(self, name: str, maker: NodeProto | None = None) -> None:
        if name not in self.parameters:
            return
        source, twin = name, self.index.fresh(f"{name}_d")
        if name in self.index.outputs and maker is not None:
            # The graph's output keeps its name: the dequantised value takes it.
            source, twin = self.index.fresh(f"{name}_f"), name
            maker.output[list(maker.output).index(name)] = source
        integer = self.index.fresh(f"{name}_q")
        affine = self.parameters[name]
        scale = self._constant("s", np.float32(affine.scale))
        zero = self._constant("z", np.uint8(affine.zero_point))
        self.nodes.append(helper.make_node("QuantizeLinear", [source, scale, zero], [integer]))
        self.nodes.append(helper.make_node("DequantizeLinear", [integer, scale, zero], [twin]))
        self.dequantized[name] = twin

    def _read_dequantized(self, node: NodeProto) -> None:
        for position, name in enumerate(node.input):
            node.input[position] = self.dequantized.get(name, name)

    def _quantize_weight(self, weighted: Weighted) -> None:
        node = weighted.node
        source = self._affine_of_input(node.input[0])
        bias = None if weighted.bias is None else self.index.float_constant(weighted.bias)
        integer, scales = self._stored_weight(weighted, bias, float(source.scale))
        # onnxruntime fuses a Gemm only where the zero points of the weight are spelled out.
        node.input[1] = self._dequantize(
            integer, scales, weighted.axis, spell_zeros=node.op_type == "Gemm"
        )
        if bias is not None:
            # Where the product is too small for a float, so is the bias (see _stored_weight).
            bias_scales = np.maximum(scales * source.scale, _SMALLEST).astype(np.float32)
            integers = np.clip(np.rint(bias / bias_scales.astype(np.float64)), -_INT32, _INT32)
            stored = self.index.add_constant("b", integers.astype(np.int32))
            node.input[2] = self._dequantize(stored, bias_scales, 0)

    def _affine_of_input(self, twin: str) -> Affine:
        name = next(name for name, other in self.dequantized.items() if other == twin)
        return self.parameters[name]

    def _stored_weight(
        self, weighted: Weighted, bias: Floats | None, input_scale: float
    ) -> tuple[str, Floats]:
        """The int8 weight and its scales; one that several nodes share is stored once."""
        key = (weighted.weight, weighted.axis)
        if key not in self.weights or bias is not None:
            weight = self.index.float_constant(weighted.weight)
            scales = symmetric_scales(weight, weighted.axis)
            if bias is not None:
                # A bias that is huge against the weights must still fit 32 bits.
                least = np.abs(bias.astype(np.float64)) / (input_scale * _INT32)
                scales = np.maximum(scales, least * 1.001).astype(np.float32)
            integers = to_int8(weight, scales, weighted.axis)
            name = self._constant("w", integers)
            self.weights[key] = (name, scales)
        return self.weights[key]

    def _dequantize(
        self, integer: str, scales: Floats, axis: int, *, spell_zeros: bool = False
    ) -> str:
        twin = self.index.fresh("d")
        inputs = [integer, self._constant("s", scales)]
        # Left out, a zero point is 0 of the integer's type (ONNX DequantizeLinear).
        if spell_zeros:
            inputs.append(self._constant("z", np.zeros(scales.shape, np.int8)))
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [twin], axis=axis))
        return twin

    def _constant(self, stem: str, value: NDArray[np.generic] | np.generic) -> str:
        """An initialiser with this value; equal ones are stored once."""
        array = np.asarray(value)
        key = (f"{array.dtype}{array.shape}", array.tobytes())
        if key not in self.constants:
            self.constants[key] = self.index.add_constant(stem, array)
        return self.constants[key]
