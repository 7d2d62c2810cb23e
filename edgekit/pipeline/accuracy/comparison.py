"""Comparison of the tallies of original and candidate by each metric of a build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial

from edgekit.data.dataset import Dataset
from edgekit.data.targets import iter_targets_and_inputs
from edgekit.errors import DeviceError
from edgekit.metrics.changed_samples import find_changed_samples
from edgekit.metrics.comparison import ClassValues, Comparison, compare
from edgekit.metrics.meaningless import find_meaningless, find_uninformative
from edgekit.metrics.metric import INPUT, Margin, Metric, Table, TargetReader
from edgekit.metrics.registry import get_metric
from edgekit.metrics.slices import compare_slices
from edgekit.pipeline.accuracy.tallies import Scoring, drop_unscored, read_table
from edgekit_agent.scoring import MetricJob
from edgekit_agent.worker_results import Tally

# Most numbers of changed samples in results.
_MOST_CHANGED = 100


def compare_tallies(
    reference: Tally,
    candidate: Tally,
    *,
    scoring: Scoring,
    margins: tuple[Margin, ...],
    evaluation: Dataset,
    same_model: bool = False,
    seed: int = 0,
) -> Comparison:
    """Compare two tallies of the same samples by every metric.

    Args:
        reference: Tally of the original.
        candidate: Tally of the candidate.
        scoring: The metrics.
        margins: Largest loss of each metric.
        evaluation: The samples, with their targets and groups.
        same_model: Whether the candidate is the original.
        seed: Seed of the bootstrap.

    Returns:
        The comparison by the gated metric, with those by the guards inside.

    Raises:
        EdgekitError: The tallies are of different samples or metrics.
        DeviceError: The candidate was scored on other samples than the original.
    """
    first, *guards = (
        _compare(
            reference,
            candidate,
            get_metric(job.name),
            job,
            margin,
            evaluation,
            same_model,
            seed,
        )
        for job, margin in zip(scoring.metrics, margins, strict=True)
    )
    return replace(first, guards=tuple(guards))


def _check_same_samples(name: str, reference: Table, candidate: Table) -> None:
    """Check that a device left out the same samples as this machine, which the targets decide."""
    before, after = ([row.size > 0 for row in each.rows] for each in (reference, candidate))
    if before != after:
        raise DeviceError(
            f"invalid answer of the agent: {name}: {sum(after)} samples have a statistic, "
            f"{sum(before)} have one on this machine, or they are others"
        )


@lru_cache(maxsize=512)
def _compare(
    reference: Tally,
    candidate: Tally,
    metric: Metric,
    job: MetricJob,
    margin: Margin,
    evaluation: Dataset,
    same_model: bool,
    seed: int,
) -> Comparison:
    before, after = (
        read_table(tally, job.name, evaluation.groups) for tally in (reference, candidate)
    )
    _check_same_samples(job.name, before, after)
    compared = compare(
        metric,
        before,
        after,
        options=job.options,
        margin=margin,
        same_model=same_model,
        seed=seed,
    )
    meaningless = _find_meaningless(reference, metric, job, evaluation)
    if not meaningless and not same_model and compared.drop <= compared.margin:
        meaningless = find_uninformative(
            metric,
            after,
            _build_reader(metric, evaluation),
            job.options,
            before=compared.before,
            trivial=_compute_trivial(metric, job, evaluation),
            margin=margin,
        )
    return replace(compared, meaningless=meaningless)


@lru_cache(maxsize=64)
def _find_meaningless(reference: Tally, metric: Metric, job: MetricJob, evaluation: Dataset) -> str:
    table = read_table(reference, job.name, evaluation.groups)
    return find_meaningless(metric, table, _build_reader(metric, evaluation), job.options)


@lru_cache(maxsize=16)
def _compute_trivial(metric: Metric, job: MetricJob, evaluation: Dataset) -> float | None:
    return metric.compute_trivial(_build_reader(metric, evaluation), job.options)


def _build_reader(metric: Metric, evaluation: Dataset) -> TargetReader:
    if metric.find_fault is None:
        return evaluation.read_targets
    return partial(iter_targets_and_inputs, evaluation.samples, INPUT)


def add_details(
    compared: Comparison,
    reference: Tally,
    candidate: Tally,
    *,
    job: MetricJob,
    margin: Margin,
    evaluation: Dataset,
    class_names: Mapping[int, str],
) -> Comparison:
    """Add the comparisons on slices and classes, and the changed samples, to a comparison.

    Args:
        compared: The comparison by the gated metric.
        reference: Tally of the original.
        candidate: Tally of the candidate.
        job: The gated metric.
        margin: Largest loss of it.
        evaluation: The samples, with their groups and slices.
        class_names: Names of classes by their numbers.
    """
    metric = get_metric(job.name)
    before, after = (
        read_table(tally, job.name, evaluation.groups) for tally in (reference, candidate)
    )
    slices = compare_slices(
        metric, before, after, slices=evaluation.slices, options=job.options, margin=margin
    )
    changed = find_changed_samples(metric, before, after, job.options)[:_MOST_CHANGED]
    compared = replace(compared, slices=slices, changed=tuple(each.number for each in changed))
    if metric.compute_classes is None:
        return compared
    old, new = (
        metric.compute_classes(drop_unscored(table), job.options) for table in (before, after)
    )
    sign = 1 if metric.higher_is_better else -1
    values = [
        ClassValues(
            number=number, before=value, after=new[number], name=class_names.get(number, "")
        )
        for number, value in old.items()
        if number in new
    ]
    worst = sorted(values, key=lambda each: sign * (each.after - each.before))
    return replace(compared, classes=tuple(worst))
