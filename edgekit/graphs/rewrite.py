"""Preparations that several graph edits share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx.inliner
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgekit.errors import PassRefused, first_line
from edgekit.graphs.expansions import drop_expansions
from edgekit.graphs.half import compute_in_float32, widen_weights
from edgekit.graphs.hoist import hoist_weights
from edgekit.graphs.index import GraphIndex, attribute, rename_reads
from edgekit.graphs.normal import one_spelling
from edgekit.graphs.onnx_file import all_graphs, is_large, opset
from edgekit.graphs.weight_folding import fold_weights

_QUANTIZED = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger",
    "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits",
    "GatherBlockQuantized", "QGemm", "QAttention", "DynamicQuantizeLSTM",
}  # fmt: skip

# How a Constant holds numbers that are no tensor.
_NUMBERS = {
    "value_float": np.float32, "value_floats": np.float32,
    "value_int": np.int64, "value_ints": np.int64,
}  # fmt: skip

QUANTISED_ALREADY = "the model is quantised already"

# The first that lets an initialiser be no graph input.
_MIN_IR = 4
# Numbers that are cast are few; weights stay as they are stored.
_FEW = 64
_QUANTIZED_TYPES = ("int8", "uint8", "int4", "uint4")
_PLAIN = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64)


def prepare(proto: ModelProto, version: int, *, keep_ties: bool = False) -> ModelProto:
    """The same model at opset ``version`` or above, with the weights where passes look for them.

    Constants are plain initialisers, weights of inner graphs constants of the main one, as are
    those put together from stored tensors; functions are written out, products spelled in one
    way, and half precision widened to float32.
    Weights that are stored as integers and dequantised (weight-only QDQ) are no hindrance.

    Args:
        proto: edited in place.
        version: the least opset.
        keep_ties: leave weights that several nodes read in one copy (``one_spelling``).

    Raises:
        PassRefused: it is quantised already, or cannot be edited.
    """
    _refuse_quantized(proto)
    if any(graph.sparse_initializer for graph in all_graphs(proto.graph)):
        raise PassRefused("the model stores sparse tensors", hint="export it with dense weights")
    proto = _at_least_opset(_without_functions(proto), version)
    _settle_initializers(proto)
    _lift_constants(proto)
    hoist_weights(proto)
    compute_in_float32(proto)
    widen_weights(proto)
    _drop_identities(proto)
    _fold_shapes(proto)
    drop_expansions(proto)
    fold_weights(proto, keep_ties=keep_ties)
    _fold_small_casts(proto)
    one_spelling(proto, keep_ties=keep_ties)
    return proto


def _without_functions(proto: ModelProto) -> ModelProto:
    """The bodies of the model's own functions in the place of the nodes that call them."""
    if not proto.functions or is_large(proto):
        return proto
    try:
        return onnx.inliner.inline_local_functions(proto)
    except Exception as error:
        raise PassRefused(
            f"the model's own functions cannot be written out: {first_line(error)}",
            hint="run clean first",
        ) from error


def _at_least_opset(proto: ModelProto, version: int) -> ModelProto:
    old = opset(proto)
    if old >= version:
        return proto
    hint = f"export it with opset_version={version} or above"
    if is_large(proto):
        raise PassRefused(f"opset {old} of a model over 2 GiB cannot be raised", hint=hint)
    if proto.functions:
        raise PassRefused(
            f"the model has opset {old} and functions of its own, and cannot be raised to "
            f"opset {version}",
            hint=f"run clean first, or {hint}",
        )
    try:
        raised = onnx.version_converter.convert_version(proto, version)
        onnx.checker.check_model(raised, full_check=True)
    except Exception as error:
        reason = first_line(error)
        raise PassRefused(
            f"the model cannot be raised from opset {old} to {version}: {reason}", hint=hint
        ) from error
    return raised


def _settle_initializers(proto: ModelProto) -> None:
    """Make of initialisers that are graph inputs as well (all are, in old files) plain ones."""
    proto.ir_version = max(proto.ir_version, _MIN_IR)
    stored = {tensor.name for tensor in proto.graph.initializer}
    fed = [value for value in proto.graph.input if value.name not in stored]
    del proto.graph.input[:]
    proto.graph.input.extend(fed)


def _lift_constants(proto: ModelProto) -> None:
    """Turn the Constant nodes of the main graph into initialisers."""
    kept = []
    for node in proto.graph.node:
        value = _stored(node) if node.op_type == "Constant" else None
        if value is None:
            kept.append(node)
        else:
            proto.graph.initializer.add().CopyFrom(value)
            proto.graph.initializer[-1].name = node.output[0]
    if len(kept) != len(proto.graph.node):
        del proto.graph.node[:]
        proto.graph.node.extend(kept)


def _stored(node: NodeProto) -> TensorProto | None:
    """What a Constant holds, as a tensor or as numbers; ``None`` for anything else."""
    value = attribute(node, "value", None)
    if isinstance(value, TensorProto):
        return value
    for name, kind in _NUMBERS.items():
        numbers = attribute(node, name, None)
        if numbers is not None:
            return numpy_helper.from_array(np.array(numbers, kind))
    return None


def _fold_small_casts(proto: ModelProto) -> None:
    """Fold casts of small constants, such as the bounds of Clip in exports of torch.

    Integers of 8 or 4 bits stay: they are quantized weights, however few.
    """
    index = GraphIndex(proto)
    kept: list[NodeProto] = []
    for node in proto.graph.node:
        value = index.constant(node.input[0]) if node.op_type == "Cast" else None
        kind, made = attribute(node, "to", 0), node.output[0] if node.output else ""
        few = value is not None and value.size <= _FEW and value.dtype.name not in _QUANTIZED_TYPES
        if value is None or not few or kind not in _PLAIN or made in index.outputs:
            kept.append(node)
            continue
        cast = value.astype(helper.tensor_dtype_to_np_dtype(kind))
        proto.graph.initializer.append(numpy_helper.from_array(cast, made))
    index.replace_nodes(kept)
    GraphIndex(proto).drop_unread_constants()


def _fold_shapes(proto: ModelProto) -> None:
    """Store the result of Shape on constants, which passes must not change."""
    index = GraphIndex(proto)
    kept: list[NodeProto] = []
    for node in proto.graph.node:
        tensor = index.initializers.get(node.input[0]) if node.op_type == "Shape" else None
        if tensor is None or node.output[0] in index.outputs:
            kept.append(node)
            continue
        bounds = (attribute(node, name, None) for name in ("start", "end"))
        start, end = (each if isinstance(each, int) else None for each in bounds)
        sizes = list(tensor.dims)[start:end]
        proto.graph.initializer.append(
            numpy_helper.from_array(np.array(sizes, np.int64), node.output[0])
        )
    index.replace_nodes(kept)


def _drop_identities(proto: ModelProto) -> None:
    """Let nodes read constants themselves rather than through an Identity."""
    index = GraphIndex(proto)
    renamed: dict[str, str] = {}
    kept: list[NodeProto] = []
    for node in proto.graph.node:
        source = renamed.get(node.input[0], node.input[0]) if node.op_type == "Identity" else ""
        if source in index.initializers and node.output[0] not in index.outputs:
            renamed[node.output[0]] = source
        else:
            kept.append(node)
    index.replace_nodes(kept)
    rename_reads(proto, renamed)


def _refuse_quantized(proto: ModelProto) -> None:
    stored = {tensor.name for tensor in proto.graph.initializer}
    found = {
        node.op_type
        for node in _all_nodes(proto)
        if _is_quantized(node.op_type)
        and not (node.op_type == "DequantizeLinear" and node.input[0] in stored)
    }
    if found:
        raise PassRefused(f"{QUANTISED_ALREADY} ({', '.join(sorted(found))})")


def _is_quantized(op: str) -> bool:
    return op in _QUANTIZED or op.startswith("QLinear")


def _all_nodes(proto: ModelProto) -> Iterator[NodeProto]:
    for graph in all_graphs(proto.graph):
        yield from graph.node
    for function in proto.functions:
        yield from function.node
