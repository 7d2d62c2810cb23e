"""Coordinate descent over the integers and scales that GPTQ found.

Shapes: G groups of a convolution (1 otherwise), O output channels of a group, I inputs of one
output value.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgekit.compression.numerics import TINY, Doubles
from edgekit.compression.quantization.few_bits.gptq import damp
from edgekit.compression.quantization.few_bits.grids import Grid, round_mantissa

_ROUNDS = 2
_BLOCK = 128
# Bits of the mantissa of a fitted scale, and the least number of inputs that justifies them.
_MANTISSA = 5
_LEAST_INPUTS = 64
# Share of zeros above which all of them stay.
_SPARSE = 0.5


def descend(
    weight: Doubles, hessian: Doubles, grid: Grid, integers: NDArray[np.int8]
) -> tuple[NDArray[np.int8], Grid]:
    """Improve integers and scales in turn so that the output error does not rise.

    Scales are fitted by least squares; then each integer is set to the best one given the others,
    input by input. Scales of blocks and of short channels stay unchanged. Zeros stay where they are
    frequent, or where the weight itself is zero: packed, they cost next to nothing.

    Source: Behdin et al. 2023, "QuantEase: Optimization-based Quantization for Language Models".

    Args:
        weight: [G, O, I].
        hessian: mean of x xᵀ over the inputs, [G, I, I].
        grid: grid of the integers.
        integers: the integers to start from, [G, O, I].

    Returns:
        The best integers, and their grid.
    """
    hessian = damp(hessian)
    now, best = integers.astype(np.float64), (integers, grid)
    least = _compute_cost(weight, hessian, now * grid.steps(weight.shape[-1]))
    for _ in range(_ROUNDS):
        grid = _fit_scales(weight, hessian, grid, now)
        now = _sweep_integers(weight, hessian, grid, now)
        cost = _compute_cost(weight, hessian, now * grid.steps(weight.shape[-1]))
        if cost < least:
            least, best = cost, (now.astype(np.int8), grid)
    return best


def _compute_cost(weight: Doubles, hessian: Doubles, restored: Doubles) -> float:
    error = weight - restored
    return float(np.sum((error @ hessian) * error))


def _fit_scales(weight: Doubles, hessian: Doubles, grid: Grid, integers: Doubles) -> Grid:
    """Return the grid with the best scale of each channel for its integers."""
    if grid.block or weight.shape[-1] < _LEAST_INPUTS:
        return grid
    seen = integers @ hessian
    across, along = np.sum(seen * weight, axis=-1), np.sum(seen * integers, axis=-1)
    old = grid.scales[..., 0].astype(np.float64)
    fits = (across > 0) & (along > TINY)
    scales = np.where(fits, across / np.where(fits, along, 1.0), old)
    return replace(grid, scales=round_mantissa(scales, _MANTISSA)[..., None])


def _sweep_integers(weight: Doubles, hessian: Doubles, grid: Grid, integers: Doubles) -> Doubles:
    """Set each integer in turn to the best one given the others."""
    inputs = weight.shape[-1]
    steps = np.broadcast_to(grid.steps(inputs), weight.shape)
    power = np.maximum(np.diagonal(hessian, axis1=1, axis2=2), TINY)
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
