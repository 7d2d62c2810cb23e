"""Integer weights and biases of convolutions and fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.tflite.ir import Array, Op, Quantization, Tensor, constant
from edgekit.tflite.kernel_constraints import Layer
from edgekit.tflite.quantization_math import (
    LARGEST_RATIO,
    SMALLEST_RATIO,
    broadcast_along_axis,
    dequantize_constant,
)


def build_layer_inputs(
    op: Op, layer: Layer, image: Tensor, stored: Sequence[Tensor | None], output: Tensor
) -> list[Tensor | None] | None:
    """Return the inputs of a layer's integer kernel; ``None`` if no kernel takes its weights.

    Args:
        op: The layer, still on floats.
        layer: Positions of its inputs.
        image: Quantized activations with one scale.
        stored: Inputs of the layer; a dequantized constant is given as its integers.
        output: Quantized output that the layer is to compute.
    """
    weight = stored[layer.weight]
    if weight is None or not _has_kernel(weight, layer):
        return None
    narrow = _limit_weight_scales(_narrow_weights(weight), image, output)
    if narrow is None:
        return None
    bias = stored[layer.bias] if len(stored) > layer.bias else None
    row = _quantize_bias(op, layer, image, narrow, bias)
    if row is None and (bias is not None or layer.needs_bias):
        return None
    inputs: list[Tensor | None] = list(stored[: layer.bias])
    inputs[layer.image], inputs[layer.weight] = image, narrow
    return [*inputs, row]


def _has_kernel(weight: Tensor, layer: Layer) -> bool:
    """Return whether weights are symmetric int8, per tensor or along the axis of the kernel."""
    quantization = weight.quantization
    if (
        weight.data is None
        or weight.dtype != "int8"
        or quantization is None
        or quantization.zero_points.any()
    ):
        return False
    return quantization.scales.size == 1 or quantization.axis == layer.axis


def _narrow_weights(weight: Tensor) -> Tensor:
    """Clip int8 weights to -127..127.

    Kernels for Arm without dot products add two products in 16 bits, which -128 would overflow.
    """
    if weight.data is None or weight.data.min(initial=0) > -128:
        return weight
    return constant(weight.name, np.maximum(weight.data, -127), quantization=weight.quantization)


def _limit_weight_scales(weight: Tensor, image: Tensor, output: Tensor) -> Tensor | None:
    """Adjust weight scales to the range that a kernel can requantize; ``None`` if one is too large.

    Channels too faint to change any output get zero weights and the smallest allowed scale.
    """
    quantization = weight.quantization
    if weight.data is None or quantization is None or image.quantization is None:
        return None
    if output.quantization is None:
        return None
    per_unit = image.quantization.scales.astype(np.float64) / output.quantization.scales
    ratios = quantization.scales * per_unit
    if not (ratios < LARGEST_RATIO).all():
        return None
    faint = ratios < SMALLEST_RATIO
    if not faint.any():
        return weight
    scales = np.where(faint, SMALLEST_RATIO / per_unit * 1.001, quantization.scales).astype(
        np.float32
    )
    kept_channels = broadcast_along_axis(~faint, quantization.axis, weight.data.ndim)
    return constant(
        weight.name,
        (weight.data * kept_channels).astype(np.int8),
        quantization=Quantization(
            scales=scales, zero_points=quantization.zero_points, axis=quantization.axis
        ),
    )


def _quantize_bias(
    op: Op, layer: Layer, image: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor | None:
    """Quantize the bias with the accumulator's scale: input scale times weight scale."""
    if image.quantization is None or weight.quantization is None:
        return None
    is_int16 = image.dtype == "int16"
    scales = image.quantization.scales.astype(np.float64) * weight.quantization.scales
    quantization = Quantization(
        scales=scales.astype(np.float32), zero_points=np.zeros(scales.size, np.int64)
    )
    if bias is None and not layer.needs_bias:
        return None
    reals = np.zeros(op.outputs[0].shape[-1]) if bias is None else _read_reals(bias)
    if reals is None:
        return None
    integers = np.rint(reals.ravel() / np.maximum(scales, np.finfo(np.float64).tiny))
    largest = 2**62 if is_int16 else 2**31 - 1
    if not np.abs(integers).max(initial=0) <= largest:  # NaN too
        return None
    name = "bias" if bias is None else bias.name
    return constant(
        name, integers.astype(np.int64 if is_int16 else np.int32), quantization=quantization
    )


def _read_reals(bias: Tensor) -> Array | None:
    if bias.data is None:
        return None
    if bias.quantization is not None:
        return dequantize_constant(bias)
    return bias.data.astype(np.float64) if bias.dtype == "float32" else None
