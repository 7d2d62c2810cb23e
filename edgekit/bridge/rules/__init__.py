"""Conversion rules from ONNX operators to TFLite, one module per group of operators."""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from edgekit.bridge.lowering import Lowering
from edgekit.bridge.rules import (
    activations,
    bits,
    control,
    convolution,
    einsum,
    elementwise,
    indexing,
    joining,
    normalisation,
    padding,
    pooling,
    products,
    quantised,
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

Rule = Callable[[Lowering, NodeProto], None]

RULES: dict[str, Rule] = {
    **activations.RULES,
    **bits.RULES,
    **control.RULES,
    **convolution.RULES,
    **einsum.RULES,
    **elementwise.RULES,
    **indexing.RULES,
    **joining.RULES,
    **normalisation.RULES,
    **padding.RULES,
    **pooling.RULES,
    **products.RULES,
    **quantised.RULES,
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
