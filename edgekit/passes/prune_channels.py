"""Structured pruning: fewer channels, heads and neurons in a file that really gets smaller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto

from edgekit.data import held_out
from edgekit.errors import PassRefused
from edgekit.graphs.channels import Channels, Family, find_channels
from edgekit.graphs.compact import compact
from edgekit.graphs.cutting import macs_of, permitted
from edgekit.graphs.divergence import Reference
from edgekit.graphs.index import GraphIndex
from edgekit.graphs.observe import input_tensors
from edgekit.graphs.onnx_file import load, save
from edgekit.graphs.placement import as_weighted
from edgekit.graphs.rewrite import prepare
from edgekit.model import Model
from edgekit.passes import Work
from edgekit.passes.gradients import gradient_scores
from edgekit.passes.importance import Ranking, by_scores, magnitudes, second_order
from edgekit.passes.readers import Reader, cut_and_refit, find_readers, with_biases
from edgekit.passes.refit import Refitted, refit
from edgekit.passes.widths import Ladder, allocate, gone, steps_of
from edgekit.progress import Tick
from edgekit.recipe import PruneChannels
from edgekit_agent.feeds import batches
from edgekit_agent.records import Samples

_OPSET = 13
_MOST_HELD_OUT = 32
_STAGES = 24
# Where on a ladder the damage is measured; between, it grows as the cost that the ranking tells.
_PROBES = (0.25, 0.5, 0.8)


def prune_channels(model: Model, settings: PruneChannels, work: Work) -> Path:
    """Take out the channels, heads and neurons that the outputs miss least, and refit the rest.

    Each family of channels is ranked, cut alone to a few widths, and the outputs' divergence on
    held-out samples told; the widths are those of the least damage in all for what must go.

    Raises:
        PassRefused: nothing can go, or not as much as asked; says what binds.
    """
    if work.calibration is None:
        raise PassRefused("pruning channels needs calibration data")
    proto = prepare(load(model.path), _OPSET)
    with_biases(proto)
    seen, unseen = held_out(
        work.calibration, settings.max_samples, most=_MOST_HELD_OUT, batch=_batch(model)
    )
    channels = find_channels(proto, _shapes(model, proto, work))
    families = _prunable(channels, settings)
    try:
        readers = find_readers(channels, seen, work.progress)
    except FloatingPointError as error:
        raise PassRefused(
            f"value {error} is not finite on the calibration samples, or too large to be squared"
        ) from error
    ladders = _ladders(
        channels, families, readers, seen, Reference(proto, unseen), settings, work.progress
    )
    chosen = permitted(channels, _chosen(channels, ladders, settings))
    made = cut_and_refit(channels, readers if settings.repair else [], chosen)
    if settings.repair:
        layers = _repaired(channels, chosen)
        made = refit(proto, made, layers, seen, held_out=unseen, tick=work.progress, stages=_STAGES)
    compact(made)
    target = work.scratch / "pruned.onnx"
    save(made, target)
    return target


def _repaired(channels: Channels, chosen: Sequence[int]) -> list[Refitted]:
    """Every layer, with the output channels that are left of it."""
    index = GraphIndex(channels.proto)
    found = []
    for use in channels.walk.uses:
        weighted = as_weighted(index, use.node) if use.position == 1 else None
        if weighted is not None and use.axis == weighted.axis:
            kept = channels.kept(use.labels, chosen)
            found.append(Refitted(output=use.node.output[0], kept=kept))
    return found


def _batch(model: Model) -> int:
    size = next((t.shape[0] for t in model.signature.inputs if t.shape), 1)
    return size if isinstance(size, int) else 1


def _shapes(model: Model, proto: ModelProto, work: Work) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs for as few samples as the model takes."""
    if work.calibration is None:
        return {}
    batch = _batch(model)
    fed = {tensor.name: tensor.shape for tensor in model.signature.inputs}
    first = next(iter(batches(work.calibration, input_tensors(proto), batch)))
    return {name: value.shape for name, value in first.inputs.items() if name in fed}


def _prunable(channels: Channels, settings: PruneChannels) -> list[Family]:
    families = [f for f in channels.families if f.kind in settings.kinds]
    if families:
        return families
    if channels.families:
        kinds = ", ".join(sorted({f.kind for f in channels.families}))
        raise PassRefused(
            f"none of the kinds asked for can go: {', '.join(settings.kinds)}",
            hint=f"there are {kinds}",
        )
    reasons = Counter(fixed.reason for fixed in channels.fixed)
    told = "; ".join(f"{reason} ({n})" for reason, n in reasons.most_common(3))
    raise PassRefused(f"no channels, heads or neurons can go: {told or 'no layer makes any'}")


def _ladders(
    channels: Channels,
    families: Sequence[Family],
    readers: Sequence[Reader],
    seen: Sequence[Samples],
    reference: Reference,
    settings: PruneChannels,
    tick: Tick,
) -> list[Ladder]:
    made = []
    scores = _scores(channels, families, seen, settings, tick)
    for number, family in enumerate(families):
        tick("widths", number, len(families))
        ranking = (
            second_order(channels, family, readers) if scores is None else by_scores(family, scores)
        )
        steps = steps_of(family, settings.align)
        if ranking is None or len(steps) < 2:
            continue
        costs = ranking.costs[list(steps)]
        if settings.allocation == "measured" and reference.can_tell:
            damages = _measured(channels, readers, ranking, steps, reference)
        else:
            damages = costs
        made.append(Ladder(family=family, ranking=ranking, steps=steps, damages=damages))
    return made


def _scores(
    channels: Channels,
    families: Sequence[Family],
    seen: Sequence[Samples],
    settings: PruneChannels,
    tick: Tick,
) -> dict[int, float] | None:
    """Scores that add up; ``None`` where groups are ranked by what is left of their readers."""
    if settings.score == "second-order":
        return None
    if settings.score == "magnitude":
        return {k: v for f in families for k, v in magnitudes(channels, f).items()}
    return gradient_scores(channels, families, seen, kind=settings.score, tick=tick)


def _measured(
    channels: Channels,
    readers: Sequence[Reader],
    ranking: Ranking,
    steps: tuple[int, ...],
    reference: Reference,
) -> np.ndarray:
    """Divergence of the outputs at each step, measured at some and told from costs between."""
    places = sorted({max(1, round(share * (len(steps) - 1))) for share in _PROBES})
    probed = [0.0]
    for place in places:
        going = permitted(channels, ranking.order[: steps[place]])
        lost = reference.divergence(cut_and_refit(channels, readers, going))
        probed.append(max(lost, probed[-1]) if np.isfinite(lost) else 1e6)
    costs = ranking.costs[list(steps)]
    at = costs[[0, *places]]
    beyond = probed[-1] * np.maximum(costs / max(at[-1], 1e-30), 1.0)
    return np.maximum(np.interp(costs, at, probed), np.where(costs > at[-1], beyond, 0.0))


def _chosen(channels: Channels, ladders: Sequence[Ladder], settings: PruneChannels) -> list[int]:
    if settings.of == "macs":
        whole = macs_of(channels)
        return _allocated(
            ladders, lambda g: float(macs_of(channels, g)), (1 - settings.remove) * whole
        )
    chosen: list[int] = []
    for kind in dict.fromkeys(ladder.family.kind for ladder in ladders):
        alike = [ladder for ladder in ladders if ladder.family.kind == kind]
        total = sum(len(ladder.family.groups) for ladder in alike)
        chosen += _allocated(
            alike, lambda g, n=total: float(n - len(g)), (1 - settings.remove) * total
        )
    return chosen


def _allocated(
    ladders: Sequence[Ladder], size: Callable[[Collection[int]], float], most: float
) -> list[int]:
    state = allocate(ladders, size, most)
    chosen = gone(ladders, state)
    left, whole = size(chosen), size(())
    if left > most:
        raise PassRefused(
            f"at most {100 * (1 - left / whole):.0f} % can go, "
            f"{100 * (1 - most / whole):.0f} % asked"
        )
    return chosen
