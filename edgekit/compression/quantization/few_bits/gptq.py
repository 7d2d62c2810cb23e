"""GPTQ: quantize columns one by one and compensate the rounding error in the remaining ones.

Shapes: G groups of a convolution (1 otherwise), O output channels of a group, I inputs of one
output value (channels of the group times kernel).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.compression.numerics import TINY, Doubles
from edgekit.compression.quantization.few_bits.grids import Grid

# Share of the mean diagonal that is added to the diagonal, so that inputs that were always zero do
# not divide by zero; the first one that makes the matrix positive definite is taken.
_DAMPINGS = (0.01, 0.1, 1.0)
_BLOCK = 128


def quantize_gptq(weight: Doubles, hessian: Doubles, grid: Grid) -> NDArray[np.int8]:
    """Quantize a weight so that its products with the inputs stay closest to the original's.

    Inputs are quantized in the order of their power; the error of each is compensated in those
    still to come. Source: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for
    Generative Pre-trained Transformers".

    Args:
        weight: [G, O, I].
        hessian: mean of x xᵀ over the inputs, [G, I, I].
        grid: grid that the weights are rounded to; its scales stay unchanged.

    Returns:
        The integers, [G, O, I].
    """
    groups, outputs, inputs = weight.shape
    order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1, kind="stable")
    along = np.arange(groups)[:, None]
    left = weight[along[..., None], np.arange(outputs)[None, :, None], order[:, None, :]].copy()
    spread = _factor_inverse(hessian[along[..., None], order[:, :, None], order[:, None, :]])
    steps = np.broadcast_to(grid.steps(inputs), weight.shape)
    steps = steps[along[..., None], np.arange(outputs)[None, :, None], order[:, None, :]]
    integers = np.empty((groups, outputs, inputs), np.int8)
    for start in range(0, inputs, _BLOCK):
        stop = min(start + _BLOCK, inputs)
        errors = np.empty((groups, outputs, stop - start))
        for i in range(start, stop):
            step = steps[:, :, i]
            rounded = np.clip(np.rint(left[:, :, i] / step), -grid.largest, grid.largest)
            integers[:, :, i] = rounded
            error = (left[:, :, i] - rounded * step) / spread[:, None, i, i]
            left[:, :, i:stop] -= error[..., None] * spread[:, None, i, i:stop]
            errors[:, :, i - start] = error
        left[:, :, stop:] -= errors @ spread[:, start:stop, stop:]
    back = np.argsort(order, axis=1)
    return integers[along[..., None], np.arange(outputs)[None, :, None], back[:, None, :]]


def _factor_inverse(hessian: Doubles) -> Doubles:
    """Compute the upper Cholesky factor of the damped inverse, [G, I, I].

    numpy's factor L of A = L Lᵀ is lower; the recursion wants A = Uᵀ U, which Lᵀ is.
    """
    for damping in _DAMPINGS[:-1]:
        try:
            return _factor_damped(hessian, damping)
        except np.linalg.LinAlgError:  # not positive definite after rounding: damp more
            continue
    return _factor_damped(hessian, _DAMPINGS[-1])


def _factor_damped(hessian: Doubles, share: float) -> Doubles:
    inverse = np.linalg.inv(damp(hessian, share))
    inverse = (inverse + inverse.transpose(0, 2, 1)) / 2
    factor: Doubles = np.linalg.cholesky(inverse).transpose(0, 2, 1).astype(np.float64)
    return factor


def damp(hessian: Doubles, share: float = _DAMPINGS[0]) -> Doubles:
    """Add a share of the mean diagonal to the diagonal of a matrix, so that it can be inverted.

    Args:
        hessian: mean of x xᵀ over the inputs, [G, I, I].
        share: added part of the mean diagonal.
    """
    diagonal = np.diagonal(hessian, axis1=1, axis2=2)
    damping = share * diagonal.mean(axis=1) + TINY
    # The weights of an input that was always zero are rounded plainly.
    eye = np.eye(hessian.shape[-1])
    made: Doubles = hessian + eye * damping[:, None, None]
    made += eye * np.where(diagonal <= TINY, np.maximum(damping, 1e-12)[:, None], 0)[:, None, :]
    return made
