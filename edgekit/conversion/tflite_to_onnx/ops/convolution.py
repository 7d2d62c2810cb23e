"""Conversion rules of convolutions."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder
from edgekit.conversion.tflite_to_onnx.ops.axes import channels_first
from edgekit.tflite.ir import Op

# TfLiteTransposeConvParams as MediaPipe's converter stores them: padding, stride along the width,
# stride along the height.
_PARAMETERS = struct.Struct("<iii")
_PADDINGS = {1: "SAME", 2: "VALID"}
_AXES = {2: ("h", "w"), 3: ("d", "h", "w")}


def compute_same_pads(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """Compute the pads of SAME padding, which gives ``ceil(size / stride)`` outputs along an axis.

    An odd total adds one more zero at the end.

    Args:
        sizes: of the input, per spatial axis.
        kernel: its size, per spatial axis.
        strides: per spatial axis.
        dilations: per spatial axis.

    Returns:
        Pads before each axis, followed by those after each axis.

    Source: TensorFlow, ``tensorflow/lite/kernels/padding.h``.
    """
    total = [
        max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
    ]
    return [t // 2 for t in total] + [t - t // 2 for t in total]


def make_window_attributes(
    builder: OnnxGraphBuilder,
    op: Op,
    kernel: Sequence[int],
    *,
    position: int = 0,
    dilate: bool = True,
) -> dict[str, Any]:
    """Return kernel shape, strides, dilations and pads of an operator as ONNX attributes.

    Args:
        builder: the ONNX graph under construction.
        op: a convolution or pooling.
        kernel: its size, per spatial axis.
        position: of the image among the inputs.
        dilate: include the dilations.

    Raises:
        PassRefused: SAME padding along an axis whose size is only known at run time.
    """
    names = _AXES[len(kernel)]
    strides = [op.options.get(f"stride_{n}", 1) for n in names]
    dilations = [op.options.get(f"dilation_{n}_factor", 1) or 1 for n in names]
    result = {"kernel_shape": list(kernel), "strides": strides}
    if dilate:
        result["dilations"] = dilations
    if "pads" in op.options:
        result["pads"] = list(op.options["pads"])
    elif op.options.get("padding", "SAME") == "SAME":
        sizes = builder.require_shape(op, position)[1:-1]
        result["pads"] = compute_same_pads(sizes, kernel, strides, dilations)
    else:
        result["pads"] = [0] * 2 * len(kernel)
    return result


def conv_2d(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert CONV_2D with weights [out, height, width, in] to Conv.

    Weights with fewer input channels than the image mean groups.
    """
    x, weights = builder.tensor(op, 0), builder.tensor(op, 1)
    groups = max(x.shape[-1], 1) // weights.shape[-1] or 1
    _convolve(builder, op, weights.shape[1:3], (0, 3, 1, 2), groups)


def depthwise_conv_2d(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert DEPTHWISE_CONV_2D with weights [1, height, width, out] to a grouped Conv."""
    weights = builder.tensor(op, 1)
    multiplier = op.options.get("depth_multiplier", 1) or 1
    channels = builder.tensor(op, 0).shape[-1]
    groups = channels if channels > 0 else weights.shape[-1] // multiplier
    _convolve(builder, op, weights.shape[1:3], (3, 0, 1, 2), groups)


def _convolve(
    builder: OnnxGraphBuilder, op: Op, kernel: Sequence[int], layout: tuple[int, ...], groups: int
) -> None:
    x, weights = builder.tensor(op, 0), builder.tensor(op, 1)
    order = channels_first(4)
    inputs = [builder.read(x, order), builder.weights(op, 1, layout)]
    if bias := builder.bias(op, 2, [x, weights]):
        inputs.append(bias)
    attributes = make_window_attributes(builder, op, kernel) | {"group": groups}
    builder.bind(op, builder.node("Conv", inputs, attributes), order)


def conv_3d(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert CONV_3D with weights [depth, height, width, in, out] to Conv."""
    x, weights = builder.tensor(op, 0), builder.tensor(op, 1)
    order = channels_first(5)
    inputs = [builder.read(x, order), builder.weights(op, 1, (4, 3, 0, 1, 2))]
    if bias := builder.bias(op, 2, [x, weights]):
        inputs.append(bias)
    attributes = make_window_attributes(builder, op, weights.shape[:3])
    builder.bind(op, builder.node("Conv", inputs, attributes), order)


def transpose_conv(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert TRANSPOSE_CONV to ConvTranspose.

    Inputs are output sizes, weights [out, height, width, in], image and optionally a bias. Pads
    are those of the convolution that the operator transposes. If they leave the output too small,
    ``output_padding`` fills it up at the end.

    Raises:
        PassRefused: sizes that are only known at run time.
    """
    strides = (op.options["stride_h"], op.options["stride_w"])
    result = builder.shape(op.outputs[0])[1:3]
    if min(result) < 0:
        result = tuple(builder.integers(op, 0)[1:3])
    same = op.options.get("padding", "SAME") == "SAME"
    _convolve_transposed(
        builder,
        op,
        _TransposedConvolution(image=2, bias=3, strides=strides, made=result, same=same),
    )


def transpose_conv_bias(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert MediaPipe's Convolution2DTransposeBias to ConvTranspose.

    Inputs are the image, weights [out, height, width, in] and a bias.

    Raises:
        PassRefused: sizes that are only known at run time, or options in an unknown format.
    """
    raw = op.options.get("custom_options", b"")
    if len(raw) != _PARAMETERS.size:
        raise builder.refusal(op, "has options in an unknown format")
    padding, width, height = _PARAMETERS.unpack(raw)
    result = builder.shape(op.outputs[0])[1:3]
    if padding not in _PADDINGS or min(width, height) < 1 or min(result, default=-1) < 0:
        raise builder.refusal(op, "has options in an unknown format")
    back = _TransposedConvolution(
        image=0, bias=2, strides=(height, width), made=result, same=_PADDINGS[padding] == "SAME"
    )
    _convolve_transposed(builder, op, back)


@dataclass(frozen=True, kw_only=True)
class _TransposedConvolution:
    """Transposed convolution: input positions, strides, output sizes (``made``), SAME padding."""

    image: int
    bias: int
    strides: tuple[int, int]
    made: Sequence[int]
    same: bool


def _convolve_transposed(builder: OnnxGraphBuilder, op: Op, back: _TransposedConvolution) -> None:
    weights, x = builder.tensor(op, 1), builder.tensor(op, back.image)
    order, kernel = channels_first(4), weights.shape[1:3]
    sizes = builder.require_shape(op, back.image)[1:3]
    begins, ends, fill = [], [], []
    for size, out, k, s in zip(sizes, back.made, kernel, back.strides, strict=True):
        surplus = (size - 1) * s + k - out
        begins.append(max(surplus, 0) // 2 if back.same else 0)
        ends.append(max(surplus - begins[-1], 0))
        fill.append(max(-surplus, 0))
    inputs = [builder.read(x, order), builder.weights(op, 1, (3, 0, 1, 2))]
    if bias := builder.bias(op, back.bias, [x, weights]):
        inputs.append(bias)
    attributes = {
        "kernel_shape": list(kernel),
        "strides": list(back.strides),
        "pads": begins + ends,
        "output_padding": fill,
    }
    builder.bind(op, builder.node("ConvTranspose", inputs, attributes), order)


RULES = {
    "CUSTOM:Convolution2DTransposeBias": transpose_conv_bias,
    "CONV_2D": conv_2d,
    "CONV_3D": conv_3d,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "TRANSPOSE_CONV": transpose_conv,
}
