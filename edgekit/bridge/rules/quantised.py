"""QuantizeLinear, DequantizeLinear and operators on integers that stand for reals."""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from edgekit.bridge.lowering import Lowering

RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {}
