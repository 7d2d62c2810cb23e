"""Rewrites for tflite-runtime 2.14: newer op versions replaced by operators that it supports."""

from __future__ import annotations

import math

import numpy as np

from edgekit.tflite.ir import LiteGraph, Op, Quantization, Tensor, constant
from edgekit.tflite.rewriter import Wiring, int32, sweep


def avoid_newer_kernels(graph: LiteGraph) -> None:
    """Rewrite in place the operators that tflite-runtime 2.14 would refuse or compute wrongly."""
    sweep(graph, _replace_by_convolution, "FULLY_CONNECTED")


def _replace_by_convolution(wiring: Wiring, op: Op) -> None:
    """Rewrite a FULLY_CONNECTED with per-channel scales as a CONV_2D of one pixel.

    Release 2.14 applies the first scale to all channels; its convolutions read every scale.
    """
    source, weight, made = op.inputs[0], op.inputs[1], op.outputs[0]
    given = None if weight is None else weight.quantization
    if source is None or weight is None or weight.data is None or given is None:
        return
    if given.scales.size == 1 or source.dtype == "float32" or -1 in source.shape:
        return
    channels, depth = weight.shape
    rows = math.prod(source.shape) // depth
    image = Tensor(
        name=source.name,
        dtype=source.dtype,
        shape=(1, 1, rows, depth),
        quantization=source.quantization,
    )
    wiring.insert(op, "RESHAPE", [source, int32(image.shape)], image)
    kernel = constant(
        weight.name,
        weight.data.reshape(channels, 1, 1, depth),
        quantization=Quantization(
            scales=given.scales, zero_points=given.zero_points, axis=given.axis
        ),
    )
    bias = op.inputs[2] if len(op.inputs) > 2 else None
    bias = bias or _build_zero_bias(source, given, channels)
    pixels = Tensor(
        name=made.name,
        dtype=made.dtype,
        shape=(1, 1, rows, channels),
        quantization=made.quantization,
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
    wiring.insert(op, "CONV_2D", [image, kernel, bias], pixels, options)
    wiring.change_op(op, "RESHAPE", [pixels, int32(made.shape)])


def _build_zero_bias(source: Tensor, given: Quantization, channels: int) -> Tensor:
    wide = source.dtype == "int16"
    scale = 1.0 if source.quantization is None else float(source.quantization.scales.item())
    return constant(
        "bias",
        np.zeros(channels, np.int64 if wide else np.int32),
        quantization=Quantization(
            scales=(given.scales * np.float32(scale)).astype(np.float32),
            zero_points=np.zeros(given.scales.size, np.int64),
        ),
    )
