"""Sparse weights of one layer: the mask and the remaining weights, found together (ADMM).

Shapes: G groups of a convolution (1 otherwise), O output channels of a group, I inputs of one
output value (channels of the group times kernel).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.compression.numerics import TINY, Doubles

Mask = NDArray[np.bool_]

# Penalty of the distance between the dense and the sparse weights, for inputs of power 1.
_TIE = 0.6
# Number of rounds, and of the rounds in which the mask gets sparser.
_ROUNDS, _THINNING = 30, 20
# Steps of the least-squares fit on the mask; the rounds leave little to improve.
_FIT_STEPS = 12
# A row is fitted when its squared residual has dropped to this share; further steps are rounding.
_FITTED = 1e-20
# Tolerance for a number of weights that is whole but for the last digits.
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class ShareRule:
    """Rule that removes a share of all weights of a layer."""

    sparsity: float

    def build_intermediate(self, done: float) -> ShareRule:
        """Return the rule at ``done`` of the schedule, from 0 to 1, in ever smaller steps.

        Source: Zhu and Gupta 2017, "To prune, or not to prune".
        """
        return ShareRule(sparsity=self.sparsity * (1 - (1 - done) ** 3))

    def mask(self, scores: NDArray[np.floating]) -> Mask:
        """Return the mask of the weights that stay, [G, O, I]: the highest scores of the layer."""
        gone = math.ceil(self.sparsity * scores.size - _ROUNDING)
        mask = np.ones(scores.size, bool)
        if gone:
            mask[np.argpartition(scores.ravel(), gone - 1)[:gone]] = False
        return mask.reshape(scores.shape)


@dataclass(frozen=True, kw_only=True)
class PatternRule:
    """Rule that keeps ``kept`` of each ``block`` consecutive inputs (N:M sparsity)."""

    kept: int
    block: int

    def build_intermediate(self, done: float) -> PatternRule:
        """Return the rule at ``done`` of the schedule (0 to 1), one weight of a block at a time."""
        gone = round((self.block - self.kept) * done)
        return PatternRule(kept=self.block - gone, block=self.block)

    def mask(self, scores: NDArray[np.floating]) -> Mask:
        """Return the mask of the weights that stay, [G, O, I]: the highest scores of each block."""
        cut = scores.reshape(-1, self.block)
        order = np.argsort(np.argsort(-cut, axis=1, kind="stable"), axis=1)
        return (order < self.kept).reshape(scores.shape)


Rule = ShareRule | PatternRule


@dataclass(frozen=True, kw_only=True)
class LayerObjective:
    """Least-squares objective of a layer: the error of W is tr(W H Wᵀ) - 2 tr(W Tᵀ) + constant.

    Args:
        weight: the layer's own weights, [G, O, I].
        hessian: H, mean of x xᵀ over the inputs, [G, I, I]; no zeros on the diagonal.
        target: T, mean of y xᵀ for the target outputs y, [G, O, I].
    """

    weight: Doubles
    hessian: Doubles
    target: Doubles

    def error(self, weight: Doubles) -> float:
        """Compute the squared error of other weights against these, for the same inputs."""
        off = weight - self.weight
        return max(float(np.sum((off @ self.hessian) * off)), 0.0)

    @property
    def norms(self) -> Doubles:
        """Return the root of the power of each input, [G, 1, I]."""
        norms: Doubles = np.sqrt(np.diagonal(self.hessian, axis1=1, axis2=2))[:, np.newaxis, :]
        return norms


def prune_by_magnitude(weight: Doubles, rule: Rule) -> Doubles:
    """Set the smallest weights to zero; the others stay unchanged.

    Args:
        weight: [G, O, I].
        rule: how many weights stay, and where.
    """
    return weight * rule.mask(np.abs(weight))


def prune_by_power(aim: LayerObjective, rule: Rule) -> Doubles:
    """Set the weights with the least power in the outputs to zero; the others stay unchanged.

    Source: Sun et al. 2023, "A Simple and Effective Pruning Approach for Large Language Models".

    Args:
        aim: weights and second moments of the layer; the target is not used.
        rule: how many weights stay, and where.
    """
    return aim.weight * rule.mask(np.abs(aim.weight) * aim.norms)


def prune_matrix(aim: LayerObjective, rule: Rule) -> Doubles:
    """Find the sparse weights closest to the objective; mask and weights are found together.

    ADMM draws two versions of the layer to each other: one with the least error, and one that gets
    sparser from round to round. Then the weights on the final mask are fitted exactly. The error is
    a third less than with masks by w² / [H⁻¹]ⱼⱼ and the same fit (Hassibi and Stork 1993; Frantar
    and Alistarh 2023, "SparseGPT"), as removed weights can come back.

    Source: Boyd et al. 2011, "Distributed Optimization and Statistical Learning via the
    Alternating Direction Method of Multipliers"; Boža 2024, "Fast and Effective Weight Update for
    Pruned Large Language Models".

    Args:
        aim: objective of the layer.
        rule: how many weights stay, and where.

    Returns:
        The weights, [G, O, I].
    """
    norms = aim.norms
    start = (aim.weight * norms).astype(np.float32)
    wanted = (aim.target / norms).astype(np.float32)
    like = aim.hessian / norms / norms.transpose(0, 2, 1)
    inverse = np.linalg.inv(like + _TIE * np.eye(like.shape[-1])).astype(np.float32)
    free, pull = start, np.zeros_like(start)
    mask = np.ones(start.shape, bool)
    for number in range(_ROUNDS):
        if number < _THINNING:
            mask = rule.build_intermediate((number + 1) / _THINNING).mask(np.abs(free + pull))
        sparse = (free + pull) * mask
        pull = pull + free - sparse
        free = (wanted + _TIE * (sparse - pull)) @ inverse
    return _fit_on_mask(aim, (free + pull) * mask / norms, mask)


def _fit_on_mask(aim: LayerObjective, weight: Doubles, mask: Mask) -> Doubles:
    """Fit the weights on a mask to the least error, starting from the given ones.

    Source: Hestenes and Stiefel 1952, conjugate gradients; all rows at once, each by itself.
    """
    fitted = weight.astype(np.float64) * mask
    scale = aim.norms**-2.0
    rest = (aim.target - fitted @ aim.hessian) * mask
    way = rest * scale
    size = _dot(rest, way)
    least = np.maximum(_FITTED * size, TINY)
    for _ in range(_FIT_STEPS):
        bent = (way @ aim.hessian) * mask
        going = size > least
        step = np.where(going, size / np.maximum(_dot(way, bent), TINY), 0.0)
        fitted += step * way
        rest -= step * bent
        turned = rest * scale
        before, size = size, _dot(rest, turned)
        way = turned + np.where(going, size / np.maximum(before, TINY), 0.0) * way
    return fitted


def _dot(left: Doubles, right: Doubles) -> Doubles:
    product: Doubles = np.sum(left * right, axis=-1, keepdims=True)
    return product
