"""Stored weights of a graph that can be compressed: layers and embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from edgekit.compression.layers.weight_readers import RecurrentWeight, WeightReader
from edgekit.compression.numerics import Doubles
from edgekit.compression.quantization.affine import Floats
from edgekit.compression.quantization.embeddings import find_embeddings
from edgekit.compression.quantization.few_bits.coordinate_descent import descend
from edgekit.compression.quantization.few_bits.gptq import quantize_gptq
from edgekit.compression.quantization.few_bits.grids import Grid
from edgekit.compression.reconstruction.matrix_layers import Layer
from edgekit.compression.reconstruction.moments import Moments
from edgekit.compression.reconstruction.observed_moments import gather_moments
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.operators import BIASED_OPS
from edgekit.onnx_graph.qdq_placement import WeightedNode, match_product, match_weighted_node
from edgekit.onnx_graph.runs.activations import observe
from edgekit.progress import Tick
from edgekit_agent.samples import Samples

N = TypeVar("N", bound=np.generic)

# Operator that reads an embedding's rows.
_EMBEDDING = "Gather"


@dataclass(frozen=True, kw_only=True)
class StoredLayer:
    """Stored weight in float32, with the second moments of the layer's inputs.

    ``weighted`` and ``moments`` are ``None`` for an embedding, which reads indices. ``readers``
    are given instead of ``weighted`` where the weight belongs to a recurrent layer or to an inner
    graph, or where several nodes read it; ``moments`` is then ``None`` where their inputs are
    unknown.
    """

    name: str
    weight: Floats
    weighted: WeightedNode | None = None
    layer: Layer | None = None
    recurrent: RecurrentWeight | None = None
    moments: Moments | None = None
    readers: tuple[WeightReader, ...] = ()

    @property
    def matrix(self) -> Doubles:
        """Return the weight as [G, O, I]; not cached, as all layers together are large."""
        form = self.layer or self.recurrent
        if form is None:
            return self.weight.astype(np.float64)[np.newaxis]
        return form.matrix(self.weight)

    @property
    def channels(self) -> int:
        """Return the number of output channels, each of which has its own scale."""
        groups, outputs, _ = self.matrix.shape
        return int(groups * outputs)

    @property
    def op(self) -> str:
        """Return the operator type that reads the weight."""
        if self.readers:
            return str(self.readers[0].node.op_type)
        return self.weighted.node.op_type if self.weighted else _EMBEDDING

    @property
    def is_embedding(self) -> bool:
        """Return whether rows are gathered from the weight."""
        return self.layer is None and self.recurrent is None

    @property
    def is_widened(self) -> bool:
        """Return whether the runtime widens the weight at load, as it has no few-bit kernel."""
        batched = self.layer is not None and self.layer.contraction is not None
        return bool(self.readers) or batched

    @property
    def power(self) -> Doubles:
        """Return the mean square of each input, [G, I]; ones where it is unknown (embeddings)."""
        if self.moments is None:
            groups, _, inputs = self.matrix.shape
            return np.ones((groups, inputs))
        return self.moments.power

    def quantize(self, grid: Grid) -> NDArray[np.int8]:
        """Quantize the weight with GPTQ to integers [G, O, I]; plain rounding without moments."""
        if self.moments is None:
            return grid.round_weights(self.matrix).astype(np.int8)
        return quantize_gptq(self.matrix, self.moments.hessian, grid)

    def quantize_and_descend(self, grid: Grid) -> tuple[NDArray[np.int8], Grid]:
        """Quantize the weight, improve its integers by coordinate descent, and fit the scales.

        Integers of recurrent layers stay as GPTQ leaves them, because the states depend on them.

        Returns:
            The integers [G, O, I], and the grid with the fitted scales.
        """
        integers = self.quantize(grid)
        if self.moments is None or self.recurrent is not None:
            return integers, grid
        return descend(self.matrix, self.moments.hessian, grid, integers)

    def error(self, integers: NDArray[np.int8], grid: Grid) -> Doubles:
        """Return the quantization error of the weight, [G, O, I]."""
        matrix = self.matrix
        return matrix - integers * grid.steps(matrix.shape[-1])

    def shift(self, error: Doubles) -> Doubles:
        """Return the mean output of each channel that an error of the weight removes."""
        if self.moments is None:
            return np.zeros(0)
        shift: Doubles = np.einsum("goi,gi->go", error, self.moments.mean).ravel()
        return shift

    def tensor(self, matrix: NDArray[N]) -> NDArray[N]:
        """Return a matrix in the shape that the weight is stored in."""
        form = self.layer or self.recurrent
        return form.to_weight(matrix) if form else matrix[0]


def collect_stored_layers(
    index: GraphIndex,
    parts: Sequence[Samples],
    tick: Tick,
    *,
    every: bool = False,
    batched: int | None = None,
) -> list[StoredLayer]:
    """Collect the layers and embeddings with a stored weight of their own.

    Embeddings come first, then layers in the graph's order.

    Args:
        index: the graph.
        parts: samples to run for the inputs of the layers.
        tick: called with the number of samples done.
        every: take products of every kind (``match_product``), and a table that is an embedding and
            an output layer as one embedding.
        batched: least number of entries from which products of other ranks and sides are taken;
            ``None`` = none of them.

    Raises:
        FloatingPointError: names a value that is not finite on the samples.
    """
    layers, found = {}, _find_weighted(index, _get_layer_filter(every, batched))
    for name, weighted in found.items():
        layers[name] = Layer.from_weighted(index, weighted)
    read = list(dict.fromkeys(layer.read for layer in layers.values()))
    stream = observe(index.proto, read, parts, tick=lambda n, of: tick("inputs", n, of))
    moments = gather_moments(layers, stream) if layers else {}
    tables = [
        StoredLayer(name=name, weight=index.float_constant(name))
        for name in find_embeddings(index)
        if every or all(node.op_type == "Gather" for node in index.readers[name])
    ]
    return tables + [
        StoredLayer(
            name=name,
            weight=index.float_constant(name),
            weighted=found[name],
            layer=layer,
            moments=moments[name],
        )
        for name, layer in layers.items()
    ]


def add_samples(
    index: GraphIndex,
    layers: Sequence[StoredLayer],
    parts: Sequence[Samples],
    tick: Tick,
    *,
    batched: int | None = None,
) -> None:
    """Add samples to the second moments of layers; arguments as for ``collect_stored_layers``."""
    more = {
        layer.name: layer.moments
        for layer in collect_stored_layers(index, parts, tick, batched=batched)
    }
    merged: list[Moments] = []  # layers with the same inputs share moments
    for layer in layers:
        mine, other = layer.moments, more.get(layer.name)
        if mine and other and layer.weighted and not any(mine is each for each in merged):
            mine.merge(other)
            merged.append(mine)


def _get_layer_filter(
    every: bool, batched: int | None
) -> Callable[[GraphIndex, NodeProto], WeightedNode | None]:
    """Return a function that finds the stored weight of a layer, and ``None`` for other nodes."""
    if every:
        return match_product

    def view(index: GraphIndex, node: NodeProto) -> WeightedNode | None:
        found = match_weighted_node(index, node)
        if found is not None or batched is None:
            return found
        found = match_product(index, node)
        if found is None or found.contraction is None or not found.contraction.linear:
            return None
        large = math.prod(index.initializers[found.weight].dims) >= batched
        return found if large else None

    return view


def _find_weighted(
    index: GraphIndex, view: Callable[[GraphIndex, NodeProto], WeightedNode | None]
) -> dict[str, WeightedNode]:
    """Find the nodes whose weight no other node reads, by the name of the weight."""
    found = (view(index, node) for node in index.graph.node)
    return {
        w.weight: w
        for w in found
        if w is not None and w.qdq_weight is None and index.only_reader(w.weight) is w.node
    }


def find_bias(index: GraphIndex, weighted: WeightedNode) -> tuple[NodeProto, int] | None:
    """Find the node and input that hold a layer's stored bias: the layer, or the Add behind it.

    An Add behind a convolution does not count: a constant of one axis lies along the width, not
    along the channels.
    """
    node = weighted.node
    if weighted.bias is not None:
        return node, 2
    if weighted.contraction is not None and not weighted.contraction.linear:
        return _find_recurrent_bias(index, node)
    behind = index.only_reader(node.output[0])
    if node.op_type in ("Conv", "ConvTranspose") or behind is None or behind.op_type != "Add":
        return None
    dims = tuple(index.initializers[weighted.weight].dims)
    sizes: tuple[int, ...] | None = (dims[weighted.axis],)
    if weighted.contraction is not None:
        sizes = weighted.contraction.get_bias_shape(dims)
    for place, name in enumerate(behind.input):
        tensor = index.initializers.get(name)
        if tensor is not None and tuple(tensor.dims) == sizes:
            return behind, place
    return None


def _find_recurrent_bias(index: GraphIndex, node: NodeProto) -> tuple[NodeProto, int] | None:
    """Find the bias of LSTM, GRU or RNN: [directions, gates of the input and of the state]."""
    stored = len(node.input) > 3 and node.input[3] in index.initializers
    return (node, 3) if stored else None


def shift_bias(index: GraphIndex, layer: StoredLayer, shift: Doubles) -> Callable[[], None]:
    """Add a shift to a layer's bias, in place; other readers of the bias keep theirs.

    Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
    Correction", here with the means of calibration samples.

    Args:
        index: the graph.
        layer: the layer.
        shift: mean error of each output channel; empty where unknown.

    Returns:
        A function that undoes the change, as long as nothing else was changed since.
    """
    if layer.weighted is None or not shift.any():
        return _do_nothing
    found = find_bias(index, layer.weighted)
    if found is None and layer.weighted.node.op_type not in BIASED_OPS:
        return _do_nothing
    reader, place = found or (layer.weighted.node, 2)
    before = list(reader.input)
    bias = 0.0 if found is None else index.float_constant(before[place]).astype(np.float64)
    fresh = index.add_constant(
        "b", (bias + _reshape_shift(shift, np.shape(bias))).astype(np.float32)
    )
    del reader.input[:]
    reader.input.extend([*before[:place], fresh, *before[place + 1 :]])

    def undo() -> None:
        del reader.input[:]
        reader.input.extend(before)
        index.drop_last_constant()

    return undo


def _reshape_shift(shift: Doubles, shape: tuple[int, ...]) -> Doubles:
    """Reshape a shift of output channels to a bias; the half of a recurrent state gets zeros."""
    if math.prod(shape) == 2 * shift.size and len(shape) == 2:
        halved = shift.reshape(shape[0], -1)
        return np.concatenate([halved, np.zeros_like(halved)], axis=1)
    return shift.reshape(shape) if shape else shift


def _do_nothing() -> None:
    return


def replace_constant(index: GraphIndex, name: str, value: NDArray[np.generic]) -> bytes:
    """Replace the value of a constant; return the state that ``restore_constant`` needs.

    Args:
        index: the graph.
        name: name of the constant.
        value: its new value, stored as float32.
    """
    tensor = index.initializers[name]
    before: bytes = tensor.SerializeToString()
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
    return before


def restore_constant(index: GraphIndex, name: str, before: bytes) -> None:
    """Undo ``replace_constant``.

    Args:
        index: the graph.
        name: name of the constant.
        before: state that ``replace_constant`` returned.
    """
    index.initializers[name].ParseFromString(before)
