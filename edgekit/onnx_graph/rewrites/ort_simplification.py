"""Graph simplification by onnxruntime's "basic" optimizations: folding, no-op removal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto

from edgekit.errors import PassRefused, first_line
from edgekit.model import Model
from edgekit.onnx_graph.io import (
    is_large,
    iter_graphs,
    load,
    load_structure,
    make_session_options,
)
from edgekit.onnx_graph.operators import STANDARD_DOMAINS
from edgekit.onnx_graph.rewrites.name_fix import collect_names, rename_added

# A folded constant may be larger than its sources (Expand, Tile, ConstantOfShape).
_MAX_GROWTH = 1.05
_FILE = "folded.onnx"
# External weight file of a model over 2 GiB.
_DATA = "folded.data"
_INTEGERS = {TensorProto.INT8, TensorProto.INT4}
# Fusions that rename weights; ``channel_scaling`` folds the same and keeps the names.
_RENAMING = ("ConvAddFusion", "ConvBNFusion", "ConvMulFusion")


def load_folded(model: Model, folder: Path) -> ModelProto:
    """Load a model with its constants folded, ready to quantize; weights keep their names.

    ``fold_channel_scaling`` folds scales and shifts afterwards. The model is loaded unfolded if its
    weights are quantized already, as folding would turn them into floats, or if onnxruntime inserts
    its own operators.

    Args:
        model: the model.
        folder: for files that onnxruntime writes.
    """
    graph = load_structure(model.path).graph
    integers = {t.name for t in graph.initializer if t.data_type in _INTEGERS}
    nodes = (n for g in iter_graphs(graph) for n in g.node)
    if any(_dequantizes_weight(node, integers) for node in nodes):
        return load(model.path)
    return rewrite_basic(model, folder, without=_RENAMING) or load(model.path)


def _dequantizes_weight(node: NodeProto, integers: set[str]) -> bool:
    """Return whether a node converts stored integers to a float weight."""
    if node.op_type == "DequantizeLinear":
        return True
    return node.op_type == "Cast" and node.input[0] in integers


def rewrite_basic(model: Model, folder: Path, *, without: Sequence[str] = ()) -> ModelProto | None:
    """Run onnxruntime's "basic" optimizations: constant folding, fusion, no-op removal.

    Args:
        model: the model.
        folder: for files that onnxruntime writes.
        without: names of optimizers to disable.

    Returns:
        The rewritten model; ``None`` if onnxruntime inserted its own operators.

    Raises:
        PassRefused: onnxruntime fails on the model.
    """
    target = folder / _FILE
    _optimize(model, target, without=without)
    if _count_bytes(target) > _MAX_GROWTH * model.bytes:
        _optimize(model, target, without=[*without, "ConstantFolding"])
    proto = load(target)
    for path in (target, target.with_name(_DATA)):
        path.unlink(missing_ok=True)
    used = {node.domain for graph in iter_graphs(proto.graph) for node in graph.node}
    used |= {f.domain for f in proto.functions}
    before = load_structure(model.path)
    known = {node.domain for g in iter_graphs(before.graph) for node in g.node}
    if used - known - STANDARD_DOMAINS:
        return None
    rename_added(proto, collect_names(before))
    # onnxruntime replaces stated sizes by inferred ones, which are wrong for some AveragePools.
    stated = {output.name: output.type for output in before.graph.output}
    for output in proto.graph.output:
        output.type.CopyFrom(stated[output.name])
    imports = [o for o in proto.opset_import if o.domain in used | {""}]
    del proto.opset_import[:]
    proto.opset_import.extend(imports)
    del proto.graph.value_info[:]
    for graph in iter_graphs(proto.graph):
        for node in graph.node:
            node.ClearField("doc_string")
    return proto


def _count_bytes(path: Path) -> int:
    beside = path.with_name(_DATA)
    return path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)


def _optimize(model: Model, target: Path, *, without: Sequence[str]) -> None:
    options = make_session_options()
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
        reason = first_line(error)
        raise PassRefused(f"onnxruntime cannot rewrite the model: {reason}") from error
