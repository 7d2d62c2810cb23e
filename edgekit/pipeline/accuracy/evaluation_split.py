"""Evaluation samples of a build with their metrics: by targets, by the original, or unmeasured."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgekit.cache.store import Store
from edgekit.compression.checks.contract_inputs import write_made_up_samples
from edgekit.config.project import Project
from edgekit.data.dataset import Dataset
from edgekit.data.duplicates import compare_splits
from edgekit.data.input_settings import Feeding
from edgekit.data.original_outputs import Original, SingleModel, add_original_outputs
from edgekit.errors import UserError
from edgekit.metrics.registry import get_metric
from edgekit.model import Model, Signature
from edgekit.pipeline.accuracy.metric_choice import check_names, choose_scoring
from edgekit.pipeline.accuracy.output_kind import has_class_scores, resolve_logits
from edgekit.pipeline.accuracy.tallies import Scoring
from edgekit.pipeline.proposals.missing_settings import complete_project
from edgekit.progress import Tick
from edgekit_agent.metrics.ragged import get_length_name
from edgekit_agent.scoring import MetricJob

# Largest share of evaluation samples that may be calibration samples too, beyond those to expect of
# independent splits with this many standard deviations.
_MOST_SHARED, _DEVIATIONS = 0.01, 3.0


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Samples to evaluate on, and their metrics; without metrics the accuracy is unmeasured."""

    dataset: Dataset
    scoring: Scoring | None
    notes: tuple[str, ...] = ()


def prepare_evaluation(
    dataset: Dataset | None,
    model: Model,
    project: Project,
    *,
    folder: Path,
    metric: str | None,
    feeding: Feeding,
    store: Store,
    tick: Tick,
) -> Evaluation:
    """Choose how candidates are evaluated.

    Samples with targets are scored by the metric that was asked for, or the one that fits them.
    Without targets, candidates are compared with the outputs of the original. Without samples, one
    made-up sample serves to run candidates, and their accuracy is unmeasured.

    Args:
        dataset: The evaluation samples; ``None`` = there are none.
        model: The original.
        project: Settings of edgekit.toml.
        folder: Base of paths in edgekit.toml.
        metric: Metric of the request.
        feeding: How the inputs are fed.
        store: Cache.
        tick: Progress callback.

    Raises:
        UserError: The metric does not fit the samples, or the model fails on them.
    """
    if dataset is None:
        return Evaluation(dataset=_make_up(model, feeding, store), scoring=None)
    notes: tuple[str, ...] = ()
    if dataset.samples.states and dataset.groups is None:
        dataset = replace(dataset, groups=np.zeros(dataset.count, np.int64))
        notes = (
            f"all rows of {dataset.source} are steps of one sequence, and nothing can be proven by "
            "one: give several, numbered by an array 'sequence'",
        )
    check_names(project, metric, folder)
    asked = metric or project.data.metric
    needs_labels = asked is None or not get_metric(asked, folder).compares_outputs
    if not needs_labels or not dataset.samples.get_targets():
        first = model.signature.outputs[0].name
        original = SingleModel(model=model)
        found = _compare_with_outputs(dataset, original, project, first, asked, store, tick)
        return replace(found, notes=(*notes, *found.notes))
    completed = complete_project(project, model, dataset, folder=folder, metric=metric, tick=tick)
    scoring = choose_scoring(completed.project, model.signature, folder=folder, metric=metric)
    return Evaluation(
        dataset=dataset,
        scoring=resolve_logits(scoring, completed.project, SingleModel(model=model), dataset, tick),
        notes=(*notes, *completed.notes),
    )


def prepare_combined_evaluation(
    dataset: Dataset,
    original: Original,
    project: Project,
    *,
    inputs: Signature,
    folder: Path,
    metric: str | None,
    store: Store,
    tick: Tick,
) -> Evaluation:
    """Choose how candidates are evaluated whose model is one of several that are combined.

    Args:
        dataset: The evaluation samples.
        original: The combination of the originals.
        project: Settings of edgekit.toml.
        inputs: Signature with the arrays of a sample as inputs.
        folder: Base of paths in edgekit.toml.
        metric: Metric of the request.
        store: Cache.
        tick: Progress callback.

    Raises:
        UserError: No metric is set for samples with targets, or it does not fit them.
    """
    check_names(project, metric, folder)
    asked = metric or project.data.metric
    has_targets = bool(dataset.samples.get_targets())
    compares = asked is not None and get_metric(asked, folder).compares_outputs
    if compares or not has_targets:
        return _compare_with_outputs(dataset, original, project, None, asked, store, tick)
    if asked is None:
        raise UserError(
            "edgekit.toml: data.metric: missing, and outputs of a [pipeline] have no default",
            hint="name a metric of 'edgekit metrics', or module:function",
        )
    scoring = choose_scoring(project, inputs, folder=folder, metric=metric)
    return Evaluation(
        dataset=dataset, scoring=resolve_logits(scoring, project, original, dataset, tick)
    )


def _compare_with_outputs(
    dataset: Dataset,
    original: Original,
    project: Project,
    first_output: str | None,
    asked: str | None,
    store: Store,
    tick: Tick,
) -> Evaluation:
    """Return the samples with the outputs of the original as targets."""
    if asked is not None and not get_metric(asked).compares_outputs:
        raise UserError(
            f"{dataset.source}: metric {asked} needs targets, and there is no array 'y'",
            hint="add an array 'y' with the target of each sample, or use metric agreement, which "
            "compares with the original",
        )
    found = add_original_outputs(dataset, original, cache=store.root, tick=tick)
    options = project.data.metric_options.to_options(project.data.output)
    name = project.data.output or first_output or found.samples.targets[0].name
    columns = {column.name: column for column in found.samples.targets}
    column = columns.get(name) if get_length_name(name) not in columns else None
    if asked not in (None, "agreement"):
        names = [asked]
    elif column is not None and has_class_scores(column):
        names = ["agreement"]
    else:  # there are no classes to agree on
        names = ["output-cosine", "output-rms"]
    guards = [g for g in project.gate.guards if g not in names]
    for guard in guards:
        if not get_metric(guard).compares_outputs:
            raise UserError(
                f"edgekit.toml: gate.guards: {guard} compares with targets, but {names[0]} with "
                "the outputs of the original",
                hint="give a [data] metric that needs targets; without targets, remove the guard",
            )
    jobs = tuple(MetricJob(each, options) for each in (*names, *guards))
    what = " and ".join(get_metric(each).title for each in names)
    note = f"{dataset.source} is used without labels: candidates are judged by their {what}"
    return Evaluation(dataset=found, scoring=Scoring(metrics=jobs), notes=(note,))


def _make_up(model: Model, feeding: Feeding, store: Store) -> Dataset:
    """Return one made-up sample that the model accepts, stored in the cache."""
    digest = hashlib.sha256(f"made up {model.digest} {feeding.digest}".encode()).hexdigest()
    folder = store.root / "made-up" / digest
    folder.mkdir(parents=True, exist_ok=True)
    samples = write_made_up_samples(model, feeding, folder)
    return Dataset(source="random inputs", samples=samples, count=1, digest=digest)


def check_overlap(calibration: Dataset | None, evaluation: Dataset) -> tuple[str, ...]:
    """Return a note if samples are both for calibration and for evaluation.

    Where the data have few distinct rows, such as tables of a few yes-or-no answers, independent
    splits share some. As many as the repetitions in the evaluation samples explain are allowed.

    Raises:
        UserError: They are more than that by over 1 % of the evaluation samples.
    """
    if calibration is None:
        return ()
    found = compare_splits(calibration, evaluation)
    shared = found.shared
    if not shared:
        return ()
    text = (
        f"{shared} of {evaluation.count} samples of {evaluation.source} are in "
        f"{calibration.source} too"
    )
    allowed = found.expected + _DEVIATIONS * math.sqrt(found.expected)
    if shared > _MOST_SHARED * evaluation.count + allowed:
        raise UserError(
            f"{text}: the accuracy of quantized candidates would be too optimistic",
            hint="evaluate on other samples than those for calibration",
        )
    if shared <= allowed:
        return (f"{text}, as is to be expected of data in which samples repeat",)
    return (f"{text}, so the accuracy of quantized candidates is slightly too optimistic",)
