"""If, Loop and Scan that are left when a graph is settled: only the run knows their way."""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from edgekit.bridge.lowering import Lowering


def _branch(low: Lowering, node: NodeProto) -> None:
    raise low.refusal(node, "takes a branch that only the data tells")


def _loop(low: Lowering, node: NodeProto) -> None:
    raise low.refusal(node, "goes a number of rounds that only the data tells")


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {
    "If": _branch,
    "Loop": _loop,
    "Scan": _loop,
}
