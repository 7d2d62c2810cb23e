"""Structured pruning: fewer channels, heads, neurons and residual branches, in a smaller graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.bundle.layer_report import LayerCost, write_layers
from edgekit.compression.output_divergence import Reference
from edgekit.compression.pass_input import open_source
from edgekit.compression.pass_specs import Work
from edgekit.compression.pruning.branch_scores import rank_branches
from edgekit.compression.pruning.branch_selection import choose_removed_branches
from edgekit.compression.pruning.consumers import (
    Readers,
    add_zero_biases,
    cut_and_refit,
    find_readers,
)
from edgekit.compression.pruning.dependency import Channels, Family, find_channels
from edgekit.compression.pruning.limit_explanations import build_nothing_error, build_too_much_error
from edgekit.compression.pruning.plan import Plan, list_costs
from edgekit.compression.pruning.residual_branches import Branch, list_branches, remove_branches
from edgekit.compression.pruning.surgery import count_remaining_macs, get_node_key, select_removable
from edgekit.compression.pruning.width_damage import PruningContext, build_ladders
from edgekit.compression.pruning.width_search import (
    Ladder,
    Sizes,
    WidthSearch,
    choose_uniform_steps,
    collect_removed,
    sum_damages,
)
from edgekit.compression.reconstruction.matrix_layers import Layer
from edgekit.compression.reconstruction.observed_moments import build_not_finite_error
from edgekit.compression.reconstruction.reconstruct import RefitLayer, refit
from edgekit.data.subsets import split_held_out
from edgekit.errors import PassRefused
from edgekit.model import Model
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import save
from edgekit.onnx_graph.qdq_placement import match_product
from edgekit.onnx_graph.rewrites.name_fix import restore_names
from edgekit.onnx_graph.runs.activations import get_batch_size, get_input_tensors
from edgekit.pass_settings import PruneChannels
from edgekit.progress import Tick
from edgekit_agent.measure.feeds import iter_batches
from edgekit_agent.samples import Samples

_MOST_HELD_OUT = 64
_STAGES = 24
# Factor by which the remaining time, with padding, may exceed the multiply-accumulates.
_LAG = 1.12
# If that leaves less than this share of the allowed multiply-accumulates, time is ignored.
_TOO_FAR = 0.9
_ROUNDING = 1e-9
# Share of the whole by which the removal may exceed the request without a remark.
_OVERSHOT = 0.05
# Least number of samples for a refit, as one sample does not represent others.
_LEAST_SAMPLES = 2


def prune_channels(model: Model, settings: PruneChannels, work: Work) -> Path:
    """Remove the channels, heads and neurons that matter least to the outputs, and refit the rest.

    Each dependency group is ranked and pruned alone to a few widths, at which the output divergence
    on held-out samples is measured. The chosen widths have the least total damage for the requested
    size. A residual branch is removed as a whole where that does less damage.

    Raises:
        PassRefused: nothing can be removed, or less than asked; the text gives the limits.
        UserError: the score needs TensorFlow, which is missing.
    """
    if work.calibration is None:
        raise PassRefused("prune-channels needs calibration data")
    source = open_source(model, work, keep_ties=True)
    proto = source.proto
    add_zero_biases(proto)
    batch = get_batch_size(work.calibration, model.signature)
    seen, unseen = split_held_out(
        work.fitting, settings.max_samples, most=_MOST_HELD_OUT, batch=batch
    )
    count = sum(part.columns[0].shape[0] for part in seen)
    if settings.repair and count < _LEAST_SAMPLES:
        raise PassRefused(
            f"{count} sample is too few to refit weights; at least {_LEAST_SAMPLES} are needed "
            "besides the held-out ones",
            hint="give more samples, a larger max_samples, or repair=false",
        )
    job = _Job(
        original=proto,
        seen=seen,
        unseen=unseen,
        shapes=_get_input_shapes(proto, seen, batch),
        constants=work.feeding.constants,
        settings=settings,
        tick=work.progress,
        note=work.note,
    )
    try:
        made, costs = job.run()
    except FloatingPointError as error:
        raise build_not_finite_error(error) from error
    del made.graph.value_info[:]
    restore_names(proto, made)
    source.restore(made)
    target = work.scratch / "pruned.onnx"
    save(made, target)
    write_layers(work.scratch, costs)
    return target


def _get_input_shapes(
    proto: ModelProto, parts: Sequence[Samples], batch: int
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the inputs for the fewest samples that the model accepts."""
    first = next(iter(iter_batches(parts[0], get_input_tensors(proto), batch)))
    return {name: value.shape for name, value in first.inputs.items()}


@dataclass(frozen=True, kw_only=True)
class _Job:
    """Pruning of one model, with its samples and settings."""

    original: ModelProto
    seen: Sequence[Samples]
    unseen: Sequence[Samples]
    shapes: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, NDArray[np.generic]]
    settings: PruneChannels
    tick: Tick
    note: Callable[[str], None]

    def run(self) -> tuple[ModelProto, list[LayerCost]]:
        """Prune the model; return it, with the costs of each dependency group."""
        plan = self._plan()
        for reader in plan.readers.find_unrepaired(plan.channels, plan.going):
            self.note(
                f"{reader.name} was not refitted after its inputs were pruned: {reader.reason}"
            )
        repair = self.settings.repair
        made = cut_and_refit(plan.channels, plan.readers.fitted if repair else [], plan.going)
        if repair:
            layers = _list_refit_layers(plan.channels, plan.going)
            made = refit(
                self.original,
                made,
                layers,
                self.seen,
                held_out=self.unseen,
                tick=self.tick,
                stages=_STAGES,
            )
        measured = self.settings.allocation == "measured"
        return made, list_costs(plan, measured=measured)

    def _plan(self) -> Plan:
        reference = Reference(self.original, self.unseen)
        channels = find_channels(self.original, self.shapes, self.constants)
        found = self._find_branches(reference)
        families = self._select_families(channels)
        if not families and not found:
            raise build_nothing_error(channels, self.settings)
        plan = self._build_plan(channels, families, reference)
        if self.settings.of == "units":
            return self._plan_units(plan)
        whole = count_remaining_macs(channels)
        most = (1 - self.settings.remove) * whole
        options = rank_branches(self.original, found, reference, self.tick) if found else []
        taken = choose_removed_branches(
            channels, options, whole, self._build_damage_function(plan), most
        )
        if taken:
            left = find_channels(remove_branches(self.original, taken), self.shapes, self.constants)
            names = {branch.name for branch in taken}
            plan = replace(
                self._build_plan(left, self._select_families(left), reference),
                branches={o.branch.name: o.damage for o in options if o.branch.name in names},
            )
        return self._finish_plan(plan, self._build_width_choice(plan)(most), most=most, whole=whole)

    def _find_branches(self, reference: Reference) -> Sequence[Branch]:
        settings = self.settings
        wanted = "layers" in settings.kinds and settings.of == "macs"
        judged = settings.allocation == "measured" and reference.has_outputs
        return list_branches(self.original) if wanted and judged else ()

    def _select_families(self, channels: Channels) -> list[Family]:
        return [family for family in channels.families if family.kind in self.settings.kinds]

    def _build_plan(
        self, channels: Channels, families: Sequence[Family], reference: Reference
    ) -> Plan:
        readers = find_readers(channels, self.seen, self.tick) if families else Readers(fitted=())
        trial = PruningContext(
            channels=channels,
            readers=readers,
            reference=reference,
            seen=self.seen,
            settings=self.settings,
        )
        ladders = build_ladders(trial, families, self.tick)
        return Plan(channels=channels, readers=readers, ladders=ladders, state=(), going=())

    def _build_width_choice(self, plan: Plan) -> Callable[[float], list[int]]:
        """Return a function that chooses ladder steps for a number of multiply-accumulates."""
        sizes = Sizes(plan.channels, plan.ladders)
        if self.settings.allocation == "uniform":
            return lambda most: choose_uniform_steps(plan.ladders, sizes.macs, most)

        def either(state: Sequence[int]) -> float:
            return max(sizes.macs(state), sizes.count_padded_macs(state) / _LAG)

        swift = WidthSearch(plan.ladders, either, pace=sizes.count_padded_macs)
        small = WidthSearch(plan.ladders, sizes.macs, pace=sizes.count_padded_macs)

        def narrow(most: float) -> list[int]:
            state = swift.allocate(most)
            if _TOO_FAR * most <= sizes.macs(state) <= most:
                return state
            return small.allocate(most)

        return narrow

    def _build_damage_function(self, plan: Plan) -> Callable[[float], float]:
        """Return the damage of the best widths as a function of the size; infinite if none fit."""
        narrow, sizes = self._build_width_choice(plan), Sizes(plan.channels, plan.ladders)

        def damage(most: float) -> float:
            state = narrow(most)
            return sum_damages(plan.ladders, state) if sizes.macs(state) <= most else math.inf

        return damage

    def _finish_plan(self, plan: Plan, state: Sequence[int], *, most: float, whole: float) -> Plan:
        going = select_removable(plan.channels, collect_removed(plan.ladders, state))
        left = count_remaining_macs(plan.channels, going)
        if left > most:
            raise build_too_much_error(plan.channels, self.settings, 1 - left / whole)
        removed_share = ""
        if most - left > _OVERSHOT * whole:
            removed_share = f"{100 * (1 - left / whole):.1f} % of the MACs removed in total"
        return replace(plan, state=state, going=going, removed_share=removed_share)

    def _plan_units(self, plan: Plan) -> Plan:
        """Choose the same share of channel groups of each kind, allocated by their damages."""
        state = [0] * len(plan.ladders)
        for kind in dict.fromkeys(ladder.family.kind for ladder in plan.ladders):
            places = [i for i, each in enumerate(plan.ladders) if each.family.kind == kind]
            same = [plan.ladders[i] for i in places]
            total = sum(len(ladder.family.groups) for ladder in same)
            left = _Units(ladders=same, total=total).count_left
            most = math.floor((1 - self.settings.remove) * total + _ROUNDING)
            uniform = self.settings.allocation == "uniform"
            allocation = WidthSearch(same, left, pace=left)
            steps = choose_uniform_steps(same, left, most) if uniform else allocation.allocate(most)
            if left(steps) > most:
                raise build_too_much_error(plan.channels, self.settings, 1 - left(steps) / total)
            for place, step in zip(places, steps, strict=True):
                state[place] = step
        going = select_removable(plan.channels, collect_removed(plan.ladders, state))
        return replace(plan, state=state, going=going)


@dataclass(frozen=True, kw_only=True)
class _Units:
    """Number of channel groups that remain on some ladders."""

    ladders: Sequence[Ladder]
    total: int

    def count_left(self, state: Sequence[int]) -> float:
        went = sum(each.steps[step] for each, step in zip(self.ladders, state, strict=True))
        return float(self.total - went)


def _list_refit_layers(channels: Channels, chosen: Sequence[int]) -> list[RefitLayer]:
    """List all layers, each with a mask of its remaining output channels."""
    index = GraphIndex(channels.proto)
    stays: dict[str, dict[int, NDArray[np.bool_]]] = {}
    layers: dict[str, Layer] = {}
    for use in channels.walk.uses:
        weighted = match_product(index, use.node)
        if weighted is None or use.node.input[use.position] != weighted.weight:
            continue
        output = get_node_key(use.node)
        stays.setdefault(output, {})[use.axis] = channels.find_kept(use.labels, chosen)
        layers[output] = Layer.from_weighted(index, weighted)
    return [
        RefitLayer(output=output, kept=layer.select_kept(stays[output]))
        for output, layer in layers.items()
    ]
