"""Reasons in words why a pass leaves stored weights unchanged."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto

from edgekit.graphs.index import GraphIndex, attribute
from edgekit.graphs.placement import as_weighted, gathers_rows

# Inputs that hold a weight, by the operator that reads it.
_WEIGHTS = {
    "Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1), "Einsum": (0, 1),
    "Gather": (0,), "LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2), "FusedConv": (1,),
    "FusedGemm": (0, 1), "FusedMatMul": (0, 1), "Attention": (1,),
}  # fmt: skip
_FLOATS = {
    TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.DOUBLE: "float64",
    TensorProto.BFLOAT16: "bfloat16",
}  # fmt: skip
# Operators whose weights passes change: for low bits and sparsity, and for 8 bits.
LAYER_OPS = frozenset({"Conv", "Gemm", "MatMul", "Gather"})
WEIGHT_OPS = LAYER_OPS | {"ConvTranspose", "Einsum", "LSTM", "GRU", "RNN"}
_INTEGERS = {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4}
_TOLD = 3
# Smaller weights that stay float cost little.
_LARGE = 4096


@dataclass(frozen=True, kw_only=True)
class UnchangedWeight:
    """A stored float weight that a pass does not change, and why."""

    name: str
    entries: int
    reason: str


def find_unchanged_weights(
    proto: ModelProto,
    *,
    ops: Collection[str],
    taken: Collection[str] = (),
    least: int = 0,
    anywhere: bool = False,
) -> list[UnchangedWeight]:
    """Find the stored weights of a prepared graph that a pass leaves unchanged, largest first.

    Args:
        proto: the graph, before the pass changes it.
        ops: operators whose weights the pass changes.
        taken: names of the weights that it changes.
        least: smallest number of entries that the pass changes; smaller weights get this as their
            reason.
        anywhere: whether the pass changes weights of inner graphs and of several readers.
    """
    main = GraphIndex(proto)
    found: dict[str, UnchangedWeight] = {}
    for index in (main, *main.inner()):
        for node, name in _weights(index):
            if name not in taken and name not in found:
                tensor = main.initializers[name]
                found[name] = UnchangedWeight(
                    name=name,
                    entries=math.prod(tensor.dims),
                    reason=f"{_describe(node, tensor)} "
                    f"{_explain(index, node, name, ops, least, anywhere=anywhere)}",
                )
    return sorted(found.values(), key=lambda each: -each.entries)


def explain_no_weights(
    proto: ModelProto, *, ops: Collection[str], least: int = 0, anywhere: bool = False
) -> str:
    """Say in one line why a pass finds no weight in a prepared graph.

    Args:
        proto: the graph.
        ops: operators whose weights the pass changes.
        least: smallest number of entries that the pass changes.
        anywhere: as for ``find_unchanged_weights``.
    """
    left = find_unchanged_weights(proto, ops=ops, least=least, anywhere=anywhere)
    if not left and any(_is_integer_weight(tensor) for tensor in proto.graph.initializer):
        return "the model stores its weights as integers already"
    return join_reasons(left) if left else "the model stores no float weights of layers"


def large_float_weights(proto: ModelProto) -> dict[str, list[str]]:
    """Find the large float matrices of a prepared graph, with the operators that read them."""
    main = GraphIndex(proto)
    large = {
        tensor.name: list[str]()
        for tensor in proto.graph.initializer
        if tensor.data_type in _FLOATS
        and sum(size > 1 for size in tensor.dims) > 1
        and math.prod(tensor.dims) >= _LARGE
    }
    for index in (main, *main.inner()):
        for name in large.keys() & index.initializers.keys() & index.readers.keys():
            large[name] += [node.op_type for node in index.readers[name]]
    return large


def remaining_floats(
    proto: ModelProto, before: Mapping[str, Sequence[str]], told: Collection[str]
) -> list[UnchangedWeight]:
    """Find the large weights that are still float in a quantized graph, largest first.

    Args:
        proto: the graph, with the names of the graph before.
        before: large weights and their readers, from ``large_float_weights`` before the pass.
        told: first outputs of layers that the user was already told of.
    """
    index = GraphIndex(proto)
    floats = large_float_weights(proto)
    known = {each.name: each.reason for each in find_unchanged_weights(proto, ops=WEIGHT_OPS)}
    found = []
    for name in before.keys() & floats.keys():
        readers = index.readers.get(name, [])
        if readers and all(node.output[0] in told for node in readers):
            continue
        dims = index.initializers[name].dims
        label = f"{name} ({' x '.join(map(str, dims))}) is read by "
        kinds = {node.op_type for node in readers}.intersection(before[name]) or before[name]
        reason = known.get(name) or label + ", ".join(sorted(set(kinds)))
        found.append(UnchangedWeight(name=name, entries=math.prod(dims), reason=reason))
    return sorted(found, key=lambda each: (-each.entries, each.name))


def join_reasons(left: Sequence[UnchangedWeight]) -> str:
    """Join the reasons of the first weights in one line."""
    told = "; ".join(each.reason for each in left[:_TOLD])
    more = len(left) - _TOLD
    return f"{told}; and {more} more" if more > 0 else told


def _is_integer_weight(tensor: TensorProto) -> bool:
    return tensor.data_type in _INTEGERS and len(tensor.dims) > 1


def _weights(index: GraphIndex) -> Iterator[tuple[NodeProto, str]]:
    """Yield the float weights that nodes of one graph read, with their readers."""
    for node in index.graph.node:
        for position in _WEIGHTS.get(node.op_type, ()):
            name = node.input[position] if position < len(node.input) else ""
            tensor = index.initializers.get(name)
            if tensor is not None and tensor.data_type in _FLOATS and len(tensor.dims) > 1:
                yield node, name


def _describe(node: NodeProto, tensor: TensorProto) -> str:
    return f"{tensor.name} ({node.op_type}, {' x '.join(map(str, tensor.dims))})"


def _explain(
    index: GraphIndex,
    node: NodeProto,
    name: str,
    ops: Collection[str],
    least: int,
    *,
    anywhere: bool,
) -> str:
    tensor = index.initializers[name]
    if tensor.data_type != TensorProto.FLOAT:
        return f"is stored as {_FLOATS[tensor.data_type]}"
    if not index.is_finite(name):
        return "holds values that are not finite"
    if (index.main is not index or name in index.inner_reads) and not anywhere:
        return "is read inside If, Loop or Scan"
    if name in index.outputs:
        return "is an output of the model as well"
    if index.only_reader(name) is None and not gathers_rows(node):
        kinds = " of different kinds" if anywhere else ""
        return f"is read by {len(index.readers[name])} nodes{kinds}"
    if node.op_type not in ops:
        return f"belongs to {node.op_type}, whose weights this pass leaves"
    if math.prod(tensor.dims) < least:
        return f"is too small: {math.prod(tensor.dims)} entries, less than {least}"
    return _explain_shape(index, node, tensor)


def _explain_shape(index: GraphIndex, node: NodeProto, tensor: TensorProto) -> str:
    if node.op_type == "Gather":
        return _explain_table(index, node, tensor)
    if node.input[0] == tensor.name or (node.op_type == "MatMul" and len(tensor.dims) > 2):
        return "has more than two axes or stands on the left, and is too small for that"
    if as_weighted(index, node) is None:
        return "has a bias that is computed, or scaled factors"
    return "keeps more as it is than it would save"


def _explain_table(index: GraphIndex, node: NodeProto, tensor: TensorProto) -> str:
    """Explain why a table of a Gather is no embedding."""
    if not gathers_rows(node):
        return f"is gathered along axis {attribute(node, 'axis', 0)}, not by rows"
    readers = index.readers.get(tensor.name, [])
    others = sorted({reader.op_type for reader in readers if not gathers_rows(reader)})
    if others:
        return f"is also read by {', '.join(others)}"
    if len(tensor.dims) != 2:
        return f"has {len(tensor.dims)} axes, and an embedding has two"
    return "is too small for an embedding"
