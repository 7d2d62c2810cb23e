"""Reasons, as text for the user, why a pass leaves stored weights unchanged."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto

from edgekit.compression.quantization.embeddings import LEAST_TABLE
from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.operators import MATRIX_OPS, RECURRENT_OPS
from edgekit.onnx_graph.qdq_placement import is_row_gather

# Positions of the inputs that hold a weight, by operator type.
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
WEIGHT_OPS = LAYER_OPS | RECURRENT_OPS | {"ConvTranspose", "Einsum"}
_INTEGERS = {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4}
_TOLD = 3
# Smaller weights that stay float cost little.
_LARGE = 4096


@dataclass(frozen=True, kw_only=True)
class _Scope:
    """Weights that a pass changes; attributes as for ``find_unchanged_weights``."""

    ops: Collection[str]
    least: int
    least_special: int
    anywhere: bool


@dataclass(frozen=True, kw_only=True)
class UnchangedWeight:
    """Stored float weight that a pass does not change, with the reason."""

    name: str
    entries: int
    label: str  # name, operator and shape
    why: str

    @property
    def reason(self) -> str:
        """Return the reason as a sentence for the user."""
        return f"{self.label} {self.why}"


def find_unchanged_weights(
    proto: ModelProto,
    *,
    ops: Collection[str],
    taken: Collection[str] = (),
    least: int = 0,
    least_special: int = 0,
    anywhere: bool = False,
) -> list[UnchangedWeight]:
    """Find the stored weights of a prepared graph that a pass leaves unchanged, largest first.

    Args:
        proto: the graph, before the pass changes it.
        ops: operators whose weights the pass changes.
        taken: names of the weights that it changes.
        least: smallest number of entries that the pass changes; smaller weights get this as their
            reason.
        least_special: the same for weights of inner graphs, of recurrent layers, of several
            readers, with a batch axis or on the left.
        anywhere: whether the pass changes weights of inner graphs and of several readers.
    """
    main = GraphIndex(proto)
    scope = _Scope(ops=ops, least=least, least_special=least_special, anywhere=anywhere)
    found: dict[str, UnchangedWeight] = {}
    for index in (main, *main.inner()):
        for node, name in _iter_weights(index):
            if name not in taken and name not in found:
                tensor = main.initializers[name]
                found[name] = UnchangedWeight(
                    name=name,
                    entries=math.prod(tensor.dims),
                    label=_describe(node, tensor),
                    why=_explain(index, node, name, scope),
                )
    return sorted(found.values(), key=lambda each: -each.entries)


def explain_no_weights(
    proto: ModelProto,
    *,
    ops: Collection[str],
    least: int = 0,
    least_special: int = 0,
    anywhere: bool = False,
) -> str:
    """Say in one line why a pass finds no weight in a prepared graph.

    Args:
        proto: the graph.
        ops: operators whose weights the pass changes.
        least: smallest number of entries that the pass changes.
        least_special: as for ``find_unchanged_weights``.
        anywhere: as for ``find_unchanged_weights``.
    """
    left = find_unchanged_weights(
        proto, ops=ops, least=least, least_special=least_special, anywhere=anywhere
    )
    if not left and stores_integer_weights(proto):
        return "the model already stores its weights as integers"
    left = left or _find_unmultiplied(proto)
    return join_reasons(left) if left else "no layer has stored float weights"


def find_large_float_weights(proto: ModelProto) -> dict[str, list[str]]:
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


def _find_unmultiplied(proto: ModelProto) -> list[UnchangedWeight]:
    """Find the large weights that no layer reads itself, largest first."""
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    found = [
        _describe_readers(tensors[name], kinds)
        for name, kinds in find_large_float_weights(proto).items()
        if kinds
    ]
    return sorted(found, key=lambda each: (-each.entries, each.name))


def _describe_readers(tensor: TensorProto, kinds: Collection[str]) -> UnchangedWeight:
    return UnchangedWeight(
        name=tensor.name,
        entries=math.prod(tensor.dims),
        label=f"{tensor.name} ({' x '.join(map(str, tensor.dims))})",
        why=f"is read by {', '.join(sorted(set(kinds)))}",
    )


def find_remaining_floats(
    proto: ModelProto, before: Mapping[str, Sequence[str]], noted: Collection[str]
) -> list[UnchangedWeight]:
    """Find the large weights that are still float in a quantized graph, largest first.

    Args:
        proto: the graph, with the names of the graph before.
        before: large weights and their readers, from ``find_large_float_weights`` before the pass.
        noted: first outputs of layers that the user was already told of.
    """
    index = GraphIndex(proto)
    floats = find_large_float_weights(proto)
    known = {each.name: each for each in find_unchanged_weights(proto, ops=WEIGHT_OPS)}
    found = []
    for name in before.keys() & floats.keys():
        readers = index.readers.get(name, [])
        if readers and all(node.output[0] in noted for node in readers):
            continue
        kinds = {node.op_type for node in readers}.intersection(before[name]) or before[name]
        found.append(known.get(name) or _describe_readers(index.initializers[name], kinds))
    return sorted(found, key=lambda each: (-each.entries, each.name))


def join_reasons(left: Sequence[UnchangedWeight]) -> str:
    """Join the reasons of the first weights in one line, the same reason once."""
    labels: dict[str, list[str]] = {}
    for each in left[:_TOLD]:
        labels.setdefault(each.why, []).append(each.label)
    noted = "; ".join(
        f"{', '.join(names)}: each {why}" if len(names) > 1 else f"{names[0]} {why}"
        for why, names in labels.items()
    )
    more = len(left) - _TOLD
    return f"{noted}; and {more} more" if more > 0 else noted


def stores_integer_weights(proto: ModelProto) -> bool:
    """Return whether the main graph stores integers of 8 or 4 bits with two axes or more."""
    stored = proto.graph.initializer
    return any(tensor.data_type in _INTEGERS and len(tensor.dims) > 1 for tensor in stored)


def _iter_weights(index: GraphIndex) -> Iterator[tuple[NodeProto, str]]:
    """Yield the float weights that nodes of one graph read, with their readers."""
    for node in index.graph.node:
        for position in _WEIGHTS.get(node.op_type, ()):
            name = node.input[position] if position < len(node.input) else ""
            tensor = index.initializers.get(name)
            if tensor is not None and tensor.data_type in _FLOATS and len(tensor.dims) > 1:
                yield node, name


def _describe(node: NodeProto, tensor: TensorProto) -> str:
    return f"{tensor.name} ({node.op_type}, {' x '.join(map(str, tensor.dims))})"


def _explain(index: GraphIndex, node: NodeProto, name: str, scope: _Scope) -> str:
    tensor = index.initializers[name]
    if tensor.data_type != TensorProto.FLOAT:
        return f"is stored as {_FLOATS[tensor.data_type]}"
    if not index.is_finite(name):
        return "has values that are not finite"
    if node.op_type not in scope.ops:
        return f"belongs to {node.op_type}, whose weights this pass does not change"
    if name in index.outputs:
        return "is also an output of the model"
    if node.op_type == "Gather":
        return _explain_table(index, node, tensor)
    is_inner = index.main is not index or name in index.inner_reads
    if is_inner and not scope.anywhere:
        return "is read inside If, Loop or Scan"
    is_shared = is_inner or index.only_reader(name) is None
    is_special = is_shared or node.op_type in RECURRENT_OPS or _is_batched(node, tensor)
    least = max(scope.least, scope.least_special if is_special else 0)
    if math.prod(tensor.dims) < least:
        return f"is too small: {math.prod(tensor.dims)} entries, fewer than {least}"
    if is_shared and not is_inner:
        kinds = " of different kinds" if scope.anywhere else ""
        return f"is shared by {len(index.readers[name])} nodes{kinds}"
    return _explain_form(index, node, tensor)


def _is_batched(node: NodeProto, tensor: TensorProto) -> bool:
    """Return whether a product has a batch of weights, or its weight on the left."""
    return bool(
        node.op_type in MATRIX_OPS and (len(tensor.dims) > 2 or node.input[0] == tensor.name)
    )


def _explain_form(index: GraphIndex, node: NodeProto, tensor: TensorProto) -> str:
    """Explain which property of a layer hinders a pass that supports its operator."""
    if all(name in index.initializers for name in node.input[:2]):
        return "multiplies a constant"
    if _is_batched(node, tensor):
        return (
            "is a batch of matrices or the left operand, in a layout that this pass does not "
            "support"
        )
    if 1 in (math.prod(tensor.dims[1:]), tensor.dims[0]):
        return "has one weight for each output channel, and a scale needs as much space"
    return f"is used by {node.op_type} in a way that this pass does not support"


def _explain_table(index: GraphIndex, node: NodeProto, tensor: TensorProto) -> str:
    """Explain why the table of a Gather is no embedding."""
    if not is_row_gather(node):
        return f"is gathered along axis {read_attribute(node, 'axis', 0)}, not along axis 0"
    readers = index.readers.get(tensor.name, [])
    others = sorted({reader.op_type for reader in readers if not is_row_gather(reader)})
    if others:
        return f"is also read by {', '.join(others)}"
    if len(tensor.dims) != 2:
        return f"has {len(tensor.dims)} axes; an embedding has two"
    entries = math.prod(tensor.dims)
    return f"is too small for an embedding: {entries} entries, fewer than {LEAST_TABLE}"
