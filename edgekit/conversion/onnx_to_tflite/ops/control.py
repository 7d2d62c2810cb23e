"""Refusal of If, Loop and Scan whose branch or iteration count depends on the input data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering
from edgekit.onnx_graph.rewrites.constant_inputs import MOST_ENTRIES
from edgekit.onnx_graph.subgraph import find_upstream

_ONNXRUNTIME = "run this model with onnxruntime"


def _refuse_if(low: Lowering, node: NodeProto) -> None:
    hint = _suggest_constants(low, node.input[:1])
    raise low.refusal(node, "has a condition that depends on the input data", hint=hint)


def _refuse_loop(low: Lowering, node: NodeProto) -> None:
    hint = _suggest_constants(low, node.input[:2])
    raise low.refusal(node, "has a number of iterations that depends on the input data", hint=hint)


def _refuse_scan(low: Lowering, node: NodeProto) -> None:
    raise low.refusal(node, "has a number of iterations that depends on the input data")


def _suggest_constants(low: Lowering, decisive: Sequence[str]) -> str:
    """Suggest constants in edgekit.toml if only small inputs decide; empty if others do too.

    Args:
        low: the conversion in progress.
        decisive: the values that decide which branch runs, or how often.
    """
    sources = find_upstream(low.index, [name for name in decisive if name])
    fed = [name for name in low.graph.inputs if name in sources]
    if not fed or any(math.prod(low.types[name][1]) > MOST_ENTRIES for name in fed):
        return ""
    tables = ", ".join(f'[model.inputs."{name}"] constant = VALUE' for name in fed)
    names = ", ".join(fed)
    is_same = f"{names} is" if len(fed) == 1 else f"{names} are"
    return (
        f"if {is_same} the same in every run, set it in edgekit.toml: {tables}; otherwise "
        f"{_ONNXRUNTIME}"
    )


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {
    "If": _refuse_if,
    "Loop": _refuse_loop,
    "Scan": _refuse_scan,
}
