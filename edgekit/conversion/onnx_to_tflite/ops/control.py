"""Refusal of If, Loop and Scan whose branch or iteration count depends on the input data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder
from edgekit.onnx_graph.rewrites.constant_inputs import MOST_ENTRIES
from edgekit.onnx_graph.subgraph import find_upstream

_ONNXRUNTIME = "run this model with onnxruntime"


def _refuse_if(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    hint = _suggest_constants(builder, node.input[:1])
    raise builder.refusal(node, "has a condition that depends on the input data", hint=hint)


def _refuse_loop(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    hint = _suggest_constants(builder, node.input[:2])
    raise builder.refusal(
        node, "has a number of iterations that depends on the input data", hint=hint
    )


def _refuse_scan(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    raise builder.refusal(node, "has a number of iterations that depends on the input data")


def _suggest_constants(builder: TfliteGraphBuilder, decisive: Sequence[str]) -> str:
    """Suggest constants in edgekit.toml if only small inputs decide; empty if others do too.

    Args:
        builder: the conversion in progress.
        decisive: the values that decide which branch runs, or how often.
    """
    sources = find_upstream(builder.index, [name for name in decisive if name])
    model_inputs = [name for name in builder.graph.inputs if name in sources]
    if not model_inputs or any(
        math.prod(builder.types[name][1]) > MOST_ENTRIES for name in model_inputs
    ):
        return ""
    tables = ", ".join(f'[model.inputs."{name}"] constant = VALUE' for name in model_inputs)
    names = ", ".join(model_inputs)
    is_same = f"{names} is" if len(model_inputs) == 1 else f"{names} are"
    return (
        f"if {is_same} the same in every run, set it in edgekit.toml: {tables}; otherwise "
        f"{_ONNXRUNTIME}"
    )


RULES: dict[str, Callable[[TfliteGraphBuilder, NodeProto], None]] = {
    "If": _refuse_if,
    "Loop": _refuse_loop,
    "Scan": _refuse_scan,
}
