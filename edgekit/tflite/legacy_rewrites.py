"""Rewrites for tflite-runtime 2.14: newer op versions replaced by operators that it supports."""

from __future__ import annotations

import math

import numpy as np

from edgekit.tflite.ir import LiteGraph, Op, Quantization, Tensor, constant
from edgekit.tflite.rewriter import GraphRewriter, int32, sweep


def avoid_newer_kernels(graph: LiteGraph) -> None:
    """Rewrite in place the operators that tflite-runtime 2.14 would refuse or compute wrongly."""
    sweep(graph, _replace_by_convolution, "FULLY_CONNECTED")


def _replace_by_convolution(rewriter: GraphRewriter, op: Op) -> None:
    """Rewrite a FULLY_CONNECTED with per-channel scales as a CONV_2D of one pixel.

    Release 2.14 applies the first scale to all channels; its convolutions read every scale.
    """
    source, weight, output = op.inputs[0], op.inputs[1], op.outputs[0]
    quantization = None if weight is None else weight.quantization
    if source is None or weight is None or weight.data is None or quantization is None:
        return
    if quantization.scales.size == 1 or source.dtype == "float32" or -1 in source.shape:
        return
    channels, depth = weight.shape
    rows = math.prod(source.shape) // depth
    image = Tensor(
        name=source.name,
        dtype=source.dtype,
        shape=(1, 1, rows, depth),
        quantization=source.quantization,
    )
    rewriter.insert(op, "RESHAPE", [source, int32(image.shape)], image)
    kernel = constant(
        weight.name,
        weight.data.reshape(channels, 1, 1, depth),
        quantization=Quantization(
            scales=quantization.scales, zero_points=quantization.zero_points, axis=quantization.axis
        ),
    )
    bias = op.inputs[2] if len(op.inputs) > 2 else None
    bias = bias or _build_zero_bias(source, quantization, channels)
    pixels = Tensor(
        name=output.name,
        dtype=output.dtype,
        shape=(1, 1, rows, channels),
        quantization=output.quantization,
    )
    activation = op.options.get("fused_activation_function", "NONE")
    options = {
        "padding": "VALID",
        "stride_h": 1,
        "stride_w": 1,
        "dilation_h_factor": 1,
        "dilation_w_factor": 1,
        "fused_activation_function": activation,
    }
    rewriter.insert(op, "CONV_2D", [image, kernel, bias], pixels, options)
    rewriter.change_op(op, "RESHAPE", [pixels, int32(output.shape)])


def _build_zero_bias(source: Tensor, quantization: Quantization, channels: int) -> Tensor:
    is_int16 = source.dtype == "int16"
    scale = 1.0 if source.quantization is None else float(source.quantization.scales.item())
    return constant(
        "bias",
        np.zeros(channels, np.int64 if is_int16 else np.int32),
        quantization=Quantization(
            scales=(quantization.scales * np.float32(scale)).astype(np.float32),
            zero_points=np.zeros(quantization.scales.size, np.int64),
        ),
    )
