"""Layers of a quantized model that onnxruntime computes in float, with reasons."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import onnx
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto

from edgekit.compression.pass_specs import Work
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import is_large, make_session_options, save
from edgekit.onnx_graph.operators import is_standard
from edgekit.onnx_graph.rewrites.dequantization import make_cast_and_mul

# Layers with fewer weights cost little in float.
_LEAST_ENTRIES = 1024
# Weight inputs by operator; recurrent layers are reported by their own trials.
_LAYERS = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1)}
# Float kernels of onnxruntime, fused operators included.
_FLOAT_KERNELS = {*_LAYERS, "FusedConv", "FusedGemm", "FusedMatMul"}
_INTEGER_KINDS = {"Conv", "Gemm", "MatMul"}
# Operators between a stored weight and its reader.
_RESTORING = {"DequantizeLinear", "Cast", "Mul", "Transpose", "Reshape"}
_FILE = "kernels.onnx"
_MOST_NAMED = 5
_SLOW = "; its weight is dequantized at each inference, which is slow"
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class FloatLayer:
    """Layer that onnxruntime computes in float."""

    name: str
    output: str  # its first output
    reason: str
    dequantized: bool  # whether its weight is dequantized at each inference


def widen_and_note_float_layers(
    proto: ModelProto,
    work: Work,
    *,
    known: Mapping[str, str] = _NOTHING,
    noted: Set[str] = frozenset(),
) -> set[str]:
    """Widen weights of float kernels at load, and note the layers computed in float with reasons.

    The kernels are read from the optimized graph that onnxruntime writes when it loads the file.
    Weights for float kernels are changed so that they are dequantized once at load instead of at
    each inference. Models over 2 GiB are not checked.

    Args:
        proto: the model, edited in place, before ``compact`` removes the names.
        work: work of the pass.
        known: reasons by operator that the pass itself knows.
        noted: first outputs of layers that the pass has already reported.

    Returns:
        First outputs of all layers that the user was told of.
    """
    if is_large(proto):
        return set(noted)
    found = find_float_layers(proto, work.scratch, known)
    slow = {layer.output for layer in found if layer.dequantized}
    if slow and _widen_at_load(proto, slow):
        # Only the original graph shows why a layer has no integer kernel.
        before = {layer.output: layer.reason for layer in found}
        found = find_float_layers(proto, work.scratch, known)
        found = [replace(each, reason=before.get(each.output, each.reason)) for each in found]
    reasons: dict[str, list[str]] = defaultdict(list)
    for layer in (each for each in found if each.output not in noted):
        reasons[layer.reason + (_SLOW if layer.dequantized else "")].append(layer.name)
    for reason, names in reasons.items():
        work.note(f"computed in float: {_join_names(names)}: {reason}")
    return {each.output for each in found} | noted


def find_float_layers(
    proto: ModelProto, folder: Path, known: Mapping[str, str] = _NOTHING
) -> list[FloatLayer]:
    """Find the layers with large weights that onnxruntime computes in float.

    Args:
        proto: the model, below 2 GiB.
        folder: for temporary files.
        known: reasons by operator.
    """
    index = GraphIndex(proto)
    in_float = _find_float_kernel_inputs(proto, folder)
    found = []
    for node in proto.graph.node:
        for place in _find_large_weights(index, node):
            name = node.input[place]
            keys = {name, _find_integers(index.producer, name)} & in_float.keys()
            if not keys:
                continue
            dequantized = any(in_float[key] for key in keys)
            why = known.get(node.op_type) or _explain(index, node, place)
            label, output = node.name or node.output[0], node.output[0]
            found.append(FloatLayer(name=label, output=output, reason=why, dequantized=dequantized))
            break
    return found


def _find_large_weights(index: GraphIndex, node: NodeProto) -> list[int]:
    """Return the inputs of a layer that are large stored weights; none for other nodes."""
    places = _LAYERS.get(node.op_type, ()) if is_standard(node) else ()
    return [p for p in places if p < len(node.input) and _is_large(index, node.input[p])]


def _widen_at_load(proto: ModelProto, outputs: Set[str]) -> bool:
    """Dequantize int8 weights by Cast and Mul, which onnxruntime folds at load, in place.

    Args:
        proto: the model.
        outputs: first outputs of the layers with these weights.

    Returns:
        Whether any weight was changed.
    """
    index = GraphIndex(proto)
    front: list[NodeProto] = []
    for node in proto.graph.node:
        if node.output[0] not in outputs:
            continue
        for place in _find_large_weights(index, node):
            if restored := make_cast_and_mul(index, node.input[place]):
                front += restored
                node.input[place] = restored[-1].output[0]
    read = {name for node in proto.graph.node for name in node.input}
    read |= index.outputs | index.inner_reads
    rest = [n for n in proto.graph.node if n.op_type != "DequantizeLinear" or n.output[0] in read]
    index.replace_nodes([*front, *rest])
    GraphIndex(proto).drop_unread_constants()
    return bool(front)


def _find_float_kernel_inputs(proto: ModelProto, folder: Path) -> dict[str, bool]:
    """Find weights that float kernels read, by name, with whether inference dequantizes them."""
    graph = _optimize(proto, folder).graph
    producer = {name: node for node in graph.node for name in node.output}
    read: dict[str, bool] = {}
    for node in graph.node:
        if node.op_type not in _FLOAT_KERNELS:
            continue
        for name in node.input:
            maker = producer.get(name)
            dequantized = maker is not None and maker.op_type == "DequantizeLinear"
            read[_find_integers(producer, name)] = dequantized
            read[name] = dequantized
    return read


def _find_integers(producer: Mapping[str, NodeProto], name: str) -> str:
    """Return the integers that a value is dequantized from, or the value itself."""
    maker = producer.get(name)
    return str(maker.input[0]) if maker and maker.op_type == "DequantizeLinear" else name


def _optimize(proto: ModelProto, folder: Path) -> ModelProto:
    source, target = folder / _FILE, folder / f"run-{_FILE}"
    save(proto, source)
    options = make_session_options()
    # The next level changes the layout of weights, and their names with it.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    try:
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        return onnx.load(str(target))
    finally:
        for path in (source, target):
            path.unlink(missing_ok=True)


def _is_large(index: GraphIndex, name: str) -> bool:
    """Return whether a value is a large stored weight, directly or after dequantization."""
    stored = _find_stored(index, name)
    return stored is not None and bool(math.prod(stored.dims) >= _LEAST_ENTRIES)


def _find_stored(index: GraphIndex, name: str) -> TensorProto | None:
    """Find the constant behind a value, directly or through dequantization."""
    while (stored := index.initializers.get(name)) is None:
        maker = index.producer.get(name)
        if maker is None or maker.op_type not in _RESTORING:
            return None
        name = maker.input[0]
    return stored


def _explain(index: GraphIndex, node: NodeProto, place: int) -> str:
    if node.op_type not in _INTEGER_KINDS:
        return (
            f"onnxruntime has no integer kernel for {node.op_type} with these attributes and types"
        )
    if place == 0:
        return "its weight is the left operand, which no integer kernel supports"
    stored = _find_stored(index, node.input[1])
    if node.op_type == "MatMul" and stored is not None and len(stored.dims) > 2:
        return "integer kernels support one weight matrix, not a batch of matrices"
    made = index.producer.get(node.input[0])
    if made is None or made.op_type != "DequantizeLinear":
        return "its input is not quantized"
    bias = index.producer.get(node.input[2]) if len(node.input) > 2 else None
    if len(node.input) > 2 and node.input[2] and bias is None:
        return "its bias is not a constant"
    return "onnxruntime chose no integer kernel for it"


def _join_names(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
