"""Half precision models: conversion to float32 for a pass, and back to float16 storage."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    helper,
    numpy_helper,
)

from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute, rename_reads
from edgekit.onnx_graph.io import iter_graphs, iter_tensors
from edgekit.onnx_graph.shape_inference import infer_element_types

_HALF, _SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT
# Attributes that name the element type of a node's output or computation.
_TYPES = {
    "to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision",
}  # fmt: skip
# Biases, norms and scalars take few bytes, and norms overflow in half precision.
LEAST_ENTRIES = 1024
# Rounding to 11 bits has an error of 3e-4; a larger one means values out of float16's range.
_MOST_LOST = 1e-3


def stores_half(proto: ModelProto) -> bool:
    """Return whether a model stores weights of two or more axes as float16."""
    return any(t.data_type == _HALF and len(t.dims) > 1 for t in iter_tensors(proto.graph))


def computes_half(proto: ModelProto) -> bool:
    """Return whether an operator is known to read float16 values, without type inference."""
    return any(_reads_half(graph) for graph in iter_graphs(proto.graph))


def _reads_half(graph: GraphProto) -> bool:
    """Return whether an operator of one graph reads a float16 input or constant."""
    half_inputs = {
        v.name for v in graph.input if v.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    half_inputs |= {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT16}
    for node in graph.node:
        stored = [a.t for a in node.attribute if a.name == "value"]
        if node.op_type == "Constant" and any(t.data_type == TensorProto.FLOAT16 for t in stored):
            half_inputs.update(node.output)
    return any(half_inputs & set(node.input) for node in graph.node if node.op_type != "Cast")


def compute_in_float32(proto: ModelProto) -> None:
    """Widen every float16 value of a model to float32, in place; inputs and outputs keep float16.

    A Cast is inserted at each float16 input and output. Processors without half precision compute
    in float32 anyway.
    """
    if not _has_half(proto):
        return
    for graph in iter_graphs(proto.graph):
        for tensor in graph.initializer:
            _widen_tensor(tensor)
        for node in graph.node:
            for attribute in node.attribute:
                _widen_attribute(node, attribute)
        inner = graph is not proto.graph
        for value in (*graph.value_info, *((*graph.input, *graph.output) if inner else ())):
            _widen_type(value.type)
    _cast_borders(proto)
    _drop_idle_casts(proto)


def widen_weights(proto: ModelProto) -> None:
    """Store float16 constants that are cast to float32 as float32, in place."""
    index = GraphIndex(proto)
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        if not _is_widening_cast(index, node):
            nodes.append(node)
            continue
        float32_weight = numpy_helper.from_array(
            index.float_constant(node.input[0]), node.output[0]
        )
        proto.graph.initializer.append(float32_weight)
    index.replace_nodes(nodes)
    GraphIndex(proto).drop_unread_constants()


def _is_widening_cast(index: GraphIndex, node: NodeProto) -> bool:
    if node.op_type != "Cast" or read_attribute(node, "to", 0) != TensorProto.FLOAT:
        return False
    source = index.initializers.get(node.input[0])
    return source is not None and source.data_type == TensorProto.FLOAT16


def narrow_weights(proto: ModelProto) -> int:
    """Store large float32 constants as float16 behind a Cast, in place; return their number."""
    return _narrow(proto, lambda name, dims: math.prod(dims) >= LEAST_ENTRIES)


def narrow_matrices(proto: ModelProto, names: Container[str] = ()) -> int:
    """Store float32 constants of two or more axes as float16, in place; return their number.

    Small ones are included: all were float16 before ``compute_in_float32`` widened them.

    Args:
        proto: edited in place.
        names: constants of any rank that were float16 as well.
    """
    return _narrow(proto, lambda name, dims: name in names or sum(n > 1 for n in dims) > 1)


def list_half_constants(proto: ModelProto) -> frozenset[str]:
    """Return the names of the constants that are stored as float16."""
    graphs = list(iter_graphs(proto.graph))
    names = {t.name for graph in graphs for t in graph.initializer if t.data_type == _HALF}
    constants = (n for graph in graphs for n in graph.node if n.op_type == "Constant")
    constant_names = {
        n.output[0] for n in constants if any(a.t.data_type == _HALF for a in n.attribute)
    }
    return frozenset(names | constant_names)


def _narrow(proto: ModelProto, worth: Callable[[str, Sequence[int]], bool]) -> int:
    index = GraphIndex(proto)
    casts = []
    for name, tensor in list(index.initializers.items()):
        if tensor.data_type != _SINGLE or name in index.outputs or not worth(name, tensor.dims):
            continue
        narrow = _to_half(index.float_constant(name))
        if narrow is not None:
            half = index.add_constant("h", narrow)
            casts.append(helper.make_node("Cast", [half], [name], to=_SINGLE))
    widened_names = {cast.output[0] for cast in casts}
    kept_tensors = [
        tensor for tensor in index.graph.initializer if tensor.name not in widened_names
    ]
    nodes = [*casts, *index.graph.node]
    del index.graph.initializer[:]
    index.graph.initializer.extend(kept_tensors)
    index.replace_nodes(nodes)
    return len(casts)


def _to_half(weight: NDArray[np.float32]) -> NDArray[np.float16] | None:
    """Convert a weight to float16; ``None`` if it would lose more than rounding."""
    if not np.isfinite(weight).all():
        return None
    with np.errstate(over="ignore"):
        narrow = weight.astype(np.float16)
    lost = np.square(narrow.astype(np.float64) - weight).sum()
    size = np.square(weight, dtype=np.float64).sum()
    return narrow if lost <= _MOST_LOST**2 * size else None


def _has_half(proto: ModelProto) -> bool:
    if any(tensor.data_type == _HALF for tensor in iter_tensors(proto.graph)):
        return True
    values = (*proto.graph.input, *proto.graph.output)
    if any(value.type.tensor_type.elem_type == _HALF for value in values):
        return True
    nodes = (node for graph in iter_graphs(proto.graph) for node in graph.node)
    return any(read_attribute(node, name, 0) == _HALF for node in nodes for name in ("to", "dtype"))


def _cast_borders(proto: ModelProto) -> None:
    """Cast float16 inputs to float32 behind the inputs, and back in front of the outputs."""
    index = GraphIndex(proto)
    input_names = {v.name for v in proto.graph.input} - index.initializers.keys()
    front: list[NodeProto] = []
    renamed: dict[str, str] = {}
    for value in proto.graph.input:
        if value.name in input_names and value.type.tensor_type.elem_type == _HALF:
            float32_name = renamed[value.name] = index.fresh(f"{value.name}_wide")
            front.append(helper.make_node("Cast", [value.name], [float32_name], to=_SINGLE))
    back: list[NodeProto] = []
    for value in proto.graph.output:
        if value.type.tensor_type.elem_type == _HALF and value.name not in input_names:
            float32_name = renamed[value.name] = index.fresh(f"{value.name}_wide")
            back.append(helper.make_node("Cast", [float32_name], [value.name], to=_HALF))
    _rename(proto, renamed, input_names)
    value_types = [value for value in proto.graph.value_info if value.name not in renamed]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(value_types)
    index.replace_nodes([*front, *proto.graph.node, *back])


def _rename(proto: ModelProto, renamed: dict[str, str], input_names: set[str]) -> None:
    """Rename values in all nodes, in initializers that are not inputs, and in inner outputs."""
    for tensor in proto.graph.initializer:
        if tensor.name not in input_names:
            tensor.name = renamed.get(tensor.name, tensor.name)
    for graph in iter_graphs(proto.graph):
        for node in graph.node:
            for names in (node.input, node.output):
                for position, name in enumerate(names):
                    names[position] = renamed.get(name, name)
        if graph is not proto.graph:
            for value in graph.output:
                value.name = renamed.get(value.name, value.name)


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == _HALF:
        float32_values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(float32_values, tensor.name))


def _widen_attribute(node: NodeProto, attribute: AttributeProto) -> None:
    if attribute.type == AttributeProto.TENSOR:
        _widen_tensor(attribute.t)
    for tensor in attribute.tensors:
        _widen_tensor(tensor)
    is_element_type = node.domain in ("", "ai.onnx", "com.microsoft") and attribute.name in _TYPES
    if is_element_type and attribute.type == AttributeProto.INT and attribute.i == _HALF:
        attribute.i = _SINGLE


def _widen_type(value_type: TypeProto) -> None:
    """Change float16 to float32 in a type, in sequences and optional values as well."""
    field_name = value_type.WhichOneof("value")
    if field_name == "tensor_type" and value_type.tensor_type.elem_type == _HALF:
        value_type.tensor_type.elem_type = _SINGLE
    elif field_name in ("sequence_type", "optional_type"):
        _widen_type(getattr(value_type, field_name).elem_type)


def _drop_idle_casts(proto: ModelProto) -> None:
    """Remove casts of the main graph from float32 to float32."""
    types = infer_element_types(proto)
    index = GraphIndex(proto)
    types |= {name: tensor.data_type for name, tensor in index.initializers.items()}
    # onnxruntime writes inner graphs whose values have the names of outer ones.
    fixed = index.outputs | {name for inner in index.inner() for name in inner.producer}
    renamed: dict[str, str] = {}
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        idle = node.op_type == "Cast" and read_attribute(node, "to", 0) == _SINGLE
        idle = idle and types.get(node.input[0]) == _SINGLE
        source = renamed.get(node.input[0], node.input[0]) if idle else ""
        if idle and not fixed & {source, node.output[0]}:
            renamed[node.output[0]] = source
        else:
            nodes.append(node)
    index.replace_nodes(nodes)
    rename_reads(proto, renamed)
