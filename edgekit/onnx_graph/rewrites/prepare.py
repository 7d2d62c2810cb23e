"""Preparation of a graph that several passes share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx.inliner
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgekit.errors import PassRefused, first_line
from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute, rename_reads
from edgekit.onnx_graph.io import get_opset, is_large, iter_graphs
from edgekit.onnx_graph.operators import INTEGER_TYPES
from edgekit.onnx_graph.rewrites.half_precision import compute_in_float32, widen_weights
from edgekit.onnx_graph.rewrites.lift_initializers import hoist_weights
from edgekit.onnx_graph.rewrites.normalize_products import normalize_products
from edgekit.onnx_graph.rewrites.redundant_expand import drop_expansions
from edgekit.onnx_graph.rewrites.weight_folding import fold_weights

_QUANTIZED = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger",
    "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits",
    "GatherBlockQuantized", "QGemm", "QAttention", "DynamicQuantizeLSTM",
}  # fmt: skip

# Attributes of a Constant node that hold plain numbers instead of a tensor.
_NUMBERS = {
    "value_float": np.float32, "value_floats": np.float32,
    "value_int": np.int64, "value_ints": np.int64,
}  # fmt: skip

QUANTIZED_ALREADY = "the model is already quantized"

# The first IR version in which an initializer need not be a graph input.
_MIN_IR = 4
# Folded casts are of few numbers; weights keep their stored type.
_FEW = 64
_PLAIN = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64)


def prepare(proto: ModelProto, version: int, *, keep_ties: bool = False) -> ModelProto:
    """Prepare a model for the passes: opset, plain initializers, canonical products, float32.

    Constants become initializers, and weights of inner graphs or computed from stored tensors
    become constants of the main graph. Functions are inlined, products get a canonical form, and
    half precision becomes float32. Weights stored as integers with a DequantizeLinear (weight-only
    QDQ) are allowed.

    Args:
        proto: edited in place.
        version: the lowest opset of the result.
        keep_ties: keep one copy of weights that several nodes read (``normalize_products``).

    Returns:
        The prepared model, which may be another object.

    Raises:
        PassRefused: it is quantized already, or cannot be edited.
    """
    _refuse_quantized(proto)
    if any(graph.sparse_initializer for graph in iter_graphs(proto.graph)):
        raise PassRefused("the model stores sparse tensors", hint="export it with dense weights")
    proto = _raise_opset(_inline_functions(proto), version)
    _drop_initializer_inputs(proto)
    _lift_constants(proto)
    hoist_weights(proto)
    compute_in_float32(proto)
    widen_weights(proto)
    _drop_identities(proto)
    _fold_shapes(proto)
    drop_expansions(proto)
    fold_weights(proto, keep_ties=keep_ties)
    _fold_small_casts(proto)
    normalize_products(proto, keep_ties=keep_ties)
    return proto


def _inline_functions(proto: ModelProto) -> ModelProto:
    """Inline the functions that the model defines, unless it is too large."""
    if not proto.functions or is_large(proto):
        return proto
    try:
        return onnx.inliner.inline_local_functions(proto)
    except Exception as error:
        raise PassRefused(
            f"the model's local functions cannot be inlined: {first_line(error)}",
            hint="run clean first",
        ) from error


def _raise_opset(proto: ModelProto, version: int) -> ModelProto:
    old = get_opset(proto)
    if old >= version:
        return proto
    hint = f"export it with opset_version={version} or higher"
    if is_large(proto):
        raise PassRefused(
            f"the opset {old} of a model larger than 2 GiB cannot be raised", hint=hint
        )
    if proto.functions:
        raise PassRefused(
            f"the model has local functions, so its opset cannot be raised from {old} to {version}",
            hint=f"run clean first, or {hint}",
        )
    try:
        raised = onnx.version_converter.convert_version(proto, version)
        onnx.checker.check_model(raised, full_check=True)
    except Exception as error:
        reason = first_line(error)
        raise PassRefused(
            f"the opset of the model cannot be raised from {old} to {version}: {reason}", hint=hint
        ) from error
    return raised


def _drop_initializer_inputs(proto: ModelProto) -> None:
    """Remove initializers from the graph inputs, where old files list all of them."""
    proto.ir_version = max(proto.ir_version, _MIN_IR)
    stored = {tensor.name for tensor in proto.graph.initializer}
    real_inputs = [value for value in proto.graph.input if value.name not in stored]
    del proto.graph.input[:]
    proto.graph.input.extend(real_inputs)


def _lift_constants(proto: ModelProto) -> None:
    """Convert the Constant nodes of the main graph to initializers."""
    nodes = []
    for node in proto.graph.node:
        value = _read_constant(node) if node.op_type == "Constant" else None
        if value is None:
            nodes.append(node)
        else:
            proto.graph.initializer.add().CopyFrom(value)
            proto.graph.initializer[-1].name = node.output[0]
    if len(nodes) != len(proto.graph.node):
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)


def _read_constant(node: NodeProto) -> TensorProto | None:
    """Return the tensor or numbers of a Constant node; ``None`` for other kinds."""
    value = read_attribute(node, "value", None)
    if isinstance(value, TensorProto):
        return value
    for name, dtype in _NUMBERS.items():
        numbers = read_attribute(node, name, None)
        if numbers is not None:
            return numpy_helper.from_array(np.array(numbers, dtype))
    return None


def _fold_small_casts(proto: ModelProto) -> None:
    """Fold casts of small constants, such as the bounds of Clip in exports of torch.

    Integers of 8 or 4 bits stay: they are quantized weights, however few.
    """
    index = GraphIndex(proto)
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        value = index.constant(node.input[0]) if node.op_type == "Cast" else None
        element_type, output = read_attribute(node, "to", 0), node.output[0] if node.output else ""
        few = value is not None and value.size <= _FEW and value.dtype.name not in INTEGER_TYPES
        if value is None or not few or element_type not in _PLAIN or output in index.outputs:
            nodes.append(node)
            continue
        cast = value.astype(helper.tensor_dtype_to_np_dtype(element_type))
        proto.graph.initializer.append(numpy_helper.from_array(cast, output))
    index.replace_nodes(nodes)
    GraphIndex(proto).drop_unread_constants()


def _fold_shapes(proto: ModelProto) -> None:
    """Store the result of Shape on constants, which passes must not change."""
    index = GraphIndex(proto)
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        tensor = index.initializers.get(node.input[0]) if node.op_type == "Shape" else None
        if tensor is None or node.output[0] in index.outputs:
            nodes.append(node)
            continue
        bounds = (read_attribute(node, name, None) for name in ("start", "end"))
        start, end = (bound if isinstance(bound, int) else None for bound in bounds)
        sizes = list(tensor.dims)[start:end]
        proto.graph.initializer.append(
            numpy_helper.from_array(np.array(sizes, np.int64), node.output[0])
        )
    index.replace_nodes(nodes)


def _drop_identities(proto: ModelProto) -> None:
    """Let nodes read constants directly instead of through an Identity."""
    index = GraphIndex(proto)
    renamed: dict[str, str] = {}
    nodes: list[NodeProto] = []
    for node in proto.graph.node:
        source = renamed.get(node.input[0], node.input[0]) if node.op_type == "Identity" else ""
        if source in index.initializers and node.output[0] not in index.outputs:
            renamed[node.output[0]] = source
        else:
            nodes.append(node)
    index.replace_nodes(nodes)
    rename_reads(proto, renamed)


def _refuse_quantized(proto: ModelProto) -> None:
    stored = {tensor.name for tensor in proto.graph.initializer}
    quantized_ops = {
        node.op_type
        for node in _iter_nodes(proto)
        if _is_quantized(node.op_type)
        and not (node.op_type == "DequantizeLinear" and node.input[0] in stored)
    }
    if quantized_ops:
        raise PassRefused(
            f"{QUANTIZED_ALREADY} ({', '.join(sorted(quantized_ops))})", quantized=True
        )


def _is_quantized(op: str) -> bool:
    return op in _QUANTIZED or op.startswith("QLinear")


def _iter_nodes(proto: ModelProto) -> Iterator[NodeProto]:
    for graph in iter_graphs(proto.graph):
        yield from graph.node
    for function in proto.functions:
        yield from function.node
