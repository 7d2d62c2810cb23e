"""Refinements of an 8-bit model, each accepted only if it improves the held-out outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from onnx import ModelProto

from edgekit.compression.checks.output_errors import FloatOutputs, OutputErrors, join_errors
from edgekit.compression.checks.sample_folds import Folds, Split
from edgekit.compression.pass_specs import Work
from edgekit.compression.quantization.affine import Affine
from edgekit.compression.quantization.bias_correction import Shifts, find_shifts
from edgekit.compression.quantization.calibration.activation_parameters import (
    PER_VALUE,
    Candidates,
    build_parameter_sets,
    choose_estimators,
    find_candidates,
    take_first_samples,
)
from edgekit.compression.quantization.calibration.range_errors import measure_reader_errors
from edgekit.compression.quantization.calibration.tensor_errors import measure_tensor_errors
from edgekit.compression.quantization.calibration.trial_models import Version, measure_version
from edgekit.compression.quantization.cross_layer_equalization import equalize_channels, find_pairs
from edgekit.compression.quantization.float_layers import choose_float_layers, find_costs
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.qdq_placement import Placement, plan_placement
from edgekit.pass_settings import Estimator, QuantizeStatic
from edgekit.progress import Count, merge_rounds
from edgekit_agent.samples import Samples

_BASE: Estimator = "minmax"
# Numbers of samples for means and for extremes; means need fewer.
_SHIFT_SAMPLES = 32
_CHANNEL_SAMPLES = 64
# Number of samples for the error of each tensor.
_TENSOR_SAMPLES = 3
# Below this relative squared error of the outputs no layer is moved to float.
_ENOUGH = 1e-3
# Layers in float cost time, so they must remove more of the error than other refinements.
_FLOAT_WORTH = 0.15


class Refiner:
    """Choice of the 8-bit version of one model.

    Every decision compares the outputs of two versions on held-out samples, and accepts the refined
    version if it is better by more than the noise.
    """

    def __init__(
        self, index: GraphIndex, settings: QuantizeStatic, work: Work, folds: Folds, largest: int
    ) -> None:
        self.index = index
        self.settings = settings
        self.work = work
        self.folds = folds
        self.largest = largest
        self._references: dict[int, FloatOutputs] = {}  # by index of the split
        self.known: dict[tuple[str, frozenset[str]], OutputErrors] = {}

    def refine(self) -> tuple[GraphIndex, Version]:
        """Return the graph, equalized if that helps, and the choices of its 8-bit version."""
        self._equalize()
        placement = plan_placement(self.index)
        candidates = [self._find_candidates(placement, s.estimating) for s in self.folds.splits]
        best = self._choose_estimators(placement, candidates)
        tried = [build_parameter_sets(each, placement, best) for each in candidates]
        label = PER_VALUE if best else next(iter(tried[0]))
        in_float = self._choose_float_layers(placement, candidates[0], label, tried)
        label = self._choose_label(tried, in_float)
        parameters = [each[label] for each in tried]
        final = parameters[0]
        if len(candidates) > 1:
            whole = self._find_candidates(placement, self.folds.estimating)
            final = build_parameter_sets(whole, placement, best)[label]
        before = self._get_errors(label, tried, in_float)
        shifts = self._choose_shifts(parameters, final, in_float, before)
        return self.index, Version(parameters=final, shifts=shifts, in_float=in_float)

    def _get_errors(
        self,
        label: str,
        tried: Sequence[Mapping[str, Mapping[str, Affine]]],
        in_float: frozenset[str],
    ) -> OutputErrors:
        """Return the errors of an estimator's ranges on all splits, measured once."""
        if (label, in_float) not in self.known:
            self.known[label, in_float] = self._measure_errors([t[label] for t in tried], in_float)
        return self.known[label, in_float]

    def _measure_errors(
        self,
        parameters: Sequence[Mapping[str, Affine]],
        in_float: frozenset[str],
        shifts: Sequence[Shifts] | None = None,
    ) -> OutputErrors:
        """Measure the errors of a version on all splits."""
        versions = [
            Version(parameters=each, shifts=more, in_float=in_float)
            for each, more in zip(parameters, shifts or [{} for _ in parameters], strict=True)
        ]
        return join_errors(
            [self._measure_on_split(self.index, n, each) for n, each in enumerate(versions)]
        )

    def _measure_on_split(self, index: GraphIndex, number: int, version: Version) -> OutputErrors:
        """Measure the errors of a version on one split; the float model runs once per split."""
        if number not in self._references:
            judging = self.folds.splits[number].judging
            self._references[number] = FloatOutputs(index, judging, self.work.scratch)
        reference = self._references[number]
        return measure_version(index, version, largest=self.largest, reference=reference)

    # ------------------------------------------------------------ equalization

    def _equalize(self) -> None:
        if not self.settings.equalize or not find_pairs(self.index, plan_placement(self.index)):
            return
        before, after = [], []
        for number, split in enumerate(self.folds.splits):
            self.work.progress("equalization", number, len(self.folds.splits))
            few = take_first_samples(split.estimating, _CHANNEL_SAMPLES)
            other = self._copy_equalized(few, split.judging)
            if other is None:
                return
            before.append(self._measure_whole_ranges(self.index, number, few))
            after.append(self._measure_whole_ranges(other, number, few))
        if join_errors(after).beats(join_errors(before)):
            few = take_first_samples(self.folds.estimating, _CHANNEL_SAMPLES)
            self.index = self._copy_equalized(few, self.folds.judging) or self.index

    def _copy_equalized(
        self, estimating: Sequence[Samples], judging: Sequence[Samples]
    ) -> GraphIndex | None:
        """Copy the graph and equalize its channels; ``None`` if no pair of layers improves."""
        copy = ModelProto()
        copy.CopyFrom(self.index.proto)
        index = GraphIndex(copy, self.index.folder)
        changed = equalize_channels(
            index,
            plan_placement(index),
            largest=self.largest,
            estimating=estimating,
            judging=judging,
        )
        return GraphIndex(copy, self.index.folder) if changed else None

    def _measure_whole_ranges(
        self, index: GraphIndex, number: int, estimating: Sequence[Samples]
    ) -> OutputErrors:
        placement = plan_placement(index)
        plain = QuantizeStatic(ranges=_BASE)
        found = find_candidates(index, placement, plain, self.work, estimating)
        parameters = build_parameter_sets(found, placement, {})[_BASE]
        return self._measure_on_split(index, number, Version(parameters=parameters))

    # ------------------------------------------------------------ ranges

    def _find_candidates(self, placement: Placement, estimating: Sequence[Samples]) -> Candidates:
        return find_candidates(self.index, placement, self.settings, self.work, estimating)

    def _choose_estimators(
        self, placement: Placement, candidates: Sequence[Candidates]
    ) -> dict[str, str]:
        """Choose the estimator of each value by the error of its readers; empty unless "auto"."""
        if self.settings.ranges != "auto":
            return {}
        tick = merge_rounds(partial(self.work.progress, "choosing ranges"), len(candidates))
        return choose_estimators(
            [
                measure_reader_errors(self.index, placement, each.affines, split.judging, tick=tick)
                for each, split in zip(candidates, self.folds.splits, strict=True)
            ]
        )

    def _choose_label(
        self, tried: Sequence[Mapping[str, Mapping[str, Affine]]], in_float: frozenset[str]
    ) -> str:
        """Choose the most accurate estimator; min-max unless one is significantly better."""
        distinct: dict[tuple[Affine, ...], str] = {}
        for label in sorted(tried[0], key=lambda each: each != _BASE):
            key = tuple(affine for each in tried for affine in each[label].values())
            distinct.setdefault(key, label)
        labels = list(distinct.values())
        if len(labels) == 1:
            return labels[0]
        errors = {}
        for done, label in enumerate(labels):
            self.work.progress("comparing ranges", done, len(labels))
            errors[label] = self._get_errors(label, tried, in_float)
        better = [label for label in labels if errors[label].beats(errors[_BASE])]
        return min(better, key=lambda each: errors[each].total, default=_BASE)

    # ------------------------------------------------------------ layers in float

    def _choose_float_layers(
        self,
        placement: Placement,
        candidates: Candidates,
        label: str,
        tried: Sequence[Mapping[str, Mapping[str, Affine]]],
    ) -> frozenset[str]:
        """Choose the nodes that compute in float, by their first outputs; empty if none helps."""
        if self.settings.float_layers == "none":
            return frozenset()
        before = self._get_errors(label, tried, frozenset())
        if before.total <= _ENOUGH:
            return frozenset()
        judging = self.folds.splits[0].judging
        every = max(1, len(judging) // _TENSOR_SAMPLES)
        errors = measure_tensor_errors(
            self.index,
            placement,
            tried[0][label],
            largest=self.largest,
            judging=judging[::every][:_TENSOR_SAMPLES],
            tick=lambda done, most: self.work.progress(
                "measuring the error of each tensor", done, most
            ),
        )
        costs = find_costs(self.index, placement, candidates.sizes)
        sets = choose_float_layers(self.index, placement, errors, costs)
        if not sets:
            return frozenset()
        # What these layers gain may be what min-max ranges gain without them.
        after = self._get_errors(self._choose_label(tried, sets[-1]), tried, sets[-1])
        for other in {label, _BASE} & tried[0].keys():
            if not after.beats(self._get_errors(other, tried, frozenset()), by=_FLOAT_WORTH):
                return frozenset()
        self._note_layers(placement, sets[-1], costs.work)
        return sets[-1]

    def _note_layers(
        self, placement: Placement, nodes: frozenset[str], work: Mapping[str, float]
    ) -> None:
        layers = [w.node for w in placement.weighted if w.node.output[0] in nodes]
        names = ", ".join(node.name or node.output[0] for node in layers)
        share = 100 * sum(work[node.output[0]] for node in layers)
        self.work.note(
            f"{len(layers)} of {len(placement.weighted)} layers stay float, as the outputs are "
            f"most sensitive to them (about {share:.0f} % of the MACs): {names}"
        )

    # ------------------------------------------------------------ bias correction

    def _choose_shifts(
        self,
        parameters: Sequence[Mapping[str, Affine]],
        final: Mapping[str, Affine],
        in_float: frozenset[str],
        before: OutputErrors,
    ) -> Shifts:
        """Find bias corrections; empty where the outputs do not improve by more than the noise."""
        if not self.settings.bias_correction:
            return {}
        splits = self.folds.splits
        # Each shift is estimated and judged; with several splits, once more from all samples.
        rounds = 2 * (len(splits) + (len(splits) > 1))
        tick = merge_rounds(partial(self.work.progress, "bias correction"), rounds)
        found = [
            self._find_shifts(p, split, in_float, tick)
            for p, split in zip(parameters, splits, strict=True)
        ]
        if not any(found):
            return {}
        if not self._measure_errors(parameters, in_float, found).beats(before):
            return {}
        if len(splits) == 1:
            return found[0]
        whole = Split(estimating=self.folds.estimating, judging=self.folds.judging)
        return self._find_shifts(final, whole, in_float, tick)

    def _find_shifts(
        self,
        parameters: Mapping[str, Affine],
        split: Split,
        in_float: frozenset[str],
        tick: Count,
    ) -> Shifts:
        return find_shifts(
            self.index,
            plan_placement(self.index, in_float),
            parameters,
            largest=self.largest,
            estimating=take_first_samples(split.estimating, _SHIFT_SAMPLES),
            judging=split.judging,
            tick=tick,
        )
