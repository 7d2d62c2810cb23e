"""Conversion rules of pooling."""

from __future__ import annotations

from edgekit.conversion.onnx_to_tflite.layout import Order
from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder
from edgekit.conversion.tflite_to_onnx.ops.axes import channels_first
from edgekit.conversion.tflite_to_onnx.ops.convolution import make_window_attributes
from edgekit.tflite.ir import Op, Tensor


def average_pool(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert AVERAGE_POOL_2D to AveragePool; pads do not count in the divisor."""
    builder.bind(
        op, _average(builder, op, builder.read(*_get_image(builder, op))), channels_first(4)
    )


def max_pool(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert MAX_POOL_2D to MaxPool."""
    attributes = make_window_attributes(builder, op, _read_kernel(op), dilate=False)
    result = builder.node("MaxPool", [builder.read(*_get_image(builder, op))], attributes)
    builder.bind(op, result, channels_first(4))


def l2_pool(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert L2_POOL_2D: the root of the mean square of each window."""
    x = builder.read(*_get_image(builder, op))
    mean = _average(builder, op, builder.node("Mul", [x, x]))
    builder.bind(op, builder.node("Sqrt", [mean]), channels_first(4))


def _get_image(builder: OnnxGraphBuilder, op: Op) -> tuple[Tensor, Order]:
    return builder.tensor(op, 0), channels_first(4)


def _read_kernel(op: Op) -> list[int]:
    return [op.options["filter_height"], op.options["filter_width"]]


def _average(builder: OnnxGraphBuilder, op: Op, name: str) -> str:
    return builder.node(
        "AveragePool", [name], make_window_attributes(builder, op, _read_kernel(op), dilate=False)
    )


RULES = {"AVERAGE_POOL_2D": average_pool, "MAX_POOL_2D": max_pool, "L2_POOL_2D": l2_pool}
