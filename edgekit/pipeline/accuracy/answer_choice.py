"""Choice of the answer that an application gives: by metric, post-processing and samples."""

from __future__ import annotations

from edgekit.config.project import Project
from edgekit.data.dataset import Dataset
from edgekit.data.original_outputs import Original
from edgekit.errors import UserError
from edgekit.metrics.answers import AnswerKind
from edgekit.metrics.registry import get_metric
from edgekit.pipeline.accuracy.output_kind import OutputLook, look_at_output
from edgekit.pipeline.accuracy.tallies import Scoring
from edgekit.progress import Tick
from edgekit_agent.metrics.portable_math import sigmoid
from edgekit_agent.metrics.shapes import drop_ones, find_class_axis
from edgekit_agent.scoring import Answer, MetricOptions

# Answers that post-processing makes, whatever the metric.
_POSTPROCESSED: dict[str, AnswerKind] = {
    "yolox": "boxes",
    "yolov5": "boxes",
    "yolov8": "boxes",
    "distances": "boxes",
    "boxes": "boxes",
    "ctc": "text",
    "argmax": "mask",
}
_PROBABILITIES = ("softmax", "sigmoid", "threshold")
# Answers whose classes have scores.
_SCORED = ("class", "frames", "labels", "mask")


def choose_answer(
    project: Project,
    scoring: Scoring | None,
    dataset: Dataset,
    original: Original,
    *,
    class_count: int,
    tick: Tick,
) -> Answer:
    """Choose how an application reads the outputs of the model.

    Args:
        project: Settings of edgekit.toml.
        scoring: The metrics; ``None`` = the accuracy is not measured.
        dataset: The evaluation samples.
        original: The original, which is run on some of them if its outputs must be known.
        class_count: Number of classes that have names.
        tick: Progress callback.
    """
    kind = _choose_kind(scoring)
    options = scoring.metrics[0].options if scoring else MetricOptions(output=project.data.output)
    text = dataset.reading.text
    if kind == "values" and text is not None and text.next_tokens:
        kind = "class"
    is_open = kind == "values" and scoring is not None and get_metric(scoring.names[0]).code
    settings = scoring.postprocess if scoring else None
    has_steps = settings is not None and settings.kind == "ctc"
    if kind not in _SCORED and not has_steps and not (is_open and class_count > 1):
        return Answer(
            kind=kind, output=options.output, threshold=options.threshold, ignore=options.ignore
        )
    tick("looking at the outputs", 0, 0)
    read = settings.outputs[0] if settings and settings.outputs else options.output
    try:
        look = look_at_output(original, dataset, read)
    except UserError:  # the build tells, as soon as it scores the original
        return Answer(kind="text" if has_steps else "values", output=options.output)
    if has_steps:
        return Answer(
            kind=kind, output=options.output, logits=look.has_logits, ignore=options.ignore
        )
    if kind not in _SCORED and drop_ones(look.shape) != (class_count,):
        return Answer(kind="values", output=options.output)
    return _describe_scores(project, scoring, dataset, options, kind, look)


def _choose_kind(scoring: Scoring | None) -> AnswerKind:
    if scoring is None:
        return "values"
    settings = scoring.postprocess
    if settings is not None and settings.kind in _POSTPROCESSED:
        return _POSTPROCESSED[settings.kind]
    reader = get_metric(scoring.names[0]).answers
    return reader.kind if reader else "values"


def _describe_scores(
    project: Project,
    scoring: Scoring | None,
    dataset: Dataset,
    options: MetricOptions,
    kind: AnswerKind,
    look: OutputLook,
) -> Answer:
    """Return the answer of scores of classes: one class, one for each position, or several."""
    settings, given = scoring.postprocess if scoring else None, project.data.metric_options.logits
    logits = look.has_logits if given is None else given
    if settings is not None and settings.kind in _PROBABILITIES:
        logits = False
    labels = _find_label_shape(dataset)
    is_stream = dataset.reading.audio is not None and dataset.reading.audio.step is not None
    chosen: str = "class" if kind == "values" else kind
    axis = None
    if kind == "frames":
        is_single = not labels or all(size == 1 for size in labels)
        on_time = "decisions" if dataset.reading.audio is not None else "mask"
        chosen = "class" if is_single else on_time
    if chosen in ("mask", "decisions"):
        axis = _find_class_axis(look.shape, labels)
    if is_stream and chosen == "class":
        chosen = "decisions"
        axis = _find_only_axis(look.shape)
    threshold = options.threshold
    if kind == "class" and logits and not drop_ones(look.shape):
        # The metric compares the single score itself.
        threshold = float(sigmoid(threshold))
    return Answer(
        kind=chosen,
        output=options.output,
        logits=logits,
        threshold=threshold,
        class_axis=axis,
        ignore=options.ignore,
    )


def _find_label_shape(dataset: Dataset) -> tuple[int, ...]:
    """Return the shape of the main target of the first sample, cut to its length."""
    if dataset.samples.label is None:
        return ()
    first = next(iter(dataset.first(1).read_targets()))
    return tuple(first["y"].shape)


def _find_class_axis(shape: tuple[int, ...], labels: tuple[int, ...]) -> int | None:
    """Return the axis of the classes in an output [..., classes, ...] for labels of a shape."""
    if drop_ones(shape) == drop_ones(labels):
        return None
    found = find_class_axis(shape, labels)
    if found is not None:
        return found
    kept = [axis for axis, size in enumerate(shape) if size != 1]
    place = find_class_axis(tuple(shape[axis] for axis in kept), drop_ones(labels))
    if place is not None:
        return kept[place]
    return 0 if len(shape) > 2 and shape[0] <= shape[-1] else len(shape) - 1


def _find_only_axis(shape: tuple[int, ...]) -> int | None:
    """Return the only axis that is longer than 1; ``None`` if there is a single score."""
    return next((axis for axis, size in enumerate(shape) if size != 1), None)
