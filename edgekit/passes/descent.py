"""Integers and scales brought closer to what the inputs ask for, in turn, after GPTQ.

Shapes: G groups of a convolution (1 otherwise), O output channels of a group, I inputs of one
output value.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgekit.passes.gptq import damped
from edgekit.passes.grids import Doubles, Grid, short_mantissa

_ROUNDS = 2
_BLOCK = 128
_TINY = 1e-30
# Mantissa of a fitted scale, in bits, and the inputs that a channel must have to be worth them.
_MANTISSA = 5
_LEAST_INPUTS = 64
# Part of zeros from which on all of them stay.
_SPARSE = 0.5


def descend(
    weight: Doubles, hessian: Doubles, grid: Grid, integers: NDArray[np.int8]
) -> tuple[NDArray[np.int8], Grid]:
    """Integers and a grid whose products with the inputs are no further from the weights' ones.

    Scales are fitted by least squares, then each integer is set to the best one beside the
    others, one input after the other. Scales of blocks and of short channels stay as they are, and
    so do zeros among many, or in the place of zeros: packed, they cost next to nothing.

    Source: Behdin et al. 2023, "QuantEase: Optimization-based Quantization for Language Models".

    Args:
        weight: [G, O, I].
        hessian: mean of x xᵀ over the inputs, [G, I, I].
        grid: where the weights are rounded to.
        integers: those to begin with, [G, O, I].
    """
    hessian = damped(hessian)
    now, best = integers.astype(np.float64), (integers, grid)
    least = _cost(weight, hessian, now * grid.steps(weight.shape[-1]))
    for _ in range(_ROUNDS):
        grid = _fitted(weight, hessian, grid, now)
        now = _swept(weight, hessian, grid, now)
        cost = _cost(weight, hessian, now * grid.steps(weight.shape[-1]))
        if cost < least:
            least, best = cost, (now.astype(np.int8), grid)
    return best


def _cost(weight: Doubles, hessian: Doubles, restored: Doubles) -> float:
    error = weight - restored
    return float(np.sum((error @ hessian) * error))


def _fitted(weight: Doubles, hessian: Doubles, grid: Grid, integers: Doubles) -> Grid:
    """The grid with the scale of each channel that suits its integers best."""
    if grid.block or weight.shape[-1] < _LEAST_INPUTS:
        return grid
    seen = integers @ hessian
    across, along = np.sum(seen * weight, axis=-1), np.sum(seen * integers, axis=-1)
    old = grid.scales[..., 0].astype(np.float64)
    fits = (across > 0) & (along > _TINY)
    scales = np.where(fits, across / np.where(fits, along, 1.0), old)
    return replace(grid, scales=short_mantissa(scales, _MANTISSA)[..., None])


def _swept(weight: Doubles, hessian: Doubles, grid: Grid, integers: Doubles) -> Doubles:
    """Every integer in its turn the best one beside the others."""
    inputs = weight.shape[-1]
    steps = np.broadcast_to(grid.steps(inputs), weight.shape)
    power = np.maximum(np.diagonal(hessian, axis1=1, axis2=2), _TINY)
    zeros = integers == 0
    if not zeros.mean() > _SPARSE:
        zeros &= weight == 0
    integers = integers.copy()
    pull = (weight - integers * steps) @ hessian
    for start in range(0, inputs, _BLOCK):
        stop = min(start + _BLOCK, inputs)
        moved = np.zeros((*weight.shape[:2], stop - start))
        for i in range(start, stop):
            step, old = steps[:, :, i], integers[:, :, i]
            wanted = old + pull[:, :, i] / (power[:, None, i] * step)
            new = np.clip(np.rint(wanted), -grid.largest, grid.largest)
            new = np.where(zeros[:, :, i], 0.0, new)
            change = (new - old) * step
            integers[:, :, i] = new
            pull[:, :, i:stop] -= change[..., None] * hessian[:, None, i, i:stop]
            moved[:, :, i - start] = change
        pull[:, :, stop:] -= moved @ hessian[:, start:stop, stop:]
    return integers
