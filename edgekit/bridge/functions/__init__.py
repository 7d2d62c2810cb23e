"""TFLite's operators as TensorFlow computes them, differentiable: one entry for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekit.bridge.functions import (
    convolution,
    elementwise,
    indexing,
    products,
    quantised,
    reductions,
    shapes,
    windows,
)
from edgekit.bridge.graph import Op

Apply = Callable[[Op, list[Any]], Any]

# An operator and the values of its inputs (numpy's arrays where they are constants of the
# graph's own) -> the value of its output, or a list of values where it has several.
TABLE: dict[str, Apply] = {
    **convolution.TABLE,
    **elementwise.TABLE,
    **indexing.TABLE,
    **products.TABLE,
    **quantised.TABLE,
    **reductions.TABLE,
    **shapes.TABLE,
    **windows.TABLE,
}
