"""Quantization grids of weights: integers times scales, for any number of bits.

Shapes: G groups of a convolution (1 otherwise), O output channels of a group, I inputs of one
output value (channels of the group times kernel), B blocks of inputs that share a scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.packing.slices import estimate_packed_bits
from edgekit.compression.numerics import TINY, Doubles
from edgekit.compression.quantization.affine import Floats

_SHRINK = np.linspace(0.35, 1.0, 40)
# Steps of entropy grids relative to the size of the weights, finest first.
_STEPS = 2.0 ** np.arange(-7.0, 2.25, 0.25)
# How far the steps of a layer's channels follow the channels' own size: 0 not at all, 1 fully. A
# small channel is not as unimportant as its size, nor as important as a large one.
_FOLLOW = 0.6
# Bits of the mantissa of a scale. Short ones shrink the download; the grid uses the rounded value.
_MANTISSA_FIXED, _MANTISSA_ENTROPY = 8, 4
_OF_ZEROS = 2.0**-8
# Number of weights of a layer from which its rate and error are estimated.
_LOOKED_AT = 1 << 17
# Share of nonzero weights up to which the rate is computed by channel, as packing does.
_SPARSE = 0.5


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Quantization grid: integers from ``-largest`` to ``largest``, one scale per block of inputs.

    ``scales`` is [G, O, B], with B = 1 for a scale per output channel.
    """

    scales: Floats
    largest: int
    block: int = 0  # number of inputs that share a scale; 0: all of a channel

    def steps(self, inputs: int) -> Doubles:
        """Return the scale of each input, [G, O, I], or [G, O, 1] where all are the same."""
        wide = self.scales.astype(np.float64)
        return np.repeat(wide, self.block, axis=-1)[..., :inputs] if self.block else wide

    def round_weights(self, weight: Doubles) -> Doubles:
        """Return the nearest integers of the grid, [G, O, I]."""
        steps = self.steps(weight.shape[-1])
        return np.clip(np.rint(weight / steps), -self.largest, self.largest)

    def take_every(self, step: int) -> Grid:
        """Return the same grid for every ``step``-th output channel."""
        return Grid(scales=self.scales[:, ::step], largest=self.largest, block=self.block)


def build_entropy_grids(weight: Doubles, largest: int) -> list[Grid]:
    """Return grids with increasing steps, limited only by the largest integer, finest first.

    With entropy coding, the uniform grid without clipping has the least error for its bits.
    Source: Gish and Pierce 1968, "Asymptotically Efficient Quantizing".

    Args:
        weight: [G, O, I].
        largest: magnitude of the largest integer that the container holds.
    """
    size = np.sqrt(np.square(weight).mean(axis=-1))
    common = float(np.sqrt(np.square(weight).mean()))
    base = common ** (1 - _FOLLOW) * np.maximum(size, common * 1e-3) ** _FOLLOW
    least = np.abs(weight).max(axis=-1) / largest
    grids = []
    for step in _STEPS:
        scales = round_mantissa(np.maximum(step * base, TINY), _MANTISSA_ENTROPY)
        held = np.where(scales < least, round_mantissa(least * 1.07, _MANTISSA_ENTROPY), scales)
        # The bias scale is a multiple of this one, so the scale of a zero channel must not vanish.
        held = np.where(base < TINY, np.float32(_OF_ZEROS), held)
        grids.append(Grid(scales=held[..., None], largest=largest))
    return grids


def fit_fixed_grid(weight: Doubles, power: Doubles, largest: int, block: int = 0) -> Grid:
    """Find the grid of ``largest`` levels per sign with the least output error, by grid search.

    Args:
        weight: [G, O, I].
        power: mean square of each input, [G, I].
        largest: magnitude of the largest integer.
        block: number of inputs that share a scale; 0 for all of a channel.
    """
    groups, outputs, inputs = weight.shape
    size = block or inputs
    missing = -inputs % size
    parts = np.pad(weight, [(0, 0), (0, 0), (0, missing)]).reshape(groups, outputs, -1, size)
    loud = np.pad(power, [(0, 0), (0, missing)]).reshape(groups, -1, size)
    return Grid(scales=_search_scales(parts, loud, largest), largest=largest, block=block)


def _search_scales(parts: Doubles, power: Doubles, largest: int) -> Floats:
    """Search the scales [G, O, B] of weights [G, O, B, I / B] with the least output error."""
    peak = np.abs(parts).max(axis=-1, initial=0.0) / largest
    best = np.full(peak.shape, np.inf)
    scales = np.ones(peak.shape, np.float32)
    for shrink in _SHRINK:
        tried = round_mantissa(np.where(peak < TINY, 1.0, peak * shrink), _MANTISSA_FIXED)
        wide = tried[..., None].astype(np.float64)
        error = parts - np.clip(np.rint(parts / wide), -largest, largest) * wide
        cost = np.einsum("gobi,gbi->gob", np.square(error), power)
        better = cost < best
        best = np.where(better, cost, best)
        scales = np.where(better, tried, scales)
    return scales


def round_mantissa(values: Doubles, bits: int) -> Floats:
    """Return the nearest floats with a mantissa of ``bits`` bits."""
    mantissa, exponent = np.frexp(values)
    step = float(1 << bits)
    rounded: Floats = np.ldexp(np.rint(mantissa * step) / step, exponent).astype(np.float32)
    return rounded


def compute_entropy(integers: NDArray[np.generic]) -> float:
    """Compute the entropy of integers: bits per integer of an ideal coder (Shannon 1948)."""
    shifted = integers.ravel().astype(np.int16) + 128
    counts = np.bincount(shifted, minlength=1)
    share = counts[counts > 0] / max(shifted.size, 1)
    return float(-(share * np.log2(share)).sum())


def estimate_rate_and_error(weight: Doubles, power: Doubles, grid: Grid) -> tuple[float, float]:
    """Estimate the packed bits per weight on a grid, and the mean squared error of an output.

    Args:
        weight: [G, O, I].
        power: mean square of each input, [G, I].
        grid: grid that the weights are rounded to.
    """
    step = max(1, weight.size // _LOOKED_AT)
    step = min(step, weight.shape[1])
    some = weight[:, ::step]
    part = grid.take_every(step)
    integers = part.round_weights(some)
    error = np.square(some - integers * part.steps(weight.shape[-1]))
    sparse = np.count_nonzero(some) <= _SPARSE * some.size
    bits = compute_entropy(integers)
    if sparse:
        flat = integers.astype(np.int8).reshape(-1, integers.shape[-1])
        bits = min(bits, estimate_packed_bits(flat) / max(flat.size, 1))
    return bits, float(np.einsum("goi,gi->go", error, power).mean())
