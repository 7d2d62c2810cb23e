"""Example inputs as flat arrays, and random inputs drawn to resemble them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from edgekit.conversion.importers.registry import Arrays
from edgekit.errors import UserError


def flatten_examples(
    example: object, *, display_name: str
) -> tuple[list[str], list[NDArray[np.generic]]]:
    """Return names ('' where absent) and arrays of example inputs; empty lists without examples.

    Raises:
        UserError: An example is no array of numbers.
    """
    if example is None:
        return [], []
    if isinstance(example, Mapping):
        pairs = [(str(k), v) for k, v in example.items()]
    else:
        pairs = [("", v) for v in (example if isinstance(example, (tuple, list)) else [example])]
    arrays = [np.asarray(value) for _, value in pairs]
    for array in arrays:
        if array.dtype.kind not in "biuf":
            raise UserError(f"{display_name}: example inputs must be arrays of numbers")
    return [name for name, _ in pairs], arrays


def build_sampler(arrays: Arrays) -> Callable[[int], Arrays]:
    """Return a sampler of random inputs, of any number of rows, that resemble examples.

    The inputs have the range, shape and type of the examples.
    """

    def draw(rows: int) -> Arrays:
        rng = np.random.default_rng(rows)
        return [_draw_like(np.asarray(a), rows, rng) for a in arrays]

    return draw


def _draw_like(
    array: NDArray[np.generic], rows: int, rng: np.random.Generator
) -> NDArray[np.generic]:
    shape = (rows, *array.shape[1:]) if array.ndim else ()
    if array.dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    values = array.astype(np.float64)
    if array.dtype.kind != "f":
        low, high = (int(f(values)) for f in (np.min, np.max)) if array.size else (0, 1)
        return rng.integers(low, high + 1, shape).astype(array.dtype)
    spread = float(values.std()) if array.size else 1.0
    middle = float(values.mean()) if array.size else 0.0
    return (middle + (spread or 1.0) * rng.normal(size=shape)).astype(array.dtype)
