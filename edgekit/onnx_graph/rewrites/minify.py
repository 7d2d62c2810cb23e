"""Removal of the parts of a graph that no runtime reads: names, comments, default attributes.

In a small quantized file these take as many bytes as the weights.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

from edgekit.onnx_graph.io import get_opset, iter_graphs
from edgekit.onnx_graph.operators import is_standard

# Attributes without a default in the schema, whose absence has a meaning in the specification.
_ABSENT_MEANS = {"dilations": 1, "strides": 1, "pads": 0}
# From this IR version on a file may hold functions of its own.
_MIN_IR = 8
_WINDOWED = {"Conv", "AveragePool", "MaxPool"}


def compact(proto: ModelProto, *, named: Container[str] = frozenset()) -> None:
    """Remove unread parts and shorten names, in place; inputs, outputs and results stay the same.

    Args:
        proto: the model.
        named: operators whose nodes keep their names, or get those of their first outputs, since
            further passes name them in messages.
    """
    proto.ClearField("doc_string")
    proto.graph.name = "g"  # ONNX requires a name
    # Runtimes refuse an IR version newer than themselves, and the opset needs no newer one.
    least = helper.find_min_ir_version_for(list(proto.opset_import), ignore_unknown=True)
    proto.ir_version = min(proto.ir_version, max(least, _MIN_IR))
    version = get_opset(proto)
    for graph in iter_graphs(proto.graph):
        for unread in ("doc_string", "value_info", "quantization_annotation", "metadata_props"):
            graph.ClearField(unread)
        for node in graph.node:
            name = (node.name or node.output[0]) if node.op_type in named else ""
            for unread in ("doc_string", "name", "metadata_props"):
                node.ClearField(unread)
            if name:
                node.name = name
            _drop_defaults(node, version)
    _shorten_names(proto)


def sort_constants(proto: ModelProto) -> None:
    """Sort constants by type and rank, in place.

    Similar headers in a row take fewer bytes once the file is packed. Call it before ``compact``.
    """
    proto.graph.initializer.sort(
        key=lambda t: (t.data_type == TensorProto.INT8, t.data_type, len(t.dims))
    )


def share_transposed(proto: ModelProto) -> None:
    """Store equal or transposed int8 matrices once, in place.

    The output layer of a language model often is its embedding table. The runtime folds the
    Transpose at load. Call it before ``compact``.
    """
    stored_by_hash: dict[bytes, TensorProto] = {}
    renamed: dict[str, str] = {}
    transposes: list[NodeProto] = []
    matrices = [
        t for t in proto.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) == 2
    ]
    sides = Counter(tuple(sorted(t.dims)) for t in matrices)
    for tensor in matrices:
        if sides[tuple(sorted(tensor.dims))] < 2:
            continue
        matrix = numpy_helper.to_array(tensor)
        turned = stored_by_hash.get(_hash_matrix(matrix.T))
        if stored := stored_by_hash.get(_hash_matrix(matrix)):
            renamed[tensor.name] = stored.name
        elif turned is not None:
            transposes.append(
                helper.make_node("Transpose", [turned.name], [tensor.name], perm=[1, 0])
            )
        else:
            stored_by_hash[_hash_matrix(matrix)] = tensor
    made_here = {node.output[0] for node in transposes}
    _replace_tensors(proto, renamed.keys() | made_here, transposes, renamed)


def _hash_matrix(matrix: NDArray[np.generic]) -> bytes:
    shape = repr(matrix.shape).encode()
    return hashlib.sha256(shape + np.ascontiguousarray(matrix).tobytes()).digest()


def _replace_tensors(
    proto: ModelProto, gone: set[str], transposes: list[NodeProto], renamed: dict[str, str]
) -> None:
    for index in reversed(range(len(proto.graph.initializer))):
        if proto.graph.initializer[index].name in gone:
            del proto.graph.initializer[index]
    nodes = [*transposes, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    for graph in iter_graphs(proto.graph):
        for node in graph.node:
            for position, name in enumerate(node.input):
                node.input[position] = renamed.get(name, name)


def _drop_defaults(node: NodeProto, version: int) -> None:
    if not is_standard(node) or not defs.has(node.op_type, version):
        return
    defaults = defs.get_schema(node.op_type, version).attributes
    attributes = [a for a in node.attribute if not _is_default(node, a, defaults)]
    if len(attributes) != len(node.attribute):
        del node.attribute[:]
        node.attribute.extend(attributes)


def _is_default(
    node: NodeProto, attribute: AttributeProto, defaults: dict[str, defs.OpSchema.Attribute]
) -> bool:
    if node.op_type in _WINDOWED and attribute.name in _ABSENT_MEANS:
        return all(value == _ABSENT_MEANS[attribute.name] for value in attribute.ints)
    schema = defaults.get(attribute.name)
    if schema is None or not schema.default_value.type:
        return False
    default = helper.get_attribute_value(schema.default_value)
    return bool(helper.get_attribute_value(attribute) == default)


def _shorten_names(proto: ModelProto) -> None:
    """Give the values of the main graph short names; inner graphs keep theirs."""
    graph = proto.graph
    kept_names = {v.name for v in (*graph.input, *graph.output)}
    for inner in iter_graphs(graph):
        if inner is not graph:
            kept_names |= {v.name for v in (*inner.input, *inner.output)}
            kept_names |= {t.name for t in inner.initializer}
            kept_names |= {name for node in inner.node for name in (*node.input, *node.output)}
    short = _ShortNames(kept_names)
    for tensor in graph.initializer:
        tensor.name = short[tensor.name]
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                names[position] = short[name]


class _ShortNames(dict[str, str]):
    """Map from each long name to a short one, which is made at the first access."""

    def __init__(self, kept_names: set[str]) -> None:
        super().__init__({name: name for name in kept_names | {""}})
        self._taken = set(kept_names)
        self._count = 0

    def __missing__(self, name: str) -> str:
        while (short := _to_letters(self._count)) in self._taken:
            self._count += 1
        self._count += 1
        self[name] = short
        return short


def _to_letters(number: int) -> str:
    digits = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    text = digits[number % len(digits)]
    while number := number // len(digits):
        text = digits[number % len(digits)] + text
    return text
