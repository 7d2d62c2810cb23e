"""Elementary random changes of samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edgekit.compression.distillation.augmentation.input_kinds import Array
from edgekit.compression.distillation.augmentation.input_layouts import Floats, InputLayout

# Inputs in the order of axes of their layouts.
Rows = Mapping[str, Array]
RowsFunction = Callable[[Rows, Generator, float], dict[str, Array]]
InputFunction = Callable[[Floats, InputLayout, Generator, float], Floats]


@dataclass(frozen=True, kw_only=True)
class Change:
    """An elementary random change.

    Attributes:
        noun: The change in plain words, for example "horizontal flips".
        share: Share of the samples that are changed, of those that may change.
        function: Returns the changed inputs, given all inputs of some samples and a strength.
        strength: 1 for the full strength; less is weaker.
        is_adjustable: A smaller strength gives a weaker change.
    """

    noun: str
    share: float
    function: RowsFunction
    strength: float = 1.0
    is_adjustable: bool = True

    def apply_to_all(self, rows: Rows, rng: Generator) -> dict[str, Array]:
        """Change all samples."""
        return {**rows, **self.function(rows, rng, self.strength)}

    def apply_to_some(self, rows: Rows, rng: Generator, allowed: NDArray[np.bool_]) -> None:
        """Change a random part of the allowed samples in place."""
        chosen = np.flatnonzero(allowed & (rng.random(len(allowed)) < self.share))
        if chosen.size:
            part = {name: values[chosen] for name, values in rows.items()}
            for name, values in self.function(part, rng, self.strength).items():
                rows[name][chosen] = values


def change_each(layouts: Sequence[InputLayout], function: InputFunction) -> RowsFunction:
    """Apply a function to several inputs, with the same random choices for inputs of one shape."""

    def change(rows: Rows, rng: Generator, strength: float) -> dict[str, Array]:
        seed = int(rng.integers(2**32))
        return {
            each.name: function(rows[each.name], each, np.random.default_rng(seed), strength)
            for each in layouts
        }

    return change


def draw(values: Floats, rng: Generator, low: float, high: float, channels: int = 1) -> Floats:
    """Draw a number for each sample, or for each of its channels, that broadcasts with values."""
    shape = (len(values), channels, *(1,) * (values.ndim - 2))[: values.ndim]
    return rng.uniform(low, high, shape).astype(values.dtype)
