"""Weights on a grid of few levels, with the error of each one carried by those that follow.

Shapes: G groups of a convolution (1 otherwise), O output channels of a group, I inputs of one
output value (channels of the group times kernel).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.passes.affine import Floats

Doubles = NDArray[np.float64]

# Share of the mean diagonal that is added to it, so that unseen inputs do not divide by zero.
_DAMPING = 0.01
_BLOCK = 128
_SHRINK = np.linspace(0.35, 1.0, 40)
_TINY = 1e-30


def mse_scales(weight: Doubles, power: Doubles, largest: int) -> Floats:
    """The scale of each output channel with the least error of its output, by grid search.

    Args:
        weight: [G, O, I].
        power: mean square of each input, [G, I].
        largest: magnitude of the largest integer.

    Returns:
        [G, O], rounded to 8 bits of mantissa: what travels compresses better, and the search
        sees the rounded values.
    """
    peak = np.abs(weight).max(axis=-1, initial=0.0) / largest
    best = np.full(peak.shape, np.inf)
    scales = np.ones(peak.shape, np.float32)
    for shrink in _SHRINK:
        tried = _short_mantissa(np.where(peak < _TINY, 1.0, peak * shrink))
        wide = tried[..., None].astype(np.float64)
        error = weight - np.clip(np.rint(weight / wide), -largest, largest) * wide
        cost = np.einsum("goi,gi->go", np.square(error), power)
        better = cost < best
        best = np.where(better, cost, best)
        scales = np.where(better, tried, scales)
    return scales


def _short_mantissa(values: Doubles) -> Floats:
    mantissa, exponent = np.frexp(values)
    rounded: Floats = np.ldexp(np.rint(mantissa * 256) / 256, exponent).astype(np.float32)
    return rounded


def gptq(weight: Doubles, hessian: Doubles, scales: Floats, largest: int) -> NDArray[np.int8]:
    """Integers whose products with the inputs come closest to those of the weights.

    Inputs are taken in the order of their power; the error of each is spread over those still
    to come. Source: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for
    Generative Pre-trained Transformers".

    Args:
        weight: [G, O, I].
        hessian: mean of x xᵀ over the inputs, [G, I, I].
        scales: [G, O].
        largest: magnitude of the largest integer.
    """
    groups, outputs, inputs = weight.shape
    order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1, kind="stable")
    along = np.arange(groups)[:, None]
    left = weight[along[..., None], np.arange(outputs)[None, :, None], order[:, None, :]].copy()
    spread = _inverse_factor(hessian[along[..., None], order[:, :, None], order[:, None, :]])
    wide = scales.astype(np.float64)
    integers = np.empty((groups, outputs, inputs), np.int8)
    for start in range(0, inputs, _BLOCK):
        stop = min(start + _BLOCK, inputs)
        errors = np.empty((groups, outputs, stop - start))
        for i in range(start, stop):
            rounded = np.clip(np.rint(left[:, :, i] / wide), -largest, largest)
            integers[:, :, i] = rounded
            error = (left[:, :, i] - rounded * wide) / spread[:, None, i, i]
            left[:, :, i:stop] -= error[..., None] * spread[:, None, i, i:stop]
            errors[:, :, i - start] = error
        left[:, :, stop:] -= errors @ spread[:, start:stop, stop:]
    back = np.argsort(order, axis=1)
    return integers[along[..., None], np.arange(outputs)[None, :, None], back[:, None, :]]


def _inverse_factor(hessian: Doubles) -> Doubles:
    """Upper Cholesky factor of the damped inverse, [G, I, I]."""
    diagonal = np.diagonal(hessian, axis1=1, axis2=2)
    damping = _DAMPING * diagonal.mean(axis=1) + _TINY
    # An input that was never anything but zero takes its weights as they are.
    eye = np.eye(hessian.shape[-1])
    damped = hessian + eye * damping[:, None, None]
    damped += eye * np.where(diagonal <= _TINY, np.maximum(damping, 1e-12)[:, None], 0)[:, None, :]
    inverse = np.linalg.inv(damped)
    inverse = (inverse + inverse.transpose(0, 2, 1)) / 2
    factor: Doubles = np.linalg.cholesky(inverse).transpose(0, 2, 1).astype(np.float64)
    if not np.isfinite(factor).all():
        raise np.linalg.LinAlgError("the inputs of a layer are too large to be squared")
    # numpy's factor L of A = L Lᵀ is lower; the recursion wants A = Uᵀ U, which Lᵀ is.
    return factor
