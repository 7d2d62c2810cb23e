"""The graph after onnxruntime's "basic" rewrites: constants and BatchNorm folded, no-ops gone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto

from edgekit.errors import PassRefused, first_line
from edgekit.graphs.names import names_of, rename_added
from edgekit.graphs.onnx_file import all_graphs, is_large, load, load_structure
from edgekit.model import Model

# A folded constant may be larger than what it is made of (Expand, Tile, ConstantOfShape).
_MAX_GROWTH = 1.05
_FILE = "folded.onnx"
# Where onnxruntime puts the weights of a model that is more than one file can hold.
_DATA = "folded.data"
_INTEGERS = {TensorProto.INT8, TensorProto.INT4}
_STANDARD = {"", "ai.onnx"}
# These give weights new names; ``channel_scaling`` does the same and keeps them.
_RENAMING = ("ConvAddFusion", "ConvBNFusion", "ConvMulFusion")


def load_folded(model: Model, folder: Path) -> ModelProto:
    """The model with constants folded, as a pass that quantizes it needs it; names stay.

    ``fold_channel_scaling`` does the rest. Left as it is where weights are quantized already,
    which folding would widen, or where onnxruntime cannot fold it without operators of its own.

    Args:
        model: the model.
        folder: where onnxruntime may write.
    """
    graph = load_structure(model.path).graph
    integers = {t.name for t in graph.initializer if t.data_type in _INTEGERS}
    nodes = (n for g in all_graphs(graph) for n in g.node)
    if any(_restores(node, integers) for node in nodes):
        return load(model.path)
    return rewrite_basic(model, folder, without=_RENAMING) or load(model.path)


def _restores(node: NodeProto, integers: set[str]) -> bool:
    """Whether a node makes a weight of stored integers."""
    if node.op_type == "DequantizeLinear":
        return True
    return node.op_type == "Cast" and node.input[0] in integers


def rewrite_basic(model: Model, folder: Path, *, without: Sequence[str] = ()) -> ModelProto | None:
    """Fold constants, BatchNorm, Pad and Mul into Conv, MatMul and Add into Gemm, drop no-ops.

    Args:
        model: the model.
        folder: where onnxruntime may write.
        without: names of rewrites that are left out.

    Returns:
        The model; ``None`` where onnxruntime put operators of its own into it.

    Raises:
        PassRefused: onnxruntime fails on the model.
    """
    target = folder / _FILE
    _optimize(model, target, without=without)
    if _bytes(target) > _MAX_GROWTH * model.bytes:
        _optimize(model, target, without=[*without, "ConstantFolding"])
    proto = load(target)
    for path in (target, target.with_name(_DATA)):
        path.unlink(missing_ok=True)
    used = {node.domain for graph in all_graphs(proto.graph) for node in graph.node}
    used |= {f.domain for f in proto.functions}
    before = load_structure(model.path)
    if used - {node.domain for g in all_graphs(before.graph) for node in g.node} - _STANDARD:
        return None
    rename_added(proto, names_of(before))
    imports = [o for o in proto.opset_import if o.domain in used | {""}]
    del proto.opset_import[:]
    proto.opset_import.extend(imports)
    del proto.graph.value_info[:]
    for graph in all_graphs(proto.graph):
        for node in graph.node:
            node.ClearField("doc_string")
    return proto


def _bytes(path: Path) -> int:
    beside = path.with_name(_DATA)
    return path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)


def _optimize(model: Model, target: Path, *, without: Sequence[str]) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    if is_large(load_structure(model.path)):
        key = "session.optimized_model_external_initializers_file_name"
        options.add_session_config_entry(key, _DATA)
    try:
        ort.InferenceSession(
            str(model.path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(without),
        )
    except Exception as error:  # onnxruntime's own exceptions have no common base
        said = first_line(error)
        raise PassRefused(f"onnxruntime cannot rewrite the model: {said}") from error
