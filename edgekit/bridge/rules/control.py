"""If, Loop and Scan with what is known beforehand."""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from edgekit.bridge.lowering import Lowering

RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {}
