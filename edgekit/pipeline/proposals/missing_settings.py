"""Metric, its options and post-processing where edgekit.toml and the request leave them open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from edgekit.config.project import PostprocessTable, PreprocessSettings, Project
from edgekit.data.dataset import Dataset
from edgekit.data.subsets import select_spread
from edgekit.errors import UserError
from edgekit.model import Model
from edgekit.pipeline.accuracy.tallies import Scoring
from edgekit.pipeline.proposals.sample_rows import Head
from edgekit.pipeline.proposals.task_proposal import TaskProposal, find_image_size, propose_task
from edgekit.pipeline.proposals.trials import SAMPLES, Candidate, choose_best, try_candidates
from edgekit.progress import Tick
from edgekit_agent.samples import TARGET
from edgekit_agent.scoring import MetricJob

# Metrics that need boxes or texts, which few models put out themselves.
_NEED_HEADS = ("map", "map50", "cer", "wer")


@dataclass(frozen=True, kw_only=True)
class CompletedProject:
    """A project with every setting of accuracy, and notes on those that were chosen."""

    project: Project
    notes: tuple[str, ...] = ()


def complete_project(
    project: Project,
    model: Model,
    dataset: Dataset,
    *,
    folder: Path,
    metric: str | None,
    tick: Tick,
) -> CompletedProject:
    """Choose metric and post-processing by targets and outputs, as ``init`` does, if none is set.

    Args:
        project: Settings of edgekit.toml.
        model: The original, which is run on a few samples.
        dataset: The evaluation samples, with targets.
        folder: Base of paths in edgekit.toml.
        metric: Metric of the request.
        tick: Progress callback.

    Raises:
        UserError: The model fails on the samples, no post-processing fits its outputs, or there
            are several targets, which no metric of edgekit judges.
    """
    data = project.data
    asked = metric or data.metric
    may_lack_head = asked is None or (asked in _NEED_HEADS and not _has_final_outputs(model))
    needs_head = project.postprocess is None and may_lack_head
    if asked is not None and not needs_head:
        return CompletedProject(project=project)
    task = propose_task(
        model,
        dataset,
        output=data.output,
        folders=(folder, (folder / dataset.source).parent),
        size=data.preprocess.fixed_size if data.preprocess else None,
    )
    if asked is None and task.targets:
        _refuse_targets(dataset.source, task.targets)
    head = _choose_head(project, model, dataset, task, folder, tick) if needs_head else None
    if asked is None:
        own = data.metric_options.model_dump(exclude_unset=True)
        options = task.options.model_copy(update=own)
        data = data.model_copy(update={"metric": task.metric, "metric_options": options})
    update = {"data": data, "postprocess": head or project.postprocess}
    return CompletedProject(
        project=project.model_copy(update=update),
        notes=tuple(_iter_notes(task, head, is_chosen=asked is None)),
    )


def _refuse_targets(source: str, names: tuple[str, ...]) -> NoReturn:
    many = "several targets" if len(names) > 1 else "a target with a name"
    raise UserError(
        f"{source}: has {many}, {' and '.join(names)}, and no metric is set; edgekit chooses one "
        f"that judges {TARGET} alone",
        hint=f"set [data] metric to a function of yours that judges all, or keep one target, "
        f"called {TARGET}",
    )


def _has_final_outputs(model: Model) -> bool:
    """Return whether the outputs have the names of those that metrics read without a head."""
    names = {spec.name for spec in model.signature.outputs}
    return {"boxes", "scores"} <= names or "text" in names


def _iter_notes(
    task: TaskProposal, head: PostprocessTable | None, *, is_chosen: bool
) -> Iterator[str]:
    if is_chosen:
        yield (
            f"no metric is set: {task.metric} is used ({task.reason}); [data] metric in "
            "edgekit.toml sets another one"
        )
    if head is not None:
        yield (
            f"no post-processing is set: {head.kind} is used, as it fits the outputs; "
            "[postprocess] in edgekit.toml sets another one"
        )


def _choose_head(
    project: Project,
    model: Model,
    dataset: Dataset,
    task: TaskProposal,
    folder: Path,
    tick: Tick,
) -> PostprocessTable | None:
    """Return the only post-processing that fits, or the one with the best value on some samples."""
    if len(task.heads) < 2:
        return task.heads[0] if task.heads else None
    settings = project.data.preprocess or PreprocessSettings()
    size = find_image_size(model.signature) or settings.fixed_size or ()
    job = MetricJob(task.metric, task.options.to_options(project.data.output))
    heads = [
        Head(
            table=table,
            scoring=Scoring(metrics=(job,), postprocess=table.to_postprocess(folder, size)),
        )
        for table in task.heads
    ]
    parts = select_spread(dataset.samples, SAMPLES)
    candidate = Candidate(name="as set", settings=settings, parts=parts)
    return choose_best(try_candidates(model, [candidate], heads, tick=tick)).head.table
