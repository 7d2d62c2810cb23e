"""The largest entries, and boxes that do not overlap."""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from edgekit.bridge.lowering import Lowering

RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {}
