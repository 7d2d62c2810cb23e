"""Conversion rules from TFLite operators to ONNX nodes, one module per group of operators."""

from __future__ import annotations

from edgekit.conversion.rule_tables import merge_rule_tables
from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import Rule
from edgekit.conversion.tflite_to_onnx.ops import (
    activations,
    control,
    convolution,
    detection,
    elementwise,
    indexing,
    joining,
    pooling,
    products,
    recurrent,
    reductions,
    resizing,
    selection,
    shapes,
    striding,
    types,
)

RULES: dict[str, Rule] = merge_rule_tables(
    activations.RULES,
    control.RULES,
    convolution.RULES,
    detection.RULES,
    elementwise.RULES,
    indexing.RULES,
    joining.RULES,
    pooling.RULES,
    products.RULES,
    recurrent.RULES,
    reductions.RULES,
    resizing.RULES,
    selection.RULES,
    shapes.RULES,
    striding.RULES,
    types.RULES,
)
