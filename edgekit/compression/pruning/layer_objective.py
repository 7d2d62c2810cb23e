"""Least-squares problem of one layer whose inputs other pruned layers have changed.

Moments of a pair hold the inputs in the changed graph, and as targets those in the original.
"""

from __future__ import annotations

import numpy as np

from edgekit.compression.numerics import Doubles
from edgekit.compression.pruning.mask_solver import LayerObjective
from edgekit.compression.reconstruction.moments import Moments, bound_power

# Share of the mean square below which the variance of the inputs is rounding.
_ROUNDING = 1e-6


def build_layer_objective(pairs: Moments, weight: Doubles, *, centered: bool) -> LayerObjective:
    """Build the least-squares problem of a layer: old outputs from the changed inputs.

    With few samples the moments are shrunk towards the diagonal, as in ``Moments.hessian``.
    Where all inputs are constant and a bias makes up for them, each input counts by its own
    power.

    Args:
        pairs: inputs of the changed graph, with those of the original as targets.
        weight: [G, O, I].
        centered: whether a bias makes up for the mean error, so that only the rest counts.
    """
    count = max(pairs.count, 1)
    square, cross = pairs.square / count, pairs.cross / count
    most = np.diagonal(square, axis1=1, axis2=2).copy()
    if centered:
        x, z = pairs.target_total / count, pairs.total / count
        square -= z[:, :, np.newaxis] * z[:, np.newaxis, :]
        cross -= x[:, :, np.newaxis] * z[:, np.newaxis, :]
    inputs = square.shape[-1]
    share = inputs / (inputs + count)
    power = np.diagonal(square, axis1=1, axis2=2)
    varies = power.mean(axis=1, keepdims=True) > _ROUNDING * most.mean(axis=1, keepdims=True)
    square, cross = (np.where(varies[..., np.newaxis], each, 0.0) for each in (square, cross))
    power = bound_power(np.where(varies, power, most))
    hessian, target = (1 - share) * square, (1 - share) * (weight @ cross)
    # The power that was added to the diagonal has the outputs of the present weight as target.
    more = power - np.diagonal(hessian, axis1=1, axis2=2)
    hessian[:, np.arange(inputs), np.arange(inputs)] += more
    return LayerObjective(
        weight=weight, hessian=hessian, target=target + weight * more[:, np.newaxis, :]
    )


def compute_mean_loss(pairs: Moments, weight: Doubles, changed: Doubles) -> Doubles:
    """Compute the mean of each output channel that changes of weights and inputs removed."""
    count = max(pairs.count, 1)
    before, after = pairs.target_total[..., np.newaxis], pairs.total[..., np.newaxis]
    loss: Doubles = (weight @ before - changed @ after).ravel() / count
    return loss
