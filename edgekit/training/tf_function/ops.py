"""Differentiable TensorFlow implementations of TFLite operators, by operator type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekit.tflite.ir import Op
from edgekit.training.tf_function import (
    convolution,
    elementwise,
    indexing,
    products,
    quantized,
    reductions,
    shapes,
    windows,
)

Apply = Callable[[Op, list[Any]], Any]

# Each entry takes an operator and the values of its inputs (NumPy arrays for constants that are
# not learned). It returns the value of the output, or a list of values for several outputs.
TABLE: dict[str, Apply] = {
    **convolution.TABLE,
    **elementwise.TABLE,
    **indexing.TABLE,
    **products.TABLE,
    **quantized.TABLE,
    **reductions.TABLE,
    **shapes.TABLE,
    **windows.TABLE,
}
