"""Ladders of dependency groups: the damage to the outputs at each width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.compression.numerics import TINY, Doubles
from edgekit.compression.output_divergence import Reference
from edgekit.compression.pruning.consumers import Readers, cut_and_refit
from edgekit.compression.pruning.dependency import Channels, Family
from edgekit.compression.pruning.gradient_importance import compute_gradient_scores
from edgekit.compression.pruning.importance import (
    Ranking,
    compute_magnitudes,
    rank_by_scores,
    rank_second_order,
)
from edgekit.compression.pruning.surgery import select_removable
from edgekit.compression.pruning.width_search import Ladder, list_removal_counts
from edgekit.pass_settings import PruneChannels
from edgekit.progress import Tick
from edgekit_agent.samples import Samples

# Places on a ladder at which the damage is measured; between them it grows as the ranking's costs.
_PROBES = (0.25, 0.5, 0.8)
# Damage of outputs that are not finite, in nats.
_RUINED = 1e6


@dataclass(frozen=True, kw_only=True)
class PruningContext:
    """Inputs of the ladders: channels of a graph, their readers, and reference outputs.

    ``readers`` are the layers that are refitted when a dependency group is pruned alone, and those
    that cannot be refitted.
    """

    channels: Channels
    readers: Readers
    reference: Reference
    seen: Sequence[Samples]
    settings: PruneChannels


def build_ladders(trial: PruningContext, families: Sequence[Family], tick: Tick) -> list[Ladder]:
    """Build the ladder of each dependency group that can be narrowed, with the damage of each step.

    Raises:
        UserError: the score needs TensorFlow, which is missing.
    """
    settings = trial.settings
    scores = _compute_scores(trial, families, tick)
    made = []
    for number, family in enumerate(families):
        tick("widths", number, len(families))
        steps = list_removal_counts(family, settings.align)
        if len(steps) < 2:
            continue
        ranking = (
            rank_by_scores(family, scores)
            if scores is not None
            else rank_second_order(trial.channels, family, trial.readers)
        )
        if ranking is None:  # no weight reads the channels: rank them by magnitude
            ranking = rank_by_scores(family, compute_magnitudes(trial.channels, family))
        measured = settings.allocation == "measured" and trial.reference.has_outputs
        damages = (
            _measure_damages(trial, ranking, steps) if measured else ranking.costs[list(steps)]
        )
        made.append(Ladder(family=family, ranking=ranking, steps=steps, damages=damages))
    tick("widths", len(families), len(families))
    return made


def _compute_scores(
    trial: PruningContext, families: Sequence[Family], tick: Tick
) -> dict[int, float] | None:
    """Compute additive scores of channel groups; ``None`` for second-order scores.

    Second-order ranking follows from the error of the refitted readers instead.
    """
    score = trial.settings.score
    if score == "second-order":
        return None
    if score == "magnitude":
        return {k: v for f in families for k, v in compute_magnitudes(trial.channels, f).items()}
    return compute_gradient_scores(trial.channels, families, trial.seen, kind=score, tick=tick)


def _measure_damages(trial: PruningContext, ranking: Ranking, steps: tuple[int, ...]) -> Doubles:
    """Measure the output divergence at some steps, and interpolate it by cost between them."""
    places = sorted({max(1, round(share * (len(steps) - 1))) for share in _PROBES})
    readers = trial.readers.fitted if trial.settings.repair else ()
    probed = [0.0]
    for place in places:
        going = select_removable(trial.channels, ranking.order[: steps[place]])
        lost = trial.reference.divergence(cut_and_refit(trial.channels, readers, going))
        probed.append(max(lost, probed[-1]) if np.isfinite(lost) else _RUINED)
    costs = ranking.costs[list(steps)]
    at = costs[[0, *places]]
    beyond = probed[-1] * np.maximum(costs / max(at[-1], TINY), 1.0)
    return np.maximum(np.interp(costs, at, probed), np.where(costs > at[-1], beyond, 0.0))
