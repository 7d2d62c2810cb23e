"""Changes of tables and other numbers: noise, and columns of other samples."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from edgekit.compression.distillation.augmentation.changes import draw
from edgekit.compression.distillation.augmentation.input_layouts import Floats, InputLayout

_NOISE = 0.1
_LARGEST_SHARE = 0.15
# A column with more zeros is sparse: its zeros stay.
_MOST_ZEROS = 0.5


def add_column_noise(
    values: Floats, layout: InputLayout, rng: Generator, strength: float
) -> Floats:
    """Add Gaussian noise of a tenth of the standard deviation of each column."""
    zeros = values == 0
    sparse = zeros & (zeros.mean(axis=0) > _MOST_ZEROS)
    scale = np.where(layout.get_changeable(values) & ~sparse, layout.get_spread(values), 0)
    noise = rng.standard_normal(values.shape) * draw(values, rng, 0, 2 * _NOISE * strength)
    return (values + scale * noise).astype(values.dtype)


def exchange_columns(
    values: Floats, layout: InputLayout, rng: Generator, strength: float
) -> Floats:
    """Take single numbers from other samples, each from the same column (Bahri 2022)."""
    others = rng.permuted(values, axis=0)
    chosen = rng.random(values.shape) < _LARGEST_SHARE * strength
    chosen &= layout.get_changeable(values) & np.isfinite(values) & np.isfinite(others)
    return np.where(chosen, others, values)
