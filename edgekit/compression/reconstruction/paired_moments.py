"""Second moments of layer inputs in a graph and in its changed copy, sample by sample."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto

from edgekit.compression.pruning.mask_solver import Doubles, LayerObjective
from edgekit.compression.reconstruction.second_moments import Array, Layer, Moments
from edgekit.onnx_graph.runs.activations import Values, observe
from edgekit_agent.samples import Samples

# Least power of an input, relative to the mean of all, for inputs that were always zero.
_LEAST_POWER = 1e-3
# Share of the mean square below which the variance of the inputs is rounding.
_ROUNDING = 1e-6
# Largest number of buffered positions; a few are multiplied together.
_MOST_WAITING = 512


@dataclass(kw_only=True)
class PairedMoments:
    """Sums over the inputs x of a layer and their changed versions z: z zᵀ and x zᵀ [G, I, I]."""

    square: Doubles
    cross: Doubles
    before: Doubles  # sum of x, [G, I]
    after: Doubles
    count: int = 0
    _waiting: list[tuple[Array, Array]] = field(default_factory=list)

    @classmethod
    def create_empty(cls, groups: int, inputs: int) -> PairedMoments:
        """Create sums without rows."""
        square, total = (groups, inputs, inputs), (groups, inputs)
        return cls(
            square=np.zeros(square),
            cross=np.zeros(square),
            before=np.zeros(total),
            after=np.zeros(total),
        )

    @classmethod
    def same(cls, moments: Moments) -> PairedMoments:
        """Create the sums of an unchanged graph from its moments."""
        square, total = moments.square, moments.total
        return cls(square=square, cross=square, before=total, after=total, count=moments.count)

    def add(self, before: Array, after: Array) -> None:
        """Add rows [G, positions, I] of both graphs; small numbers of rows are buffered."""
        self._waiting.append((before, after))
        waiting = sum(rows.shape[1] for rows, _ in self._waiting)
        if waiting >= min(before.shape[2], _MOST_WAITING):
            self.settle()

    def settle(self) -> None:
        """Add the buffered rows to the sums."""
        if not self._waiting:
            return
        x, z = (np.concatenate(rows, axis=1) for rows in zip(*self._waiting, strict=True))
        self._waiting.clear()
        turned = z.transpose(0, 2, 1)
        self.square += turned @ z
        self.cross += x.transpose(0, 2, 1) @ z
        self.before += x.sum(axis=1, dtype=np.float64)
        self.after += z.sum(axis=1, dtype=np.float64)
        self.count += x.shape[1]

    def aim(self, weight: Doubles, *, centered: bool) -> LayerObjective:
        """Build the least-squares problem of a layer: old outputs from the changed inputs.

        With few samples the moments are shrunk towards the diagonal, as in ``Moments.hessian``.
        Where all inputs are constant and a bias makes up for them, each input counts by its own
        power.

        Args:
            weight: [G, O, I].
            centered: whether a bias makes up for the mean error, so that only the rest counts.
        """
        count = max(self.count, 1)
        square, cross = self.square / count, self.cross / count
        most = np.diagonal(square, axis1=1, axis2=2).copy()
        if centered:
            x, z = self.before / count, self.after / count
            square -= z[:, :, np.newaxis] * z[:, np.newaxis, :]
            cross -= x[:, :, np.newaxis] * z[:, np.newaxis, :]
        inputs = square.shape[-1]
        share = inputs / (inputs + count)
        power = np.diagonal(square, axis1=1, axis2=2)
        varies = power.mean(axis=1, keepdims=True) > _ROUNDING * most.mean(axis=1, keepdims=True)
        square, cross = (np.where(varies[..., np.newaxis], each, 0.0) for each in (square, cross))
        power = np.where(varies, power, most)
        mean = power.mean(axis=1, keepdims=True)
        power = np.where(mean > 0, np.maximum(power, _LEAST_POWER * mean), 1.0)
        hessian, target = (1 - share) * square, (1 - share) * (weight @ cross)
        # The power that was added to the diagonal has the outputs of the present weight as target.
        more = power - np.diagonal(hessian, axis1=1, axis2=2)
        hessian[:, np.arange(inputs), np.arange(inputs)] += more
        return LayerObjective(
            weight=weight, hessian=hessian, target=target + weight * more[:, np.newaxis, :]
        )

    def shift(self, weight: Doubles, changed: Doubles) -> Doubles:
        """Compute the mean of each output channel that changes of weights and inputs removed."""
        count = max(self.count, 1)
        lost = weight @ self.before[..., np.newaxis] - changed @ self.after[..., np.newaxis]
        shift: Doubles = lost.ravel() / count
        return shift


def gather_paired_moments(
    original: ModelProto,
    changed: ModelProto,
    layers: Mapping[str, Layer],
    parts: Sequence[Samples],
) -> dict[str, PairedMoments]:
    """Gather the second moments of each layer's inputs in both graphs, in constant memory.

    Args:
        original: the graph.
        changed: a graph with the same nodes and other weights.
        layers: the layers, by any key.
        parts: samples to run.

    Raises:
        FloatingPointError: names a value that is not finite in one of the graphs.
    """
    sight: dict[Hashable, list[str]] = {}
    for key, layer in layers.items():
        sight.setdefault(layer.input_key, []).append(key)
    first = {what: layers[keys[0]] for what, keys in sight.items()}
    found = {
        what: PairedMoments.create_empty(layer.groups, layer.inputs)
        for what, layer in first.items()
    }
    names = list(dict.fromkeys(layer.read for layer in first.values()))
    streams = (observe(proto, names, parts) for proto in (original, changed))
    for before, after in zip(*streams, strict=True):
        for what, layer in first.items():
            rows = [_get_rows(layer, values) for values in (before, after)]
            if rows[0].size:
                found[what].add(rows[0], rows[1])
    for pairs in found.values():
        pairs.settle()
    return {key: found[what] for what, keys in sight.items() for key in keys}


def _get_rows(layer: Layer, values: Values) -> Array:
    name = layer.read
    value = values[name].astype(np.float32, copy=False)
    if not np.isfinite(value).all():
        raise FloatingPointError(name)
    return layer.rows(value)
