"""Conversion rules of pooling."""

from __future__ import annotations

from edgekit.conversion.onnx_to_tflite.layout import Order
from edgekit.conversion.tflite_to_onnx.graph_builder import Lifting
from edgekit.conversion.tflite_to_onnx.ops.axes import channels_first
from edgekit.conversion.tflite_to_onnx.ops.convolution import make_window_attributes
from edgekit.tflite.ir import Op, Tensor


def average_pool(lifting: Lifting, op: Op) -> None:
    """Convert AVERAGE_POOL_2D to AveragePool; pads do not count in the divisor."""
    lifting.bind(
        op, _average(lifting, op, lifting.read(*_get_image(lifting, op))), channels_first(4)
    )


def max_pool(lifting: Lifting, op: Op) -> None:
    """Convert MAX_POOL_2D to MaxPool."""
    attributes = make_window_attributes(lifting, op, _read_kernel(op), dilate=False)
    made = lifting.node("MaxPool", [lifting.read(*_get_image(lifting, op))], attributes)
    lifting.bind(op, made, channels_first(4))


def l2_pool(lifting: Lifting, op: Op) -> None:
    """Convert L2_POOL_2D: the root of the mean square of each window."""
    x = lifting.read(*_get_image(lifting, op))
    mean = _average(lifting, op, lifting.node("Mul", [x, x]))
    lifting.bind(op, lifting.node("Sqrt", [mean]), channels_first(4))


def _get_image(lifting: Lifting, op: Op) -> tuple[Tensor, Order]:
    return lifting.tensor(op, 0), channels_first(4)


def _read_kernel(op: Op) -> list[int]:
    return [op.options["filter_height"], op.options["filter_width"]]


def _average(lifting: Lifting, op: Op, name: str) -> str:
    return lifting.node(
        "AveragePool", [name], make_window_attributes(lifting, op, _read_kernel(op), dilate=False)
    )


LIFTS = {"AVERAGE_POOL_2D": average_pool, "MAX_POOL_2D": max_pool, "L2_POOL_2D": l2_pool}
