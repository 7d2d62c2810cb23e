"""Weights without an integer kernel: stored as int8 or float16, and widened to float at load."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgekit.compression.numerics import TINY
from edgekit.compression.quantization.affine import LARGEST
from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.io import iter_graphs
from edgekit.onnx_graph.operators import RECURRENT_OPS, is_standard
from edgekit.onnx_graph.rewrites.tensor_products import describe_contraction

# Smaller weights take no more bytes than the nodes that would restore them.
LEAST_STORED = 1024
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}

IsHandled = Callable[[GraphIndex, NodeProto], bool]


def store_in_8_bits(
    proto: ModelProto,
    is_handled: IsHandled,
    largest: int = LARGEST[8],
    *,
    only: Collection[str] | None = None,
) -> int:
    """Store the weights of LSTM, GRU, RNN, products and convolutions as int8, in place.

    All entries that are summed up together share a scale; Cast and Mul restore the weight.
    onnxruntime folds the two when it loads the model, so that inference is unchanged. Weights of
    inner graphs are stored as well.

    Args:
        proto: the model, its weights constants of the main graph.
        is_handled: whether another method will quantize the weight of a node of a graph.
        largest: magnitude of the largest integer.
        only: names of the weights to store; ``None`` = all.

    Returns:
        The number of stored weights.
    """
    main = GraphIndex(proto)
    readers: dict[str, list[tuple[NodeProto, int]]] = {}
    summed: dict[str, tuple[int, ...]] = {}
    for index in (main, *main.inner()):
        for node in index.graph.node:
            if is_handled(index, node):
                continue
            for position, name in enumerate(node.input):
                if not _is_large(index, name) or not (only is None or name in only):
                    continue
                readers.setdefault(name, []).append((node, position))
                rank = len(index.initializers[name].dims)
                if (axes := _find_summed_axes(index, node, position, rank)) is not None:
                    summed.setdefault(name, axes)
    stored = [name for name in summed if main.is_finite(name) and name not in main.outputs]
    nodes = [
        node for name in stored for node in _iter_restoring_nodes(main, name, summed[name], largest)
    ]
    for name, dequantized in zip(stored, _find_chain_outputs(nodes), strict=True):
        for node, position in readers[name]:
            node.input[position] = dequantized
    main.replace_nodes([*nodes, *main.graph.node])
    GraphIndex(proto).drop_unread_constants()
    return len(stored)


def store_in_16_bits(proto: ModelProto, names: Collection[str]) -> int:
    """Store weights as float16, in place; a Cast, which onnxruntime folds, widens them at load.

    Weights that float16 cannot hold stay unchanged.

    Args:
        proto: the model, its weights constants of the main graph.
        names: names of float32 constants.

    Returns:
        The number of stored weights.
    """
    main = GraphIndex(proto)
    widened: dict[str, str] = {}
    nodes: list[NodeProto] = []
    for name in sorted(set(names) - main.outputs):
        with np.errstate(over="ignore"):
            narrow = main.float_constant(name).astype(np.float16)
        if np.isfinite(narrow).all():
            widened[name] = main.fresh("d")
            stored = main.add_constant("w", narrow)
            nodes.append(helper.make_node("Cast", [stored], [widened[name]], to=TensorProto.FLOAT))
    for graph in iter_graphs(proto.graph):
        for node in graph.node:
            for position, name in enumerate(node.input):
                node.input[position] = widened.get(name, name)
    main.replace_nodes([*nodes, *main.graph.node])
    GraphIndex(proto).drop_unread_constants()
    return len(widened)


def _is_large(index: GraphIndex, name: str) -> bool:
    tensor = index.initializers.get(name)
    if tensor is None or tensor.data_type not in _FLOATS or len(tensor.dims) < 2:
        return False
    return bool(math.prod(tensor.dims) >= LEAST_STORED)


def _find_summed_axes(
    index: GraphIndex, node: NodeProto, position: int, rank: int
) -> tuple[int, ...] | None:
    """Return the axes over which a node sums products of a weight; ``None`` for other inputs."""
    if not is_standard(node):
        return None
    if node.op_type == "Einsum":
        found = describe_contraction(index, node)
        return found.inputs if found is not None and found.weight_position == position else None
    if node.op_type == "MatMul":
        return ((rank - 1,) if position == 0 else (rank - 2,)) if rank >= 2 else None
    if node.op_type == "Gemm" and position < 2:
        turned = bool(read_attribute(node, ("transA", "transB")[position], 0))
        return (int(turned == (position == 1)),)
    if node.op_type == "Conv" and position == 1:
        return tuple(range(1, rank))
    if node.op_type == "ConvTranspose" and position == 1:
        return (0, *range(2, rank))
    if node.op_type in RECURRENT_OPS and position in (1, 2):
        return (rank - 1,)
    if (
        node.op_type == "Gather"
        and position == 0
        and rank > 2
        and read_attribute(node, "axis", 0) == 0
    ):
        return (rank - 2,) if _is_second_factor(index, node.output[0]) else (rank - 1,)
    return None


def _is_second_factor(index: GraphIndex, name: str) -> bool:
    """Return whether a gathered value is the second factor of a MatMul."""
    return any(n.op_type == "MatMul" and n.input[1] == name for n in index.readers[name])


def _iter_restoring_nodes(
    index: GraphIndex, name: str, axes: tuple[int, ...], largest: int
) -> Iterator[NodeProto]:
    tensor = index.initializers[name]
    integers, scales = _quantize_symmetric(index.float_constant(name), axes, largest)
    inputs = [index.add_constant("w", integers), index.add_constant("ws", scales)]
    real, dequantized = index.fresh("c"), index.fresh("d")
    yield helper.make_node("Cast", inputs[:1], [real], to=TensorProto.FLOAT)
    yield helper.make_node("Mul", [real, inputs[1]], [dequantized])
    if tensor.data_type != TensorProto.FLOAT:
        narrow = index.fresh("d")
        yield helper.make_node("Cast", [dequantized], [narrow], to=tensor.data_type)


def _find_chain_outputs(nodes: list[NodeProto]) -> list[str]:
    """Return the final output of each chain of Cast, Mul and perhaps another Cast."""
    read = {name for node in nodes for name in node.input}
    return [node.output[0] for node in nodes if node.output[0] not in read]


def _quantize_symmetric(
    weight: NDArray[np.float32], axes: tuple[int, ...], largest: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    peak = np.abs(weight).max(axis=axes, keepdims=True)
    scales = np.where(peak < TINY, 1.0, peak / largest).astype(np.float32)
    integers = np.clip(np.rint(weight / scales), -largest, largest).astype(np.int8)
    return integers, scales
