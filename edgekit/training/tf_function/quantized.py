"""Quantization whose gradient passes straight through the rounding.

Between QUANTIZE and DEQUANTIZE, integers are held as floats, because gradients need floats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from edgekit.tflite.ir import Array, Op, Tensor

_TINY = float(np.finfo(np.float32).tiny)
_BOUNDS = {"int4": (-8, 7), "uint4": (0, 15)}


@tf.custom_gradient  # type: ignore[untyped-decorator]
def round_straight_through(value: Any) -> Any:  # noqa: ANN401 - TensorFlow has no types
    """Round to the nearest integer, ties to even, with the gradient of the identity.

    Source: Bengio et al., Estimating or Propagating Gradients Through Stochastic Neurons for
    Conditional Computation, 2013 (straight-through estimator).
    """
    return tf.round(value), lambda upstream: upstream


def cast_straight_through(value: Any, dtype: str) -> Any:  # noqa: ANN401
    """Round float32 values to those of a narrower type, with the gradient of the identity."""
    return _replace_straight_through(value, tf.cast(tf.cast(value, dtype), tf.float32))


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _replace_straight_through(value: Any, rounded: Any) -> Any:  # noqa: ANN401
    del value
    return tf.identity(rounded), lambda upstream: (upstream, None)


def fake_quantize(value: Any, scale: Any, lowest: Any, highest: Any) -> Any:  # noqa: ANN401
    """Fake-quantize values: clip them and round them to the grid of a scale.

    The gradient of the value is 1 inside the grid and 0 outside. The gradient of the scale is the
    rounding error (in steps) inside and the bound outside.

    Args:
        value: float32.
        scale: above zero, in a shape that broadcasts against the value.
        lowest: smallest integer less the zero point.
        highest: largest integer less the zero point.

    Source: Esser et al., Learned Step Size Quantization, ICLR 2020, equations 1-3 and 5.
    """
    return round_straight_through(tf.clip_by_value(value / scale, lowest, highest)) * scale


def get_integer_bounds(dtype: str) -> tuple[int, int]:
    """Return the smallest and largest integer of a type, int4 and uint4 included."""
    if dtype in _BOUNDS:
        return _BOUNDS[dtype]
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def scale_gradient(value: Any, factor: Any) -> Any:  # noqa: ANN401
    """Return a value unchanged, with its gradient multiplied by a factor."""
    return tf.identity(value), lambda upstream: (upstream * factor, None)


def compute_gradient_factor(elements: float, highest: float) -> float:
    """Compute the factor for the gradient of a scale that lets it learn at the pace of the weights.

    Args:
        elements: number of values that share the scale.
        highest: the largest integer.

    Source: Esser et al., Learned Step Size Quantization, ICLR 2020, section 2.2.
    """
    return float(1 / np.sqrt(max(elements * highest, 1.0)))


def _read_scale(tensor: Tensor, learned: Any) -> tuple[Any, Array]:  # noqa: ANN401
    """Return scale and zero point of a stored tensor, in shapes that broadcast against it."""
    quantization = tensor.quantization
    assert quantization is not None
    shape = [1] * len(tensor.shape)
    if quantization.scales.size > 1:
        shape[quantization.axis] = quantization.scales.size
    zero_points = quantization.zero_points.astype(np.float32).reshape(shape)
    if learned is None:
        return np.maximum(quantization.scales, _TINY).reshape(shape), zero_points
    _, highest = get_integer_bounds(tensor.dtype)
    elements = np.prod(tensor.shape[1:], dtype=np.float64) / quantization.scales.size
    scale = tf.reshape(learned, shape)
    return scale_gradient(scale, compute_gradient_factor(elements, highest)), zero_points


def quantize(op: Op, args: list[Any], learned: Any = None) -> Any:  # noqa: ANN401
    """Compute QUANTIZE: quantize reals, or requantize integers; the result is held as floats.

    Args:
        op: the operator.
        args: one value: reals, or integers held as floats that have another scale.
        learned: replaces the scale that the operator stores; ``None`` keeps that.
    """
    output = op.outputs[0]
    value = args[0]
    source = op.inputs[0]
    if source is not None and source.quantization is not None:
        value = _to_real(source, value, None)
    scale, zero_point = _read_scale(output, learned)
    lowest, highest = get_integer_bounds(output.dtype)
    levels = tf.clip_by_value(value / scale, lowest - zero_point, highest - zero_point)
    return round_straight_through(levels) + zero_point


def dequantize(op: Op, args: list[Any], learned: Any = None) -> Any:  # noqa: ANN401
    """Compute DEQUANTIZE: the reals that integers represent; 16-bit floats become float32.

    Args:
        op: the operator.
        args: one value: integers held as floats, or 16-bit floats.
        learned: replaces the scale that the operator stores; ``None`` keeps that.
    """
    source = op.inputs[0]
    if source is None or source.quantization is None:
        return tf.cast(args[0], tf.float32)  # of 16-bit floats
    return _to_real(source, args[0], learned)


def _to_real(tensor: Tensor, value: Any, learned: Any) -> Any:  # noqa: ANN401
    scale, zero_point = _read_scale(tensor, learned)
    return (tf.cast(value, tf.float32) - zero_point) * scale


TABLE: dict[str, Callable[..., Any]] = {"DEQUANTIZE": dequantize, "QUANTIZE": quantize}
