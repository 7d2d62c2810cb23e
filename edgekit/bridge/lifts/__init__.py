"""Conversion rules from TFLite operators to ONNX nodes, one module per group of operators."""

from __future__ import annotations

from edgekit.bridge.lifts import (
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
from edgekit.bridge.lifts.activations import Rule

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
