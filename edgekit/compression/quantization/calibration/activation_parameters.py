"""8-bit parameters of activations: estimated ranges, and the best estimator of each activation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

from edgekit.compression.pass_specs import Work
from edgekit.compression.quantization.affine import Affine, compute_unsigned_affine
from edgekit.compression.quantization.calibration.observers import (
    BatchExtremes,
    Extremes,
    Histograms,
    estimate,
)
from edgekit.data.subsets import select_rows
from edgekit.errors import PassRefused
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.output_parts import find_output_values
from edgekit.onnx_graph.qdq_placement import Placement
from edgekit.onnx_graph.runs.value_probes import iter_entries, iter_extremes
from edgekit.pass_settings import Estimator, QuantizeStatic
from edgekit_agent.samples import Samples

_ALL: tuple[Estimator, ...] = get_args(Estimator)
# Number of samples in the histograms.
_COUNTED = 128
_FROM_EXTREMES = {"minmax", "average"}
PER_VALUE = "per value"


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Candidate parameters of each activation by estimator, and the activations' entry counts."""

    affines: Mapping[str, Mapping[str, Affine]]
    sizes: Mapping[str, int]


def find_candidates(
    index: GraphIndex,
    placement: Placement,
    settings: QuantizeStatic,
    work: Work,
    estimating: Sequence[Samples],
) -> Candidates:
    """Estimate the uint8 parameters of each activation by each estimator of the settings.

    Only activations with parameters of their own are estimated. Activations that the graph outputs
    hold, moved or concatenated, keep their whole range.

    Args:
        index: the float graph, its weights offloaded.
        placement: the activations that become 8-bit.
        settings: which estimators, and their percentile.
        work: work of the pass, for its progress.
        estimating: samples to run.

    Raises:
        PassRefused: an activation is not finite on the samples.
    """
    roots = list(dict.fromkeys(placement.root(name) for name in placement.values))
    estimators = _ALL if settings.ranges == "auto" else (settings.ranges,)
    try:
        extremes = _measure_extremes(index, roots, work, estimating)
    except FloatingPointError as error:
        raise PassRefused(f"activation {error} is not finite on the calibration samples") from error
    histograms = Histograms(extremes=extremes)
    if not set(estimators) <= _FROM_EXTREMES:
        _count_entries(index, histograms, work, estimating)
    whole = {placement.root(name) for name in find_output_values(index.proto)}
    affines = {}
    for number, name in enumerate(roots):
        work.progress("estimating ranges", number, len(roots))
        ranges = estimate(estimators, name, histograms, settings.percentile)
        if name in whole:
            ranges = dict.fromkeys(ranges, extremes.whole.get(name, (0.0, 0.0)))
        affines[name] = {
            str(label): compute_unsigned_affine(*each) for label, each in ranges.items()
        }
    return Candidates(affines=affines, sizes=extremes.size)


def choose_estimators(errors: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, str]:
    """Choose the estimator of each activation with the least error in its readers over all splits.

    Args:
        errors: of each split, by activation and estimator (see ``measure_reader_errors``).
    """
    best = {}
    for root, labels in errors[0].items():
        totals = {label: sum(each[root][label] for each in errors) for label in labels}
        best[root] = min(totals, key=totals.__getitem__)
    return best


def build_parameter_sets(
    candidates: Candidates, placement: Placement, best: Mapping[str, str]
) -> dict[str, dict[str, Affine]]:
    """Return the parameters of all activations by estimator, and of the best ones as ``PER_VALUE``.

    Moved activations have the parameters of their source.

    Args:
        candidates: of the activations that have parameters of their own.
        placement: with all layers in 8 bits.
        best: the estimator of each activation; empty where there is only one.
    """
    roots = {name: placement.root(name) for name in placement.values}
    labels = next(iter(candidates.affines.values())).keys()
    affines = candidates.affines
    made = {each: {name: affines[root][each] for name, root in roots.items()} for each in labels}
    if best:
        made[PER_VALUE] = {name: affines[root][best[root]] for name, root in roots.items()}
    return made


def _measure_extremes(
    index: GraphIndex, roots: Sequence[str], work: Work, parts: Sequence[Samples]
) -> Extremes:
    extremes = Extremes()
    for facts in iter_extremes(index, roots, parts, tick=partial(work.progress, "ranges")):
        for name, (low, high, total, size) in facts.items():
            if size and total - total != 0:
                raise FloatingPointError(name)
            extremes.update(name, BatchExtremes(low=low, high=high, size=size))
    return extremes


def _count_entries(
    index: GraphIndex, histograms: Histograms, work: Work, parts: Sequence[Samples]
) -> None:
    tick = partial(work.progress, "histograms")
    few = take_first_samples(parts, _COUNTED)
    for entries in iter_entries(index, histograms.extremes.size, few, tick=tick):
        for name, values in entries.items():
            histograms.update(name, values)


def take_first_samples(parts: Sequence[Samples], count: int) -> list[Samples]:
    """Return about ``count`` samples from the beginnings of all parts.

    Args:
        parts: samples in parts, of which each gives the same share.
        count: number of samples over all parts.
    """
    rows = [part.columns[0].shape[0] for part in parts]
    share = min(1.0, count / sum(rows))
    return [select_rows(p, 0, math.ceil(share * r)) for p, r in zip(parts, rows, strict=True) if r]
