"""Conversion rules from ONNX operators to TFLite, one module per group of operators."""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.ops import (
    activations,
    bits,
    composed_functions,
    control,
    conv_transpose,
    convolution,
    einsum,
    elementwise,
    indexing,
    joining,
    non_max_suppression,
    normalization,
    padding,
    pooling,
    products,
    quantized,
    recurrent,
    reductions,
    resizing,
    sampling,
    scattering,
    selection,
    shapes,
    slicing,
)
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder
from edgekit.conversion.rule_tables import merge_rule_tables

Rule = Callable[[TfliteGraphBuilder, NodeProto], None]

RULES: dict[str, Rule] = merge_rule_tables(
    activations.RULES,
    bits.RULES,
    control.RULES,
    convolution.RULES,
    einsum.RULES,
    elementwise.RULES,
    indexing.RULES,
    joining.RULES,
    normalization.RULES,
    padding.RULES,
    pooling.RULES,
    products.RULES,
    quantized.RULES,
    recurrent.RULES,
    reductions.RULES,
    resizing.RULES,
    sampling.RULES,
    scattering.RULES,
    selection.RULES,
    non_max_suppression.RULES,
    shapes.RULES,
    slicing.RULES,
    composed_functions.RULES,
    conv_transpose.RULES,
)
