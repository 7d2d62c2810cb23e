"""Fold constants and BatchNorm and drop what has no effect, by onnxruntime's basic rewrites."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from edgekit.errors import PassRefused, first_line
from edgekit.graphs.onnx_file import all_graphs, is_large, load, load_structure, save
from edgekit.model import Model
from edgekit.passes import Work
from edgekit.recipe import Clean

# A folded constant may be larger than what it is made of (Expand, Tile, ConstantOfShape).
_MAX_GROWTH = 1.05
# Where onnxruntime puts the weights of a model that is more than one file can hold.
_DATA = "optimised.data"


def clean(model: Model, settings: Clean, work: Work) -> Path:
    """Rewrite a graph without changing what it computes; only standard operators come out.

    Source: onnxruntime's "basic" graph optimisations (constant folding, BatchNorm, Pad and Mul
    into Conv, MatMul and Add into Gemm, identities).
    """
    del settings
    target = work.scratch / "clean.onnx"
    _optimise(model.path, target, without=[])
    if _bytes(target) > _MAX_GROWTH * model.bytes:
        _optimise(model.path, target, without=["ConstantFolding"])
    proto = load(target)
    used = {node.domain for graph in all_graphs(proto.graph) for node in graph.node}
    used |= {f.domain for f in proto.functions}
    before = {node.domain for g in all_graphs(load_structure(model.path).graph) for node in g.node}
    if used - before - {"", "ai.onnx"}:
        raise PassRefused("clean: onnxruntime put operators of its own into the graph")
    imports = [o for o in proto.opset_import if o.domain in used | {""}]
    del proto.opset_import[:]
    proto.opset_import.extend(imports)
    del proto.graph.value_info[:]
    for graph in all_graphs(proto.graph):
        for node in graph.node:
            node.ClearField("doc_string")
    save(proto, target)
    return target


def _bytes(path: Path) -> int:
    beside = path.with_name(_DATA)
    return path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)


def _optimise(source: Path, target: Path, *, without: list[str]) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    if is_large(load_structure(source)):
        key = "session.optimized_model_external_initializers_file_name"
        options.add_session_config_entry(key, _DATA)
    try:
        ort.InferenceSession(
            str(source), options, providers=["CPUExecutionProvider"], disabled_optimizers=without
        )
    except Exception as error:  # onnxruntime's own exceptions have no common base
        said = first_line(error)
        raise PassRefused(f"clean: onnxruntime cannot rewrite the model: {said}") from error
