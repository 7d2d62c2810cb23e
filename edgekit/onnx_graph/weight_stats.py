"""Storage statistics of an ONNX file: bytes by type, float weights, zeros, non-finite values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import (
    find_external_files,
    iter_graphs,
    iter_tensors,
    load,
    load_structure,
)
from edgekit.onnx_graph.qdq_placement import is_embedding_table, match_product
from edgekit.onnx_graph.rewrites.half_precision import (
    compute_in_float32,
    computes_half,
    widen_weights,
)

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
# Smaller tables are no embeddings.
_LEAST_TABLE = 4096
_BITS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2}


@dataclass(frozen=True, kw_only=True)
class StorageStats:
    """Storage statistics of one file.

    ``weight_bytes`` counts float tensors of two or more axes that exactly one node reads.
    ``shared_bytes`` counts those that are an output as well, or that several nodes or an inner
    graph read, so that a pass may have to keep them. ``zeros`` is the part of zeros in the float32
    weights of Conv, Gemm, MatMul and large embeddings that have no other reader. ``nan`` and
    ``infinite`` name the first stored tensor with such a value. ``computes_in_half`` is true if
    operators other than casts compute in float16, whose rounding depends on the runtime.
    """

    file_bytes: int
    nodes: int
    bytes_of: dict[str, int]
    weight_bytes: int
    shared_bytes: int
    zeros: float
    nan: str | None
    infinite: str | None
    computes_in_half: bool = False


def read_storage_stats(path: Path) -> StorageStats:
    """Read the storage statistics of an ONNX file and its external data.

    Raises:
        UserError: the file does not load.
    """
    beside = find_external_files(path, load_structure(path))
    proto = load(path)
    bytes_of: Counter[str] = Counter()
    nans, infinities = [], []
    for tensor in iter_tensors(proto.graph):
        bytes_of[helper.tensor_dtype_to_np_dtype(tensor.data_type).name] += count_packed_bytes(
            tensor
        )
        if tensor.data_type in _FLOATS and math.prod(tensor.dims):
            low, high = _find_extremes(tensor)
            if math.isnan(low):
                nans.append(tensor.name or "of a node")
            elif math.isinf(low) or math.isinf(high):
                infinities.append(tensor.name or "of a node")
    weights = list(_iter_float_weights(proto))
    computes_in_half = computes_half(proto)
    return StorageStats(
        file_bytes=sum(file.stat().st_size for file in (path, *beside)),
        nodes=sum(len(graph.node) for graph in iter_graphs(proto.graph)),
        bytes_of=dict(bytes_of),
        weight_bytes=sum(size for size, shared in weights if not shared),
        shared_bytes=sum(size for size, shared in weights if shared),
        zeros=_compute_zero_share(proto),
        nan=next(iter(nans), None),
        infinite=next(iter(infinities), None),
        computes_in_half=computes_in_half,
    )


def _compute_zero_share(proto: ModelProto) -> float:
    """Return the part of zeros in the weights of layers and embeddings; widen float16 in place."""
    compute_in_float32(proto)
    widen_weights(proto)
    index = GraphIndex(proto)
    weighted = (match_product(index, node) for node in index.graph.node)
    names = [w.weight for w in weighted if w and not w.qdq_weight and index.only_reader(w.weight)]
    names += [name for name in index.initializers if _is_large_table(index, name)]
    zeros = entries = 0
    for name in names:
        weight = index.float_constant(name)
        zeros += weight.size - int(np.count_nonzero(weight))
        entries += weight.size
    return zeros / max(entries, 1)


def _is_large_table(index: GraphIndex, name: str) -> bool:
    """Return whether a tensor is a large float32 embedding table without other readers."""
    table = index.initializers[name]
    if table.data_type != TensorProto.FLOAT or len(table.dims) != 2:
        return False
    if math.prod(table.dims) < _LEAST_TABLE or name in index.outputs | index.inner_reads:
        return False
    return is_embedding_table(index, name)


def _find_extremes(tensor: TensorProto) -> tuple[float, float]:
    """Return minimum and maximum, NaN if there is one; needs no memory, unlike a mask."""
    values = numpy_helper.to_array(tensor)
    return float(values.min()), float(values.max())


def count_packed_bytes(tensor: TensorProto) -> int:
    """Return the bytes of a tensor's entries when packed, which may be fewer than in the file."""
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    bits: int = _BITS.get(dtype.name, 8 * dtype.itemsize)
    entries: int = math.prod(tensor.dims)
    return (entries * bits + 7) // 8


def _iter_float_weights(proto: ModelProto) -> Iterator[tuple[int, bool]]:
    """Yield for each float tensor of two or more axes its bytes and whether it is shared.

    Inner graphs are included. A tensor is shared unless exactly one node of its graph and no other
    graph reads it.
    """
    index = GraphIndex(proto)
    for graph in iter_graphs(proto.graph):
        tensors = [(tensor.name, tensor) for tensor in graph.initializer]
        for node in graph.node:
            if node.op_type == "Constant":
                tensors += [(node.output[0], a.t) for a in node.attribute if a.name == "value"]
        readers = Counter(name for node in graph.node for name in set(node.input))
        elsewhere = {value.name for value in graph.output}
        elsewhere |= index.inner_reads if graph is index.graph else set()
        for name, tensor in tensors:
            if tensor.data_type in _FLOATS and len(tensor.dims) > 1:
                yield count_packed_bytes(tensor), readers[name] != 1 or name in elsewhere
