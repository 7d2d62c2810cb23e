"""The stored weights of a graph that few bits may take the place of: layers and embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from edgekit.graphs.index import GraphIndex
from edgekit.graphs.observe import observe
from edgekit.graphs.placement import Weighted, as_product, as_weighted
from edgekit.passes.affine import Floats
from edgekit.passes.descent import descend
from edgekit.passes.embeddings import embeddings
from edgekit.passes.gptq import gptq
from edgekit.passes.grids import Doubles, Grid
from edgekit.passes.layer_inputs import Layer, Moments, gather_moments
from edgekit.passes.weight_readers import RecurrentWeight, WeightReader
from edgekit.progress import Tick
from edgekit_agent.samples import Samples

N = TypeVar("N", bound=np.generic)

# The operator that reads an embedding's rows.
_EMBEDDING = "Gather"
# Operators that take a bias, stored or not.
_BIASED = ("Conv", "ConvTranspose", "Gemm")


@dataclass(frozen=True, kw_only=True)
class StoredLayer:
    """A stored weight in float32, with what its layer reads.

    ``weighted`` and ``moments`` are ``None`` for an embedding, which reads indices. ``readers``
    are given instead of ``weighted`` where the weight is of a recurrent layer or of an inner
    graph, or where several nodes read it; ``moments`` then are ``None`` where nothing is known of
    what they read.
    """

    name: str
    weight: Floats
    weighted: Weighted | None = None
    layer: Layer | None = None
    recurrent: RecurrentWeight | None = None
    moments: Moments | None = None
    readers: tuple[WeightReader, ...] = ()

    @property
    def matrix(self) -> Doubles:
        """The weight as [G, O, I]; made anew each time, as all layers together are large."""
        form = self.layer or self.recurrent
        if form is None:
            return self.weight.astype(np.float64)[np.newaxis]
        return form.matrix(self.weight)

    @property
    def channels(self) -> int:
        """Output channels, each of which has a scale of its own."""
        groups, outputs, _ = self.matrix.shape
        return int(groups * outputs)

    @property
    def op(self) -> str:
        """The operator that reads the weight."""
        if self.readers:
            return str(self.readers[0].node.op_type)
        return self.weighted.node.op_type if self.weighted else _EMBEDDING

    @property
    def is_embedding(self) -> bool:
        """Whether rows are gathered from it."""
        return self.layer is None and self.recurrent is None

    @property
    def is_widened(self) -> bool:
        """Whether the runtime has no kernel for few bits of it, and widens it at load."""
        batched = self.layer is not None and self.layer.contraction is not None
        return bool(self.readers) or batched

    @property
    def power(self) -> Doubles:
        """Mean square of each input, [G, I]; one where it is not known, as of an embedding."""
        if self.moments is None:
            groups, _, inputs = self.matrix.shape
            return np.ones((groups, inputs))
        return self.moments.power

    def quantized(self, grid: Grid) -> NDArray[np.int8]:
        """Integers [G, O, I] on a grid, each one's error carried by those that follow."""
        if self.moments is None:
            return grid.rounded(self.matrix).astype(np.int8)
        return gptq(self.matrix, self.moments.hessian, grid)

    def fitted(self, grid: Grid) -> tuple[NDArray[np.int8], Grid]:
        """Integers as of ``quantized``, brought still closer, and the grid with scales for them.

        Those of recurrent layers stay as they are: what their states come to depends on them.
        """
        integers = self.quantized(grid)
        if self.moments is None or self.recurrent is not None:
            return integers, grid
        return descend(self.matrix, self.moments.hessian, grid, integers)

    def error(self, integers: NDArray[np.int8], grid: Grid) -> Doubles:
        """What the integers leave out of the weight, [G, O, I]."""
        matrix = self.matrix
        return matrix - integers * grid.steps(matrix.shape[-1])

    def shift(self, error: Doubles) -> Doubles:
        """What an error of the weight takes from the mean of each output channel."""
        if self.moments is None:
            return np.zeros(0)
        shift: Doubles = np.einsum("goi,gi->go", error, self.moments.mean).ravel()
        return shift

    def tensor(self, matrix: NDArray[N]) -> NDArray[N]:
        """A matrix in the shape that the weight is stored in."""
        form = self.layer or self.recurrent
        return form.weight(matrix) if form else matrix[0]


def stored_layers(
    index: GraphIndex,
    parts: Sequence[Samples],
    tick: Tick,
    *,
    every: bool = False,
    batched: int | None = None,
) -> list[StoredLayer]:
    """Every layer and embedding whose stored weight nothing else reads, in the graph's order.

    Args:
        index: the graph.
        parts: samples to run for what the layers read.
        tick: told how many are done.
        every: take products of every kind (``as_product``), and embeddings that are an output
            layer as well, as one table.
        batched: take products of other ranks and sides as well from so many entries on.

    Raises:
        FloatingPointError: names a value that is not finite on the samples.
    """
    layers, found = {}, _weighted(index, _view(every, batched))
    for name, weighted in found.items():
        layers[name] = Layer.of(index, weighted)
    read = list(dict.fromkeys(layer.read for layer in layers.values()))
    stream = observe(index.proto, read, parts, tick=lambda n, of: tick("inputs", n, of))
    moments = gather_moments(layers, stream) if layers else {}
    tables = [
        StoredLayer(name=name, weight=index.float_constant(name))
        for name in embeddings(index)
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
    """Let what layers read on further samples count as well; arguments as of ``stored_layers``."""
    more = {
        layer.name: layer.moments for layer in stored_layers(index, parts, tick, batched=batched)
    }
    merged: list[Moments] = []  # layers with the same inputs share them
    for layer in layers:
        mine, other = layer.moments, more.get(layer.name)
        if mine and other and layer.weighted and not any(mine is each for each in merged):
            mine.merge(other)
            merged.append(mine)


def _view(every: bool, batched: int | None) -> Callable[[GraphIndex, NodeProto], Weighted | None]:
    """The function that tells which nodes count as layers."""
    if every:
        return as_product

    def view(index: GraphIndex, node: NodeProto) -> Weighted | None:
        found = as_weighted(index, node)
        if found is not None or batched is None:
            return found
        found = as_product(index, node)
        if found is None or found.contraction is None or not found.contraction.linear:
            return None
        large = math.prod(index.initializers[found.weight].dims) >= batched
        return found if large else None

    return view


def _weighted(
    index: GraphIndex, view: Callable[[GraphIndex, NodeProto], Weighted | None]
) -> dict[str, Weighted]:
    """The nodes whose weight nothing else reads, by the weight."""
    found = (view(index, node) for node in index.graph.node)
    return {
        w.weight: w
        for w in found
        if w is not None and w.kept is None and index.only_reader(w.weight) is w.node
    }


def bias_of(index: GraphIndex, weighted: Weighted) -> tuple[NodeProto, int] | None:
    """Where the stored bias of a layer is read: by the layer, or by the Add behind a product.

    Behind a convolution a constant of one axis lies along the width, not the channels.
    """
    node = weighted.node
    if weighted.bias is not None:
        return node, 2
    if weighted.contraction is not None and not weighted.contraction.linear:
        return _recurrent_bias(index, node)
    behind = index.only_reader(node.output[0])
    if node.op_type in ("Conv", "ConvTranspose") or behind is None or behind.op_type != "Add":
        return None
    dims = tuple(index.initializers[weighted.weight].dims)
    sizes: tuple[int, ...] | None = (dims[weighted.axis],)
    if weighted.contraction is not None:
        sizes = weighted.contraction.bias_shape(dims)
    for place, name in enumerate(behind.input):
        tensor = index.initializers.get(name)
        if tensor is not None and tuple(tensor.dims) == sizes:
            return behind, place
    return None


def _recurrent_bias(index: GraphIndex, node: NodeProto) -> tuple[NodeProto, int] | None:
    """Of LSTM, GRU and RNN: [directions, gates of what is read and of the state]."""
    stored = len(node.input) > 3 and node.input[3] in index.initializers
    return (node, 3) if stored else None


def shifted_bias(index: GraphIndex, layer: StoredLayer, shift: Doubles) -> Callable[[], None]:
    """Give a layer's bias what its weight lost on average; other readers of it keep theirs.

    Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
    Correction", here with the means of calibration samples.

    Returns:
        What undoes it, if nothing else was changed since.
    """
    if layer.weighted is None or not shift.any():
        return _nothing
    found = bias_of(index, layer.weighted)
    if found is None and layer.weighted.node.op_type not in _BIASED:
        return _nothing
    reader, place = found or (layer.weighted.node, 2)
    before = list(reader.input)
    bias = 0.0 if found is None else index.float_constant(before[place]).astype(np.float64)
    fresh = index.add_constant("b", (bias + _shaped(shift, np.shape(bias))).astype(np.float32))
    del reader.input[:]
    reader.input.extend([*before[:place], fresh, *before[place + 1 :]])

    def undo() -> None:
        del reader.input[:]
        reader.input.extend(before)
        index.drop_last_constant()

    return undo


def _shaped(shift: Doubles, shape: tuple[int, ...]) -> Doubles:
    """What is added to each output channel, in the shape of a bias; nothing to a state's half."""
    if math.prod(shape) == 2 * shift.size and len(shape) == 2:
        halved = shift.reshape(shape[0], -1)
        return np.concatenate([halved, np.zeros_like(halved)], axis=1)
    return shift.reshape(shape) if shape else shift


def _nothing() -> None:
    return


def replaced(index: GraphIndex, name: str, value: NDArray[np.generic]) -> bytes:
    """Store another value under a name; returns what ``restored`` takes."""
    tensor = index.initializers[name]
    before: bytes = tensor.SerializeToString()
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
    return before


def restored(index: GraphIndex, name: str, before: bytes) -> None:
    """Undo ``replaced``."""
    index.initializers[name].ParseFromString(before)
