"""Conversion rules of pooling."""

from __future__ import annotations

from edgekit.bridge.graph import Op, Tensor
from edgekit.bridge.layout import Order
from edgekit.bridge.lifting import Lifting
from edgekit.bridge.lifts.axes import channels_first
from edgekit.bridge.lifts.convolution import window


def average_pool(lifting: Lifting, op: Op) -> None:
    """Convert AVERAGE_POOL_2D to AveragePool; pads do not count in the divisor."""
    lifting.bind(op, _averaged(lifting, op, lifting.read(*_first(lifting, op))), channels_first(4))


def max_pool(lifting: Lifting, op: Op) -> None:
    """Convert MAX_POOL_2D to MaxPool."""
    attributes = window(lifting, op, _kernel(op), dilate=False)
    made = lifting.node("MaxPool", [lifting.read(*_first(lifting, op))], attributes)
    lifting.bind(op, made, channels_first(4))


def l2_pool(lifting: Lifting, op: Op) -> None:
    """Convert L2_POOL_2D: the root of the mean square of each window."""
    x = lifting.read(*_first(lifting, op))
    mean = _averaged(lifting, op, lifting.node("Mul", [x, x]))
    lifting.bind(op, lifting.node("Sqrt", [mean]), channels_first(4))


def _first(lifting: Lifting, op: Op) -> tuple[Tensor, Order]:
    return lifting.tensor(op, 0), channels_first(4)


def _kernel(op: Op) -> list[int]:
    return [op.options["filter_height"], op.options["filter_width"]]


def _averaged(lifting: Lifting, op: Op, name: str) -> str:
    return lifting.node("AveragePool", [name], window(lifting, op, _kernel(op), dilate=False))


LIFTS = {"AVERAGE_POOL_2D": average_pool, "MAX_POOL_2D": max_pool, "L2_POOL_2D": l2_pool}
