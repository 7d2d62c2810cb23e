"""Running second moments of a layer's inputs, and of pairs of inputs and targets."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgekit.compression.numerics import Doubles

Floats = NDArray[np.floating]

# Least power of an input, relative to the mean of all, for inputs that were always zero.
_LEAST_POWER = 1e-3
# Largest number of buffered positions; a few are multiplied together.
_MOST_WAITING = 512


@dataclass(kw_only=True)
class Moments:
    """Sums over rows of inputs x, and over the targets y that belong to them, in constant memory.

    Targets are, for example, the outputs that a layer shall give, or its inputs in another graph.
    Where there are none, their sums have no entries.
    """

    square: Doubles  # x xᵀ, [G, I, I]
    total: Doubles  # x, [G, I]
    cross: Doubles  # y xᵀ, [G, O, I]
    target_square: Doubles  # y², [G, O]
    target_total: Doubles  # y, [G, O]
    count: int = 0
    _waiting: list[tuple[Floats, Floats]] = field(default_factory=list)

    @classmethod
    def create_empty(cls, groups: int, inputs: int, targets: int = 0) -> Moments:
        """Create sums without rows."""
        return cls(
            square=np.zeros((groups, inputs, inputs)),
            total=np.zeros((groups, inputs)),
            cross=np.zeros((groups, targets, inputs)),
            target_square=np.zeros((groups, targets)),
            target_total=np.zeros((groups, targets)),
        )

    def add(self, rows: Floats, targets: Floats | None = None) -> None:
        """Add rows [G, positions, I], with their targets [G, positions, O].

        Few rows are buffered, as each product costs a matrix.
        """
        self._waiting.append((rows, rows[:, :, :0] if targets is None else targets))
        if sum(r.shape[1] for r, _ in self._waiting) >= min(rows.shape[2], _MOST_WAITING):
            self.settle()

    def settle(self) -> None:
        """Add the buffered rows to the sums."""
        if not self._waiting:
            return
        rows, targets = (np.concatenate(each, axis=1) for each in zip(*self._waiting, strict=True))
        self._waiting.clear()
        with np.errstate(over="ignore", invalid="ignore"):  # reported at the end
            self.square += rows.transpose(0, 2, 1) @ rows
            if self.cross.size:
                self.cross += targets.transpose(0, 2, 1) @ rows
                self.target_square += np.square(targets).sum(axis=1)
        self.total += rows.sum(axis=1, dtype=np.float64)
        self.target_total += targets.sum(axis=1, dtype=np.float64)
        self.count += rows.shape[1]

    def merge(self, other: Moments) -> None:
        """Add the sums of further samples."""
        self.settle()
        other.settle()
        self.square += other.square
        self.total += other.total
        self.cross += other.cross
        self.target_square += other.target_square
        self.target_total += other.target_total
        self.count += other.count

    def pair_with_itself(self) -> Moments:
        """Return the sums in which the targets are the inputs: those of an unchanged graph."""
        return Moments(
            square=self.square,
            total=self.total,
            cross=self.square,
            target_square=np.diagonal(self.square, axis1=1, axis2=2),
            target_total=self.total,
            count=self.count,
        )

    @property
    def power(self) -> Doubles:
        """Return the mean square of each input, [G, I], with a lower bound."""
        power: Doubles = np.diagonal(self.square, axis1=1, axis2=2)
        return bound_power(power / max(self.count, 1))

    @property
    def hessian(self) -> Doubles:
        """Return the mean of x xᵀ, shrunk towards its diagonal where few rows were seen."""
        return shrink_to_diagonal(self.square / max(self.count, 1), self.count)

    @property
    def mean(self) -> Doubles:
        """Return the mean of x, [G, I]."""
        return self.total / max(self.count, 1)


def bound_power(power: Doubles) -> Doubles:
    """Return mean squares [G, I] with a lower bound relative to their mean.

    An input that was always zero may be used later, so its weights must count.
    """
    mean = power.mean(axis=1, keepdims=True)
    return np.where(mean > 0, np.maximum(power, _LEAST_POWER * mean), 1.0)


def shrink_to_diagonal(second: Doubles, count: int) -> Doubles:
    """Shrink mean second moments [G, I, I] towards their diagonal where few rows were seen.

    With fewer rows than inputs, the directions that were not seen would count for nothing.
    Source: Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
    matrices", with the share of the diagonal computed from the counts alone.
    """
    inputs = second.shape[-1]
    share = inputs / (inputs + max(count, 1))
    diagonal = np.diagonal(second, axis1=1, axis2=2).copy()
    shrunk: Doubles = second * (1 - share)
    shrunk[:, np.arange(inputs), np.arange(inputs)] += share * diagonal
    return shrunk
