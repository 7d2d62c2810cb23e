"""Ridge regression of a layer's weight and bias from sums over its inputs and target outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edgekit.compression.numerics import Doubles
from edgekit.compression.reconstruction.moments import Moments

# Ridges to try, relative to the mean variance of an input.
_RIDGES = (1e-7, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_MIDDLE = 3
# Ridge without samples to choose one by.
_BLIND = 1e-1
# Mean variance below which inputs are constant.
_DEAD = 1e-30
# Share of the target power below which an error is zero.
_NOTHING = 1e-12
# Factor by which a fit must lower the error of held-out samples.
_LOWERS = 1 - 1e-6


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Weight [G, O, I] of a fit, and the change of the bias [G, O]."""

    weight: Doubles
    shift: Doubles


@dataclass(frozen=True, kw_only=True)
class _Means:
    """Means of x xᵀ [G, I, I], y xᵀ [G, O, I], y² [G, O], x [G, I] and y [G, O]."""

    square: Doubles
    cross: Doubles
    power: Doubles
    x: Doubles
    y: Doubles
    count: int

    def compute_covariances(self) -> tuple[Doubles, Doubles]:
        """Compute the covariances of x with itself and of y with x."""
        square = self.square - self.x[:, :, None] * self.x[:, None, :]
        cross = self.cross - self.y[:, :, None] * self.x[:, None, :]
        return square, cross

    def error(self, fit: Fit) -> float:
        """Compute the mean squared error of a fit against y, summed over the outputs."""
        w, d = fit.weight, fit.shift
        total = ((w @ self.square) * w).sum() - 2 * (w * self.cross).sum() + self.power.sum()
        mean = np.einsum("goi,gi->go", w, self.x) - self.y
        return float(total + (2 * d * mean + d * d).sum())


def _compute_means(*parts: Moments) -> _Means:
    """Compute the means over the rows of all parts."""
    for part in parts:
        part.settle()
    count = sum(part.count for part in parts)
    over = 1.0 / max(count, 1)

    def average(sums: Iterable[Doubles]) -> Doubles:
        return sum(sums, np.zeros(1)) * over

    return _Means(
        square=average(part.square for part in parts),
        cross=average(part.cross for part in parts),
        power=average(part.target_square for part in parts),
        x=average(part.total for part in parts),
        y=average(part.target_total for part in parts),
        count=count,
    )


def fit_least_squares(
    weight: Doubles, learning: Moments, judging: Moments, *, biased: bool
) -> Fit | None:
    """Fit a weight and a bias shift so that the outputs are closest to the targets.

    argmin ||W' x + d - y||² + ridge ||W' - W||². The ridge is the one with the least error on the
    judging samples; the final fit uses all samples.

    Source: Hoerl and Kennard 1970, "Ridge Regression", about the present weight instead of zero;
    for pruned channels as He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural
    Networks", section 3.1.

    Args:
        weight: the present weight, [G, O, I].
        learning: sums over inputs and target outputs of some samples.
        judging: the same of held-out samples.
        biased: whether the layer can have a bias.

    Returns:
        The fit; ``None`` where none is better than the present weight.
    """
    learnt, judged = _compute_means(learning), _compute_means(judging)
    if not learnt.count:
        return None
    if not judged.count:
        return _solve(weight, learnt, _BLIND * (1 + weight.shape[2] / learnt.count), biased)
    ridge = _choose_ridge(weight, learnt, judged, biased)
    return (
        None if ridge is None else _solve(weight, _compute_means(learning, judging), ridge, biased)
    )


def _choose_ridge(weight: Doubles, learnt: _Means, judged: _Means, biased: bool) -> float | None:
    """Choose the ridge with the least error on the judging samples; ``None`` where no fit helps.

    The error falls and rises again with the ridge, so it is followed from the middle both ways.
    """
    present = judged.error(Fit(weight=weight, shift=np.zeros(weight.shape[:2])))
    if present <= _NOTHING * judged.power.sum():
        return None
    errors = {np.inf: judged.error(_solve(weight, learnt, np.inf, biased))}
    for ridges in (_RIDGES[_MIDDLE:], _RIDGES[_MIDDLE::-1]):
        least = np.inf
        for ridge in ridges:
            if ridge not in errors:
                errors[ridge] = judged.error(_solve(weight, learnt, ridge, biased))
            if errors[ridge] > least:
                break
            least = errors[ridge]
    best = min(errors, key=lambda ridge: errors[ridge])
    return best if errors[best] < _LOWERS * present else None


def _compute_ridge_terms(square: Doubles, ridge: float) -> Doubles:
    """Compute the term that a ridge adds to the diagonal of each group.

    Constant inputs leave nothing to learn: any ridge keeps their weights.
    """
    spread = np.diagonal(square, axis1=1, axis2=2).mean(axis=1)
    added: Doubles = np.where(spread > _DEAD, ridge * spread, 1.0)
    return added


def _solve(weight: Doubles, means: _Means, ridge: float, biased: bool) -> Fit:
    square, cross = means.compute_covariances() if biased else (means.square, means.cross)
    made = weight
    if np.isfinite(ridge):
        held = square + _compute_ridge_terms(square, ridge)[:, None, None] * np.eye(square.shape[1])
        missing = cross - weight @ square
        made = weight + np.linalg.solve(held, missing.transpose(0, 2, 1)).transpose(0, 2, 1)
    shift = means.y - np.einsum("goi,gi->go", made, means.x) if biased else np.zeros_like(means.y)
    return Fit(weight=made, shift=shift)
