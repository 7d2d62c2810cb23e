"""Examples of a build: its changed samples, run through original and candidate, and drawn."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

from numpy.typing import NDArray

from edgekit.bundle.results import Build, Candidate
from edgekit.data.lengths import iter_own_rows
from edgekit.data.targets import iter_targets
from edgekit.data.text_lines import read_line_texts
from edgekit.errors import DeviceError, EdgekitError
from edgekit.metrics.answers import Answer, AnswerReader
from edgekit.metrics.changed_samples import ChangedSample, find_changed_samples
from edgekit.metrics.metric import Metric, SampleValue
from edgekit.metrics.registry import get_metric
from edgekit.pipeline.accuracy.baseline_comparison import get_reference
from edgekit.pipeline.accuracy.tallies import Scoring, read_table
from edgekit.pipeline.combination.models import CombinedModels
from edgekit.pipeline.examples.drawings import Pen, find_limits
from edgekit.pipeline.examples.records import Drawing, Example, Examples
from edgekit.pipeline.examples.sample_runs import (
    Arrays,
    ChosenSamples,
    copy_samples,
    list_rows,
    run_samples,
)
from edgekit.pipeline.measure_targets import HOST, open_host_place
from edgekit.pipeline.request import BuildInputs
from edgekit.progress import Tick
from edgekit_agent.failures import AgentError
from edgekit_agent.metrics import ScoredSample
from edgekit_agent.scoring import MetricOptions, Postprocess

# Part of the cache key; raised when the same samples are drawn otherwise.
_VERSION = 1
_MOST_WORSE, _MOST_BETTER = 12, 4
# Samples of each direction that are listed by number alone.
_MOST_LISTED = 50
# Most time to run the samples, most steps of sequences, and most values of all outputs.
_MOST_RUN_S, _MOST_ROWS, _MOST_VALUES = 20.0, 4000, 1 << 24
# Sides of pictures in pixels: the largest with which all drawings are small enough.
_SIDES, _MOST_BYTES = (160, 128, 96, 64, 32), 900_000


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sample:
    """A changed sample with its inputs, its targets, and the answers of both models."""

    changed: ChangedSample
    inputs: Arrays
    targets: Arrays
    target: Answer | None = None
    original: Answer | None = None
    candidate: Answer | None = None


def collect_examples(inputs: BuildInputs, found: Build, build: str, tick: Tick) -> Examples | None:
    """List samples that the shown candidate changes, or draw them; ``None`` if there are none.

    A failure is a note in the result, never an error: the verdict does not depend on examples.

    Args:
        inputs: The inputs of the build.
        found: The result of the build.
        build: The id of the build.
        tick: Progress callback.
    """
    shown, scoring = found.shown_candidate, inputs.scoring
    reference, tally = get_reference(inputs, found.baseline), shown.tally
    if not (scoring and reference and tally):
        return None
    if shown.model.digest == found.baseline.model.digest:
        return None
    job = scoring.metrics[0]
    metric = get_metric(job.name)
    value = metric.get_sample_value()
    before, after = (read_table(each, job.name) for each in (reference, tally))
    changed = find_changed_samples(metric, before, after, job.options)
    if value is None or not changed:
        return None
    worse, better = ([c for c in changed if (c.loss > 0) is is_worse] for is_worse in (True, False))
    examples = Examples(
        build=build,
        candidate=shown.key,
        source=next(m.source for m in reversed(shown.measurements) if m.tally),
        title=value.title,
        worse=len(worse),
        better=len(better),
        n=sum(row.size > 0 for row in before.rows),
    )
    if not inputs.with_samples:
        listed = [*worse[:_MOST_LISTED], *better[:_MOST_LISTED]]
        named = tuple(_describe_values(each, value) for each in listed)
        return examples.model_copy(update={"examples": named})
    chosen = [*worse[:_MOST_WORSE], *better[:_MOST_BETTER]]
    key = _compute_key(inputs, scoring, found.baseline, shown, chosen)
    known = inputs.store.recall_as("examples", key, Examples.model_validate)
    if known is not None:
        return examples.model_copy(update={"examples": known.examples, "note": known.note})
    tick("examples", 0, 0)
    try:
        drawn, note = _draw_changed(inputs, scoring, metric, value, found.baseline, shown, chosen)
    except Exception as error:  # noqa: BLE001 - code of a plugin raises anything
        return examples.model_copy(update={"note": f"They cannot be drawn: {_explain(error)}"})
    complete = examples.model_copy(update={"examples": drawn, "note": note})
    if not note:
        inputs.store.remember("examples", key, complete.model_dump(mode="json"))
    return complete


def _compute_key(
    inputs: BuildInputs,
    scoring: Scoring,
    baseline: Candidate,
    shown: Candidate,
    chosen: Sequence[ChangedSample],
) -> str:
    """Compute a digest of everything that decides the drawings."""
    facts = [
        _VERSION,
        inputs.part.digest if inputs.part else "",
        baseline.model.digest,
        shown.model.digest,
        inputs.evaluation.digest,
        scoring.digest,
        [(c.number, c.before, c.after) for c in chosen],
        sorted(inputs.class_names.items()),
        _is_reversed(inputs),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _is_reversed(inputs: BuildInputs) -> bool:
    settings = inputs.project.data.preprocess
    return settings is not None and settings.order == "BGR"


def _draw_changed(
    inputs: BuildInputs,
    scoring: Scoring,
    metric: Metric,
    value: SampleValue,
    baseline: Candidate,
    shown: Candidate,
    chosen: Sequence[ChangedSample],
) -> tuple[tuple[Example, ...], str]:
    """Run and draw samples; also return a note if answers are missing."""
    reader, note, lines = metric.answers, "", inputs.evaluation.lines
    numbers = [c.number for c in chosen]
    rows = list_rows(inputs.evaluation.samples, numbers) if reader else []
    rows = _choose_affordable(inputs, reader, baseline, shown, rows)
    with inputs.store.scratch() as folder:
        run = rows or [[number] for number in numbers]
        copied = copy_samples(inputs.evaluation.samples, run, folder)
        by_number = {each.number: each for each in chosen}
        samples = list(_iter_samples(copied, [by_number[each[-1]] for each in run]))
        if reader and not rows:
            note = (
                "The answers are not shown: to run the samples, with the steps before them, would "
                "take too long, or their outputs are too large"
            )
        elif reader:
            try:
                samples = _add_answers(inputs, scoring, reader, samples, copied, [baseline, shown])
            except (EdgekitError, AgentError, OSError, ValueError) as error:
                note = f"The answers are not shown: {_explain(error)}"
        pen = Pen(
            names=inputs.class_names,
            is_reversed=_is_reversed(inputs),
            texts=read_line_texts(lines, set(numbers)) if lines else {},
        )
        return _draw_small_enough(samples, value, pen), note


def _choose_affordable(
    inputs: BuildInputs,
    reader: AnswerReader | None,
    baseline: Candidate,
    shown: Candidate,
    rows: list[list[int]],
) -> list[list[int]]:
    """Choose the samples that can be run in short time and with few values of outputs."""
    measured = [each.get_measurement(HOST) for each in (baseline, shown)]
    seconds = sum(m.times.p50_ms / 1000 for m in measured if m and m.times)
    values = 1
    if inputs.scoring and inputs.scoring.postprocess is None:
        label = inputs.evaluation.samples.label
        shapes = [output.shape[1:] for output in inputs.model.signature.outputs]
        if reader and reader.reduction and label:
            shapes = [label.shape[1:]]
        values = sum(_multiply(shape) for shape in shapes)
    most = min(_MOST_ROWS, _MOST_VALUES // max(values, 1))
    if seconds:
        most = min(most, int(_MOST_RUN_S / seconds))
    chosen: list[list[int]] = []
    for each in rows:
        if len(each) <= most:
            most -= len(each)
            chosen.append(each)
    return chosen


def _multiply(shape: Sequence[int | str | None]) -> int:
    product = 1
    for size in shape:
        product *= size if isinstance(size, int) else 1
    return product


def _iter_samples(copied: ChosenSamples, chosen: Sequence[ChangedSample]) -> Iterator[_Sample]:
    """Yield the chosen samples with their inputs and targets."""
    wanted = dict(zip(copied.places, chosen, strict=False))
    rows = iter_own_rows(copied.samples.columns, copied.samples)
    has_targets = bool(copied.samples.get_targets())
    targets = iter_targets(copied.samples) if has_targets else repeat({})
    for place, (own, truth) in enumerate(zip(rows, targets, strict=has_targets)):
        if place in wanted:
            yield _Sample(changed=wanted[place], inputs=own, targets=truth)


def _add_answers(
    inputs: BuildInputs,
    scoring: Scoring,
    reader: AnswerReader,
    samples: Sequence[_Sample],
    copied: ChosenSamples,
    models: Sequence[Candidate],
) -> list[_Sample]:
    """Run both models on the samples of this machine, and read their answers."""
    options, settings = scoring.metrics[0].options, scoring.postprocess
    reduced = reader.reduction if settings is None else None
    if reduced is not None:
        named = (options.output,) if options.output else ()
        with contextlib.suppress(DeviceError):  # the output has no axis to reduce
            outputs = _run_models(inputs, options, replace(reduced, outputs=named), copied, models)
            return _read_answers(reader, samples, outputs, replace(options, output=None))
    outputs = _run_models(inputs, options, settings, copied, models)
    return _read_answers(reader, samples, outputs, options)


def _run_models(
    inputs: BuildInputs,
    options: MetricOptions,
    postprocess: Postprocess | None,
    copied: ChosenSamples,
    models: Sequence[Candidate],
) -> list[list[Arrays]]:
    combinations = _list_combinations(inputs, models[-1])
    with open_host_place(inputs.profile, inputs.store.root / "host") as place:
        return [
            run_samples(
                place.agent,
                place.model_ref(each.model),
                copied,
                options=options,
                postprocess=postprocess,
                combination=combined.to_job(place.model_ref) if combined else None,
            )
            for each, combined in zip(models, combinations, strict=True)
        ]


def _read_answers(
    reader: AnswerReader,
    samples: Sequence[_Sample],
    outputs: Sequence[Sequence[Arrays]],
    options: MetricOptions,
) -> list[_Sample]:
    done = []
    for sample, *both in zip(samples, *outputs, strict=True):
        scored = [_make_scored(sample, each) for each in both]
        original, candidate = (reader.read_output(each, options) for each in scored)
        done.append(
            replace(
                sample,
                target=reader.read_target(scored[0], options),
                original=original,
                candidate=candidate,
            )
        )
    return done


def _list_combinations(
    inputs: BuildInputs, shown: Candidate
) -> tuple[CombinedModels | None, CombinedModels | None]:
    """Return the combinations that original and candidate are parts of, if they are."""
    part = inputs.part
    return (part.originals, part.with_model(shown.model)) if part else (None, None)


def _make_scored(sample: _Sample, outputs: Arrays) -> ScoredSample:
    return ScoredSample(
        number=sample.changed.number, outputs=outputs, targets=sample.targets, inputs=sample.inputs
    )


def _draw_small_enough(
    samples: Sequence[_Sample], value: SampleValue, pen: Pen
) -> tuple[Example, ...]:
    """Draw samples with pictures as large as all together may be."""
    drawn: tuple[Example, ...] = ()
    for side in _SIDES:
        drawn = tuple(_draw(sample, value, replace(pen, side=side)) for sample in samples)
        if sum(len(each.model_dump_json()) for each in drawn) <= _MOST_BYTES:
            break
    return drawn


def _draw(sample: _Sample, value: SampleValue, pen: Pen) -> Example:
    letterbox: NDArray[Any] | None = sample.targets.get("letterbox")
    answers = (sample.target, sample.original, sample.candidate)
    limits = find_limits(sample.target)
    target, original, candidate = (
        pen.draw_answer(each, letterbox=letterbox, limits=limits) for each in answers
    )
    number = sample.changed.number
    return _describe_values(sample.changed, value).model_copy(
        update={
            "input": pen.draw_input(number, sample.inputs),
            "target": target,
            "original": original,
            "candidate": candidate,
            "colors": pen.list_colors(answers),
        }
    )


def _describe_values(changed: ChangedSample, value: SampleValue) -> Example:
    """Return a sample with its number and values alone."""
    return Example(
        number=changed.number,
        is_worse=changed.loss > 0,
        before=_format_value(changed.before, value),
        after=_format_value(changed.after, value),
        input=Drawing(),
    )


def _format_value(number: float, value: SampleValue) -> str:
    if not value.title:
        return ""
    return f"{100 * number:.1f} %" if value.is_share else f"{number:.4g}"


def _explain(error: Exception) -> str:
    if isinstance(error, AgentError):
        return error.failure.message
    return error.message if isinstance(error, EdgekitError) else str(error) or repr(error)
