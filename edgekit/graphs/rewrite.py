"""Preparations that several graph edits share."""

from __future__ import annotations

import onnx
from onnx import ModelProto

from edgekit.errors import PassRefused
from edgekit.graphs.cost import count_ops
from edgekit.graphs.onnx_file import opset

_QUANTIZED = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
    "ConvInteger", "MatMulInteger",
}  # fmt: skip


def at_least_opset(proto: ModelProto, version: int) -> ModelProto:
    """The same model at opset ``version`` or above.

    Raises:
        PassRefused: ONNX's version converter cannot raise it.
    """
    if opset(proto) >= version:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, version)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise PassRefused(f"the model cannot be raised to opset {version}: {reason}") from error


def refuse_quantized(proto: ModelProto) -> None:
    """Refuse a model that holds quantised operators already.

    Raises:
        PassRefused: it does; says which.
    """
    found = _QUANTIZED & {name.rpartition(":")[2] for name in count_ops(proto)}
    if found:
        raise PassRefused(f"the model is quantised already ({', '.join(sorted(found))})")
