"""Low-rank factors of a layer with the least output error for its inputs.

Shapes: G groups of a convolution (1 otherwise), O output channels of a group, I inputs of one
output value, R ranks, a x b the kernel of an image convolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekit.compression.numerics import Doubles

# Directions with less than this share of the strongest one's power are rounding.
_LEAST_POWER = 1e-12
# Damping of the second moments between the factors, relative to their mean power.
_DAMPING = 1e-4


@dataclass(frozen=True, kw_only=True)
class ChannelFactors:
    """Factors of a layer: the layer with fewer outputs, and a product that restores all outputs.

    Args:
        weight: [G, O, I].
        basis: orthonormal directions of the outputs, the one with most power first, [G, O, R].
        mean: mean of the weight times the inputs, [G, O]; zeros where no bias can take it.
        errors: squared error of all outputs, by the number of directions kept, [R + 1].
    """

    weight: Doubles
    basis: Doubles
    mean: Doubles
    errors: Doubles

    def compute_pair(self, rank: int) -> tuple[Doubles, Doubles]:
        """Compute the first factor [G, R, I] and the second [G, O, R] of a rank.

        Source: Chen et al. 2021, "DRONE: Data-aware Low-rank Compression for Large NLP Models",
        and Zhang et al. 2015, "Accelerating Very Deep Convolutional Networks".
        """
        kept = self.basis[:, :, :rank] @ _build_mixing(rank)
        return kept.transpose(0, 2, 1) @ self.weight, kept

    def product(self, rank: int) -> Doubles:
        """Compute the product of both factors, [G, O, I]."""
        first, second = self.compute_pair(rank)
        return second @ first

    def shift(self, rank: int) -> Doubles:
        """Compute the mean error of the outputs, [G * O]."""
        kept = self.basis[:, :, :rank]
        mean = self.mean[:, :, None]
        lost: Doubles = mean - kept @ (kept.transpose(0, 2, 1) @ mean)
        return lost.ravel()


@dataclass(frozen=True, kw_only=True)
class SpatialFactors:
    """Factors of an image convolution: one along the height, and one along the width of its output.

    Args:
        weight: [O, I, a, b].
        first: first factor of all ranks, the one with most power first, [R, I * a].
        cross: products of the outputs and the values between, with the latter made uncorrelated in
            their order, [O, R * b].
        factor: lower Cholesky factor of the second moments of the values between, [R * b, R * b].
        mean: mean of the inputs, [I, a, b]; zeros where no bias can take it.
        errors: squared error of all outputs, by the rank, [R + 1].
    """

    weight: Doubles
    first: Doubles
    cross: Doubles
    factor: Doubles
    mean: Doubles
    errors: Doubles

    def compute_pair(self, rank: int) -> tuple[Doubles, Doubles]:
        """Compute the first factor [R, I, a, 1] and the second [O, R, 1, b] of a rank.

        Source: Jaderberg et al. 2014, "Speeding up Convolutional Neural Networks with Low Rank
        Expansions"; the second factor by least squares.
        """
        outputs, inputs, height, width = self.weight.shape
        size = rank * width
        second = np.linalg.solve(self.factor[:size, :size].T, self.cross[:, :size].T).T
        mixing = _build_mixing(rank)
        first = mixing.T @ self.first[:rank]
        second = np.einsum("orb,rs->osb", second.reshape(outputs, rank, width), mixing)
        return first.reshape(rank, inputs, height, 1), second[:, :, None, :]

    def product(self, rank: int) -> Doubles:
        """Compute the product of both factors as a matrix, [1, O, I * a * b]."""
        first, second = self.compute_pair(rank)
        whole = np.einsum("rja,orb->ojab", first[..., 0], second[:, :, 0, :])
        product: Doubles = whole.reshape(1, len(self.weight), -1)
        return product

    def shift(self, rank: int) -> Doubles:
        """Compute the mean error of the outputs, [O]."""
        lost = self.weight.reshape(1, len(self.weight), -1) - self.product(rank)
        shift: Doubles = lost[0] @ self.mean.ravel()
        return shift


Way = ChannelFactors | SpatialFactors


def factorize_by_outputs(weight: Doubles, covariance: Doubles, mean: Doubles) -> ChannelFactors:
    """Factorize a layer by the moments of its outputs.

    The directions of the outputs with most power are the best factors of a rank for these inputs,
    whatever their moments, which need not be inverted.

    Args:
        weight: [G, O, I].
        covariance: covariance of the weight times the inputs, [G, O, O].
        mean: mean of the same, [G, O].
    """
    powers, basis = np.linalg.eigh(covariance)
    return _build_channel_factors(weight, basis[:, :, ::-1], powers[:, ::-1], mean)


def factorize_by_inputs(weight: Doubles, covariance: Doubles, mean: Doubles) -> ChannelFactors:
    """Factorize a layer by the moments of its inputs, of which there may be fewer than outputs.

    Source: Wang et al. 2024, "SVD-LLM: Truncation-aware Singular Value Decomposition for Large
    Language Model Compression", with a symmetric root, which singular moments have as well.

    Args:
        weight: [G, O, I].
        covariance: covariance of the inputs, [G, I, I].
        mean: mean of the inputs, [G, I].
    """
    means = (weight @ mean[:, :, None])[:, :, 0]
    if weight.shape[1] <= weight.shape[2]:
        return factorize_by_outputs(weight, weight @ covariance @ weight.transpose(0, 2, 1), means)
    powers, vectors = np.linalg.eigh(covariance)
    tall = weight @ (vectors * np.sqrt(np.maximum(powers, 0))[:, None, :])
    basis, sizes, _ = np.linalg.svd(tall, full_matrices=False)
    return _build_channel_factors(weight, basis, np.square(sizes), means)


def _build_channel_factors(
    weight: Doubles, basis: Doubles, powers: Doubles, mean: Doubles
) -> ChannelFactors:
    powers = np.maximum(powers, 0).sum(axis=0)
    left = np.concatenate([np.cumsum(powers[::-1])[::-1], [0.0]])
    rank = min(weight.shape[1:])
    return ChannelFactors(
        weight=weight, basis=basis[:, :, :rank].copy(), mean=mean, errors=left[: rank + 1]
    )


def factorize_spatially(
    weight: Doubles, covariance: Doubles, mean: Doubles, most: int
) -> SpatialFactors | None:
    """Factorize an image convolution of one group along height and width.

    The first factor is optimal if the columns of the windows are uncorrelated; the second corrects
    for their correlation.

    Args:
        weight: [O, I, a, b].
        covariance: covariance of the windows, [I * a * b, I * a * b].
        mean: mean of the windows.
        most: largest rank of interest.

    Returns:
        The factors; ``None`` if the outputs have no power.
    """
    outputs, inputs, height, width = weight.shape
    tall = inputs * height
    columns = weight.transpose(1, 2, 0, 3).reshape(tall, outputs * width)
    blocks = covariance.reshape(tall, width, tall, width)
    upright = np.trace(blocks, axis1=1, axis2=3) / width
    powers, vectors = np.linalg.eigh(columns.T @ upright @ columns)
    powers, vectors = powers[::-1][:most], vectors[:, ::-1][:, :most]
    rank = int((powers > _LEAST_POWER * max(powers[0], 0)).sum())
    if not rank:
        return None
    first = (columns @ vectors[:, :rank]).T / np.sqrt(powers[:rank])[:, None]
    half = np.tensordot(first, blocks, axes=(1, 0))  # [R, b, I * a, b]
    flat = weight.reshape(outputs, -1)
    between = np.tensordot(half, first, axes=(2, 1)).transpose(0, 1, 3, 2)
    between = between.reshape(2 * [rank * width])
    between += _DAMPING * between.trace() / len(between) * np.eye(len(between))
    factor = np.linalg.cholesky(between)
    cross = np.linalg.solve(factor, half.reshape(rank * width, -1) @ flat.T).T.astype(np.float64)
    explained = np.square(cross).sum(axis=0).reshape(rank, width).sum(axis=1)
    whole = float(np.einsum("oi,ij,oj->", flat, covariance, flat, optimize=True))
    left = whole - np.concatenate([[0.0], np.cumsum(explained)])
    return SpatialFactors(
        weight=weight,
        first=first,
        cross=cross,
        factor=factor,
        mean=mean.reshape(inputs, height, width),
        errors=np.maximum(left, 0),
    )


def _build_mixing(rank: int) -> Doubles:
    """Build a fixed orthonormal matrix that gives all values between the factors the same power.

    One scale for all of them, as 8 bits have it, then loses least.
    Source: Ashkboos et al. 2024, "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs".
    """
    mixed, _ = np.linalg.qr(np.random.default_rng(rank).standard_normal((rank, rank)))
    return mixed
