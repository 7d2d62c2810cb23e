"""Weights of which only a part is kept: which ones, and what they have to be then.

Shapes: G groups of a convolution (1 otherwise), O output channels of a group, I inputs of one
output value (channels of the group times kernel).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Weight of the distance between the two forms of a layer, against inputs of power 1.
_TIE = 0.6
# Rounds, and how many of them the mask takes to become as sparse as it is to be.
_ROUNDS, _THINNING = 30, 20
# Steps of the least-squares fit on the mask; the rounds leave it little to do.
_FIT_STEPS = 12
_TINY = 1e-30
# A row whose rest is down to this part of what it was is fitted; further steps are rounding.
_FITTED = 1e-20
# Of a number of weights that is whole but for the last digits.
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Share:
    """A part of all weights of a layer goes."""

    sparsity: float

    def thinner(self, done: float) -> Share:
        """The rule when so much of the way is done, in steps that get smaller.

        Source: Zhu and Gupta 2017, "To prune, or not to prune".
        """
        return Share(sparsity=self.sparsity * (1 - (1 - done) ** 3))

    def mask(self, scores: NDArray[np.floating]) -> Mask:
        """The weights that stay, [G, O, I]: those of the highest scores in the layer."""
        gone = math.ceil(self.sparsity * scores.size - _ROUNDING)
        mask = np.ones(scores.size, bool)
        if gone:
            mask[np.argpartition(scores.ravel(), gone - 1)[:gone]] = False
        return mask.reshape(scores.shape)


@dataclass(frozen=True, kw_only=True)
class OfEach:
    """``kept`` of each ``block`` inputs that follow one another stay."""

    kept: int
    block: int

    def thinner(self, done: float) -> OfEach:
        """The rule when so much of the way is done: the blocks thin out one weight at a time."""
        gone = round((self.block - self.kept) * done)
        return OfEach(kept=self.block - gone, block=self.block)

    def mask(self, scores: NDArray[np.floating]) -> Mask:
        """The weights that stay, [G, O, I]: those of the highest scores in their block."""
        cut = scores.reshape(-1, self.block)
        order = np.argsort(np.argsort(-cut, axis=1, kind="stable"), axis=1)
        return (order < self.kept).reshape(scores.shape)


Rule = Share | OfEach


@dataclass(frozen=True, kw_only=True)
class Aim:
    """What a layer should make: the squared error of W is tr(W H Wᵀ) - 2 tr(W Tᵀ), and a constant.

    Args:
        weight: the layer's own weights, [G, O, I].
        hessian: H, mean of x xᵀ over the inputs that it reads, [G, I, I]; no zeros on the diagonal.
        target: T, mean of y xᵀ for the outputs y that it should make, [G, O, I].
    """

    weight: Doubles
    hessian: Doubles
    target: Doubles

    def error(self, weight: Doubles) -> float:
        """The squared error of other weights against these, of inputs that are the same."""
        off = weight - self.weight
        return max(float(np.sum((off @ self.hessian) * off)), 0.0)

    @property
    def norms(self) -> Doubles:
        """Root of the power of each input, [G, 1, I]."""
        norms: Doubles = np.sqrt(np.diagonal(self.hessian, axis1=1, axis2=2))[:, np.newaxis, :]
        return norms


def pruned_by_magnitude(weight: Doubles, rule: Rule) -> Doubles:
    """The weights without the smallest ones; the others as they were."""
    return weight * rule.mask(np.abs(weight))


def pruned_by_power(aim: Aim, rule: Rule) -> Doubles:
    """The weights without those of the least power in the outputs; the others as they were.

    Source: Sun et al. 2023, "A Simple and Effective Pruning Approach for Large Language Models".
    """
    return aim.weight * rule.mask(np.abs(aim.weight) * aim.norms)


def pruned(aim: Aim, rule: Rule) -> Doubles:
    """The weights of a rule's mask that come closest to the aim; mask and weights found together.

    Two forms of the layer are drawn to each other: one that has the least error, one that is
    sparse, more so from round to round. What is left of the mask then is fitted exactly. Makes
    a third less error than masks by w² / [H⁻¹]ⱼⱼ with the same fit (Hassibi and Stork 1993;
    Frantar and Alistarh 2023, "SparseGPT"), as no weight that went is lost for good.

    Source: Boyd et al. 2011, "Distributed Optimization and Statistical Learning via the
    Alternating Direction Method of Multipliers"; Boža 2024, "Fast and Effective Weight Update for
    Pruned Large Language Models".
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
            mask = rule.thinner((number + 1) / _THINNING).mask(np.abs(free + pull))
        sparse = (free + pull) * mask
        pull = pull + free - sparse
        free = (wanted + _TIE * (sparse - pull)) @ inverse
    return _fitted(aim, (free + pull) * mask / norms, mask)


def _fitted(aim: Aim, weight: Doubles, mask: Mask) -> Doubles:
    """The weights of a mask with the least error, from these on.

    Source: Hestenes and Stiefel 1952, conjugate gradients; all rows at once, each by itself.
    """
    fitted = weight.astype(np.float64) * mask
    scale = aim.norms**-2.0
    rest = (aim.target - fitted @ aim.hessian) * mask
    way = rest * scale
    size = _dot(rest, way)
    least = np.maximum(_FITTED * size, _TINY)
    for _ in range(_FIT_STEPS):
        bent = (way @ aim.hessian) * mask
        going = size > least
        step = np.where(going, size / np.maximum(_dot(way, bent), _TINY), 0.0)
        fitted += step * way
        rest -= step * bent
        turned = rest * scale
        before, size = size, _dot(rest, turned)
        way = turned + np.where(going, size / np.maximum(before, _TINY), 0.0) * way
    return fitted


def _dot(left: Doubles, right: Doubles) -> Doubles:
    product: Doubles = np.sum(left * right, axis=-1, keepdims=True)
    return product
