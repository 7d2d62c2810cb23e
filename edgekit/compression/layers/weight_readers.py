"""Readers of stored weights: recurrent layers, and products in the main or an inner graph.

A recurrent layer multiplies its input by W and its state by R, each [directions, gate rows,
inputs]: one matrix for each direction, like one for each group of a convolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from edgekit.compression.reconstruction.matrix_layers import Layer
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import iter_graphs
from edgekit.onnx_graph.operators import RECURRENT_OPS, is_standard
from edgekit.onnx_graph.qdq_placement import match_weighted_node

N = TypeVar("N", bound=np.generic)

# Smaller weights gain nothing.
LEAST_ENTRIES = 1024
OF_INPUT, OF_STATE = 1, 2  # positions of W and R among the inputs of a recurrent layer


@dataclass(frozen=True, kw_only=True)
class WeightReader:
    """Node that multiplies by a stored weight.

    Args:
        node: the node.
        input: index of the weight among the inputs of the node.
        graph: number of its graph, in the order of ``GraphIndex.inner``; 0 is the main graph.
        position: index of the node in its graph.
        axis: axis of the output channels of the weight, or of the gate rows of a recurrent layer.
    """

    node: NodeProto
    input: int
    graph: int
    position: int
    axis: int

    @property
    def is_recurrent(self) -> bool:
        """Return whether the node is an LSTM, GRU or RNN."""
        return self.node.op_type in RECURRENT_OPS

    def layer(self, shape: tuple[int, ...]) -> Layer:
        """Return the product as a layer with a weight of the given shape."""
        return Layer(node=self.node, shape=shape, axis=self.axis)


@dataclass(frozen=True, kw_only=True)
class RecurrentWeight:
    """W or R of a recurrent layer as one matrix per direction; ``shape`` is that of the weight."""

    shape: tuple[int, ...]
    axis: int = 1

    def matrix(self, weight: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return the weight as float64 [directions, gate rows, inputs]."""
        return weight.astype(np.float64)

    def to_weight(self, matrix: NDArray[N]) -> NDArray[N]:
        """Return the weight of a matrix [directions, gate rows, inputs]."""
        return np.ascontiguousarray(matrix)


def find_weight_readers(proto: ModelProto) -> dict[str, list[WeightReader]]:
    """Find the nodes that multiply by each stored weight, by its name, all nodes of one kind.

    Weights with any other reader are skipped, and weights of a single product of the main graph.
    """
    main = GraphIndex(proto)
    found: dict[str, list[WeightReader]] = {}
    for place, index in enumerate((main, *main.inner())):
        for reader in _iter_readers(index, place):
            name = reader.node.input[reader.input]
            found.setdefault(name, []).append(reader)
    counts = _count_reads(proto)
    return {
        name: readers
        for name, readers in found.items()
        if len(readers) == counts[name]
        and len({(r.node.op_type in RECURRENT_OPS, r.input, r.axis) for r in readers}) == 1
        and not _is_single_product(readers)
        and _is_large(main, name)
    }


def _is_single_product(readers: Sequence[WeightReader]) -> bool:
    return len(readers) == 1 and readers[0].graph == 0 and not readers[0].is_recurrent


def _iter_readers(index: GraphIndex, place: int) -> Iterator[WeightReader]:
    for position, node in enumerate(index.graph.node):
        if not is_standard(node):
            continue
        reader = partial(WeightReader, node=node, graph=place, position=position)
        if node.op_type in RECURRENT_OPS:
            for number in (OF_INPUT, OF_STATE):
                if node.input[number] in index.initializers:
                    yield WeightReader(
                        node=node, input=number, graph=place, position=position, axis=1
                    )
            continue
        weighted = match_weighted_node(index, node)
        if weighted is not None and weighted.qdq_weight is None:
            yield reader(input=1, axis=weighted.axis)


def _count_reads(proto: ModelProto) -> dict[str, int]:
    counts: dict[str, int] = {}
    for graph in iter_graphs(proto.graph):
        read = [name for node in graph.node for name in node.input]
        for name in [*read, *(value.name for value in graph.output)]:
            counts[name] = counts.get(name, 0) + 1
    return counts


def _is_large(main: GraphIndex, name: str) -> bool:
    tensor = main.initializers[name]
    large = math.prod(tensor.dims) >= LEAST_ENTRIES
    return bool(large and tensor.data_type == TensorProto.FLOAT and main.is_finite(name))
