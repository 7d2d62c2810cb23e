"""Conversion rules from ONNX operators to TFLite, one module per group of operators."""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.ops import (
    activations,
    bits,
    control,
    convolution,
    einsum,
    elementwise,
    indexing,
    joining,
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
    special,
    suppression,
    transposed,
)
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder

Rule = Callable[[TfliteGraphBuilder, NodeProto], None]

RULES: dict[str, Rule] = {
    **activations.RULES,
    **bits.RULES,
    **control.RULES,
    **convolution.RULES,
    **einsum.RULES,
    **elementwise.RULES,
    **indexing.RULES,
    **joining.RULES,
    **normalization.RULES,
    **padding.RULES,
    **pooling.RULES,
    **products.RULES,
    **quantized.RULES,
    **recurrent.RULES,
    **reductions.RULES,
    **resizing.RULES,
    **sampling.RULES,
    **scattering.RULES,
    **selection.RULES,
    **suppression.RULES,
    **shapes.RULES,
    **slicing.RULES,
    **special.RULES,
    **transposed.RULES,
}
