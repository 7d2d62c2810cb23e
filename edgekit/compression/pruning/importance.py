"""Rankings of the channel groups of a dependency group by several importance scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.compression.numerics import TINY, Doubles
from edgekit.compression.pruning.consumers import Reader, Readers
from edgekit.compression.pruning.dependency import Channels, Family
from edgekit.compression.pruning.fixed_consumers import FixedReader
from edgekit.onnx_graph.graph_index import GraphIndex

# Number of rounds to remove all channel groups; the rest is scored anew after each round.
_ROUNDS = 48


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Channel groups by importance, the least first, with the cost of removing the first k."""

    order: tuple[int, ...]
    costs: Doubles  # [groups + 1], the first is 0


def rank_by_scores(family: Family, scores: Mapping[int, float]) -> Ranking:
    """Rank channel groups by scores that add up."""
    order = sorted(family.groups, key=lambda g: (scores[g], g))
    return Ranking(order=tuple(order), costs=np.cumsum([0.0, *(scores[g] for g in order)]))


def compute_magnitudes(channels: Channels, family: Family) -> dict[int, float]:
    """Compute the squared weights of each channel group, relative to those of the dependency group.

    Source: Li et al. 2017, "Pruning Filters for Efficient ConvNets".
    """
    index = GraphIndex(channels.proto)
    power = dict.fromkeys(family.groups, 0.0)
    squares: dict[tuple[str, int], Doubles] = {}
    for group in family.groups:
        for place in channels.groups[group].places:
            if place.role == "along":
                continue
            key = place.tensor, place.axis
            if key not in squares:
                value = index.float_constant(place.tensor).astype(np.float64)
                others = tuple(a for a in range(value.ndim) if a != place.axis)
                squares[key] = np.square(value).sum(axis=others)
                squares[key] /= squares[key].sum() + TINY
            power[group] += float(squares[key][place.indices].sum())
    return power


def rank_second_order(channels: Channels, family: Family, readers: Readers) -> Ranking | None:
    """Rank channel groups by the error that remains in their readers after refitting.

    The error is relative to the power of the reader's outputs, after each reader makes up for the
    removed channels. After each round, weights and curvature are those of the channels that are
    left. Weights that cannot be refitted lose all that they read of a channel group.

    Source: Hassibi and Stork 1993, "Second order derivatives for network pruning: Optimal Brain
    Surgeon", for whole channels as Kurtic et al. 2023, "ZipLM".

    Returns:
        The ranking; ``None`` where no layer reads the dependency group.
    """
    found = [_build_state(channels, family, reader) for reader in readers.fitted]
    lost = [_build_fixed_loss(channels, family, reader) for reader in readers.fixed]
    states: list[_State | _FixedLoss] = [s for s in (*found, *lost) if s is not None]
    if not states:
        return None
    left = np.array(family.groups)
    order: list[int] = []
    costs = [0.0]
    step = max(1, len(left) // _ROUNDS)
    while len(left):
        errors = np.sum([state.errors(left) for state in states], axis=0)
        first = np.argsort(errors, kind="stable")[:step]
        order += left[first].tolist()
        costs += (costs[-1] + np.cumsum(errors[first])).tolist()
        for state in states:
            state.remove(left[first])
        left = np.delete(left, first)
    return Ranking(order=tuple(order), costs=np.array(costs))


@dataclass
class _State:
    """State of one reader during removal: weight [G, O, I], inverse curvature [G, I, I]."""

    weight: Doubles
    inverse: Doubles
    inputs: dict[int, NDArray[np.intp]]
    power: float

    def errors(self, groups: NDArray[np.intp]) -> Doubles:
        """Compute the error that the removal of each channel group causes."""
        found = np.zeros(len(groups))
        places = [i for i, group in enumerate(groups.tolist()) if group in self.inputs]
        sizes = {len(self.inputs[int(groups[i])]) for i in places}
        for size in sizes:
            alike = [i for i in places if len(self.inputs[int(groups[i])]) == size]
            taken = np.stack([self.inputs[int(groups[i])] for i in alike])  # [n, size]
            found[alike] = self._compute_block_errors(taken)
        return found / self.power

    def _compute_block_errors(self, taken: NDArray[np.intp]) -> Doubles:
        total = np.zeros(len(taken))
        for weight, inverse in zip(self.weight, self.inverse, strict=True):
            blocks = inverse[taken[:, :, np.newaxis], taken[:, np.newaxis, :]]
            columns = weight[:, taken].transpose(1, 2, 0)  # [n, size, O]
            solved = np.linalg.solve(blocks, columns)
            total += np.einsum("nso,nso->n", columns, solved)
        return total

    def remove(self, groups: NDArray[np.intp]) -> None:
        """Remove channel groups and update the weight so that the rest makes up for them."""
        taken = [self.inputs[g] for g in groups.tolist() if g in self.inputs]
        if not taken:
            return
        out = np.concatenate(taken)
        for weight, inverse in zip(self.weight, self.inverse, strict=True):
            solved = np.linalg.solve(inverse[np.ix_(out, out)], inverse[out])  # [out, I]
            weight -= weight[:, out] @ solved
            inverse -= inverse[:, out] @ solved
            weight[:, out] = 0
            inverse[out] = inverse[:, out] = 0
            inverse[out, out] = 1


@dataclass
class _FixedLoss:
    """Costs of the channel groups for one weight that is not refitted; they never change."""

    costs: Mapping[int, float]

    def errors(self, groups: NDArray[np.intp]) -> Doubles:
        """Return the cost of each channel group."""
        return np.array([self.costs.get(group, 0.0) for group in groups.tolist()])

    def remove(self, groups: NDArray[np.intp]) -> None:
        """Do nothing: no weight makes up for removed channel groups."""


def _build_fixed_loss(channels: Channels, family: Family, reader: FixedReader) -> _FixedLoss | None:
    wanted = set(family.groups)
    costs: dict[int, float] = {}
    for position, groups in enumerate(channels.members(reader.labels).tolist()):
        for group in wanted.intersection(groups):
            costs[group] = costs.get(group, 0.0) + float(reader.costs[position])
    return _FixedLoss(costs=costs) if costs else None


def _build_state(channels: Channels, family: Family, reader: Reader) -> _State | None:
    wanted = set(family.groups)
    inputs = {g: places for g, places in reader.places(channels).items() if g in wanted}
    if not inputs:
        return None
    weight, second = reader.layer.matrix.copy(), reader.compute_curvature()
    power = float(np.einsum("goi,gij,goj->", weight, second, weight, optimize=True))
    inverse = np.linalg.inv(second)
    return _State(
        weight=weight,
        inverse=(inverse + inverse.transpose(0, 2, 1)) / 2,
        inputs=inputs,
        power=power + TINY,
    )
