"""Structured pruning: fewer channels, heads and neurons in a file that really gets smaller."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.errors import PassRefused
from edgekit.graphs.branches import Branch, branches, without
from edgekit.graphs.channels import Channels, Family, find_channels
from edgekit.graphs.cutting import key, macs_of, permitted
from edgekit.graphs.divergence import Reference
from edgekit.graphs.index import GraphIndex
from edgekit.graphs.names import old_names
from edgekit.graphs.observe import batch_of, input_tensors
from edgekit.graphs.onnx_file import save
from edgekit.graphs.placement import as_product
from edgekit.layers import LayerCost, write_layers
from edgekit.model import Model
from edgekit.passes import Work
from edgekit.passes.branch_choice import branch_options
from edgekit.passes.ladders import Trial, ladders_of
from edgekit.passes.layer_inputs import Layer, not_finite
from edgekit.passes.leaving_out import left_out
from edgekit.passes.pruning_limits import nothing_can_go, too_much
from edgekit.passes.pruning_plan import Plan, costs_of
from edgekit.passes.readers import Readers, cut_and_refit, find_readers, with_biases
from edgekit.passes.refit import Refitted, refit
from edgekit.passes.sources import open_source
from edgekit.passes.widths import Allocation, Ladder, Sizes, alike, damage_of, gone
from edgekit.progress import Tick
from edgekit.recipe import PruneChannels
from edgekit.subsets import held_out
from edgekit_agent.feeds import batches
from edgekit_agent.samples import Samples

_OPSET = 13
_MOST_HELD_OUT = 64
_STAGES = 24
# How much more than the multiply-accumulates the time may be that is left, padding counted.
_LAG = 1.12
# Where that would take more than so much of what may stay, the time is left as it is.
_TOO_FAR = 0.9
_ROUNDING = 1e-9
# So much more than was asked is told, as part of all.
_OVERSHOT = 0.05
# To refit from; what one sample shows says little of any other.
_LEAST_SAMPLES = 2


def prune_channels(model: Model, settings: PruneChannels, work: Work) -> Path:
    """Take out the channels, heads and neurons that the outputs miss least, and refit the rest.

    Each family of channels is ranked, cut alone to a few widths, and the outputs' divergence on
    held-out samples told; the widths are those of the least damage in all for what must go. A
    residual layer goes as a whole where that does less.

    Raises:
        PassRefused: nothing can go, or not as much as asked; says what binds.
        UserError: the score needs TensorFlow, which is missing.
    """
    if work.calibration is None:
        raise PassRefused("pruning channels needs calibration data")
    source = open_source(model, work, _OPSET, keep_ties=True)
    proto = source.proto
    with_biases(proto)
    batch = batch_of(work.calibration, model.signature)
    seen, unseen = held_out(work.fitting, settings.max_samples, most=_MOST_HELD_OUT, batch=batch)
    count = sum(part.columns[0].shape[0] for part in seen)
    if settings.repair and count < _LEAST_SAMPLES:
        raise PassRefused(
            f"{count} sample is too little to refit from; {_LEAST_SAMPLES} are the least, beside "
            "those held out",
            hint="give more samples, a larger max_samples, or repair=false",
        )
    job = _Job(
        original=proto,
        seen=seen,
        unseen=unseen,
        shapes=_shapes(proto, seen, batch),
        constants=work.feeding.constants,
        settings=settings,
        tick=work.progress,
        note=work.note,
    )
    try:
        made, costs = job.run()
    except FloatingPointError as error:
        raise not_finite(error) from error
    del made.graph.value_info[:]
    old_names(proto, made)
    source.restore(made)
    target = work.scratch / "pruned.onnx"
    save(made, target)
    write_layers(work.scratch, costs)
    return target


def _shapes(proto: ModelProto, parts: Sequence[Samples], batch: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs for as few samples as the model takes."""
    first = next(iter(batches(parts[0], input_tensors(proto), batch)))
    return {name: value.shape for name, value in first.inputs.items()}


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One model to prune, and what it is held against."""

    original: ModelProto
    seen: Sequence[Samples]
    unseen: Sequence[Samples]
    shapes: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, NDArray[np.generic]]
    settings: PruneChannels
    tick: Tick
    note: Callable[[str], None]

    def run(self) -> tuple[ModelProto, list[LayerCost]]:
        """The smaller model, and what became of each family."""
        plan = self._plan()
        for reader in plan.readers.left_alone(plan.channels, plan.going):
            self.note(f"{reader.name} lost inputs and was not refitted: {reader.reason}")
        repair = self.settings.repair
        made = cut_and_refit(plan.channels, plan.readers.fitted if repair else [], plan.going)
        if repair:
            layers = _repaired(plan.channels, plan.going)
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
        return made, costs_of(plan, measured=measured)

    def _plan(self) -> Plan:
        reference = Reference(self.original, self.unseen)
        channels = find_channels(self.original, self.shapes, self.constants)
        found = self._branches(reference)
        families = self._families(channels)
        if not families and not found:
            raise nothing_can_go(channels, self.settings)
        plan = self._laddered(channels, families, reference)
        if self.settings.of == "units":
            return self._units(plan)
        whole = macs_of(channels)
        most = (1 - self.settings.remove) * whole
        options = branch_options(self.original, found, reference, self.tick) if found else []
        taken = left_out(channels, options, whole, self._damage_at(plan), most)
        if taken:
            left = find_channels(without(self.original, taken), self.shapes, self.constants)
            names = {branch.name for branch in taken}
            plan = replace(
                self._laddered(left, self._families(left), reference),
                branches={o.branch.name: o.damage for o in options if o.branch.name in names},
            )
        return self._settled(plan, self._narrowed(plan)(most), most=most, whole=whole)

    def _branches(self, reference: Reference) -> Sequence[Branch]:
        settings = self.settings
        wanted = "layers" in settings.kinds and settings.of == "macs"
        judged = settings.allocation == "measured" and reference.can_tell
        return branches(self.original) if wanted and judged else ()

    def _families(self, channels: Channels) -> list[Family]:
        return [family for family in channels.families if family.kind in self.settings.kinds]

    def _laddered(
        self, channels: Channels, families: Sequence[Family], reference: Reference
    ) -> Plan:
        readers = find_readers(channels, self.seen, self.tick) if families else Readers(fitted=())
        trial = Trial(
            channels=channels,
            readers=readers,
            reference=reference,
            seen=self.seen,
            settings=self.settings,
        )
        ladders = ladders_of(trial, families, self.tick)
        return Plan(channels=channels, readers=readers, ladders=ladders, state=(), going=())

    def _narrowed(self, plan: Plan) -> Callable[[float], list[int]]:
        """Choose the step of each ladder by the multiply-accumulates to keep, if possible."""
        sizes = Sizes(plan.channels, plan.ladders)
        if self.settings.allocation == "uniform":
            return lambda most: alike(plan.ladders, sizes.macs, most)

        def either(state: Sequence[int]) -> float:
            return max(sizes.macs(state), sizes.paced(state) / _LAG)

        swift = Allocation(plan.ladders, either, pace=sizes.paced)
        small = Allocation(plan.ladders, sizes.macs, pace=sizes.paced)

        def narrow(most: float) -> list[int]:
            state = swift.allocate(most)
            if _TOO_FAR * most <= sizes.macs(state) <= most:
                return state
            return small.allocate(most)

        return narrow

    def _damage_at(self, plan: Plan) -> Callable[[float], float]:
        """Return the damage of the best widths by the size to reach; infinite if none fit."""
        narrow, sizes = self._narrowed(plan), Sizes(plan.channels, plan.ladders)

        def damage(most: float) -> float:
            state = narrow(most)
            return damage_of(plan.ladders, state) if sizes.macs(state) <= most else math.inf

        return damage

    def _settled(self, plan: Plan, state: Sequence[int], *, most: float, whole: float) -> Plan:
        going = permitted(plan.channels, gone(plan.ladders, state))
        left = macs_of(plan.channels, going)
        if left > most:
            raise too_much(plan.channels, self.settings, 1 - left / whole)
        told = ""
        if most - left > _OVERSHOT * whole:
            told = f"{100 * (1 - left / whole):.1f} % of the multiply-accumulates go in all"
        return replace(plan, state=state, going=going, told=told)

    def _units(self, plan: Plan) -> Plan:
        """The same part of the groups of each kind, as their damages share it out."""
        state = [0] * len(plan.ladders)
        for kind in dict.fromkeys(ladder.family.kind for ladder in plan.ladders):
            places = [i for i, each in enumerate(plan.ladders) if each.family.kind == kind]
            same = [plan.ladders[i] for i in places]
            total = sum(len(ladder.family.groups) for ladder in same)
            left = _Units(ladders=same, total=total).left
            most = math.floor((1 - self.settings.remove) * total + _ROUNDING)
            uniform = self.settings.allocation == "uniform"
            allocation = Allocation(same, left, pace=left)
            steps = alike(same, left, most) if uniform else allocation.allocate(most)
            if left(steps) > most:
                raise too_much(plan.channels, self.settings, 1 - left(steps) / total)
            for place, step in zip(places, steps, strict=True):
                state[place] = step
        going = permitted(plan.channels, gone(plan.ladders, state))
        return replace(plan, state=state, going=going)


@dataclass(frozen=True, kw_only=True)
class _Units:
    """How many groups of some ladders are left."""

    ladders: Sequence[Ladder]
    total: int

    def left(self, state: Sequence[int]) -> float:
        went = sum(each.steps[step] for each, step in zip(self.ladders, state, strict=True))
        return float(self.total - went)


def _repaired(channels: Channels, chosen: Sequence[int]) -> list[Refitted]:
    """Every layer, with the output channels that are left of it."""
    index = GraphIndex(channels.proto)
    stays: dict[str, dict[int, NDArray[np.bool_]]] = {}
    layers: dict[str, Layer] = {}
    for use in channels.walk.uses:
        weighted = as_product(index, use.node)
        if weighted is None or use.node.input[use.position] != weighted.weight:
            continue
        output = key(use.node)
        stays.setdefault(output, {})[use.axis] = channels.kept(use.labels, chosen)
        layers[output] = Layer.of(index, weighted)
    return [
        Refitted(output=output, kept=layer.kept(stays[output])) for output, layer in layers.items()
    ]
