"""Conversion rules from TFLite operators to ONNX nodes, one module per group of operators."""

from __future__ import annotations

from edgekit.conversion.tflite_to_onnx.graph_builder import Rule
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

LIFTS: dict[str, Rule] = {
    **activations.LIFTS,
    **control.LIFTS,
    **convolution.LIFTS,
    **detection.LIFTS,
    **elementwise.LIFTS,
    **indexing.LIFTS,
    **joining.LIFTS,
    **pooling.LIFTS,
    **products.LIFTS,
    **recurrent.LIFTS,
    **reductions.LIFTS,
    **resizing.LIFTS,
    **selection.LIFTS,
    **shapes.LIFTS,
    **striding.LIFTS,
    **types.LIFTS,
}
