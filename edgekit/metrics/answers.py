"""Answers of a model to a sample, and those that its targets state, as people read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit_agent.metrics import ScoredSample
from edgekit_agent.metrics.classification import read_class_scores, read_single_score
from edgekit_agent.metrics.detection import parse_targets
from edgekit_agent.metrics.frames import find_classes, read_frames, read_labels
from edgekit_agent.metrics.segmentation import read_classes
from edgekit_agent.metrics.shapes import read_integers
from edgekit_agent.metrics.texts import read_recognized_text, read_text
from edgekit_agent.scoring import MetricOptions, Postprocess

# Number of best classes that top5 counts.
_BEST = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Classes:
    """Classes by their numbers: one, a list, or a mask [height, width]."""

    numbers: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Boxes:
    """Boxes [M, 4] as x1, y1, x2, y2 in pixels of the stored image, with classes and scores."""

    corners: NDArray[np.float64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64] | None = None


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text."""

    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Values:
    """Numbers of any shape."""

    numbers: NDArray[np.float64]


Answer = Classes | Boxes | Text | Values
# Answers of an application; ``frames`` has a class for each value of the target.
AnswerKind = Literal["class", "frames", "labels", "boxes", "mask", "text", "values"]
ReadAnswer = Callable[[ScoredSample, MetricOptions], Answer | None]


@dataclass(frozen=True, kw_only=True)
class AnswerReader:
    """Reader of answers.

    Attributes:
        read_output: Reads the answer of a model; ``None`` if it has none to show.
        read_target: Reads the right answer; ``None`` if there is none to show.
        reduction: Post-processing after which the answer can still be read, so that less than all
            outputs is needed of models that have the class axis it reduces.
        kind: Answer that an application gives.
    """

    read_output: ReadAnswer
    read_target: ReadAnswer
    reduction: Postprocess | None = None
    kind: AnswerKind = "values"


def _read_best_class(sample: ScoredSample, options: MetricOptions) -> Answer:
    scores = read_class_scores(sample, options, "classes")
    return Classes(numbers=np.array([int(scores.argmax())]))


def _read_best_classes(sample: ScoredSample, options: MetricOptions) -> Answer:
    scores = read_class_scores(sample, options, "classes").astype(np.float64)
    return Classes(numbers=np.argsort(-scores, kind="stable")[:_BEST].astype(np.int64))


def _read_side(sample: ScoredSample, options: MetricOptions) -> Answer:
    score = read_single_score(sample, options, "classes")
    return Classes(numbers=np.array([int(score > options.threshold)]))


def _read_labels(sample: ScoredSample, options: MetricOptions) -> Answer:
    del options
    return Classes(numbers=_shape_like_mask(read_labels(sample), sample))


def _read_frame_classes(sample: ScoredSample, options: MetricOptions) -> Answer:
    frames = find_classes(read_frames(sample, options), options)
    return Classes(numbers=_shape_like_mask(frames, sample))


def _shape_like_mask(numbers: NDArray[np.int64], sample: ScoredSample) -> NDArray[np.int64]:
    """Return classes in the shape of the target, unless some are left out."""
    shape = sample.get_target().shape
    return numbers.reshape(shape) if numbers.size == sample.get_target().size else numbers


def _read_mask(sample: ScoredSample, options: MetricOptions) -> Answer:
    return Classes(numbers=read_classes(sample, options, sample.get_target().shape)[0])


def _read_place_of_original(sample: ScoredSample, options: MetricOptions) -> Answer:
    name = options.output or next(iter(sample.targets))
    return Classes(numbers=np.array([int(sample.get_target(name).argmax())]))


def _read_present_classes(sample: ScoredSample, options: MetricOptions) -> Answer:
    scores = sample.get_output(options.output).reshape(-1).astype(np.float64)
    # The logistic function exceeds the threshold where its argument exceeds that of the threshold.
    threshold = options.threshold
    if options.logits:
        share = min(max(threshold, 1e-12), 1 - 1e-12)
        threshold = float(np.log(share / (1 - share)))
    return Classes(numbers=np.flatnonzero(scores > threshold).astype(np.int64))


def _read_present_labels(sample: ScoredSample, options: MetricOptions) -> Answer:
    del options
    return Classes(numbers=np.flatnonzero(read_labels(sample) == 1).astype(np.int64))


def _read_boxes(sample: ScoredSample, options: MetricOptions) -> Answer:
    del options
    corners, scores, classes = (sample.outputs[name] for name in ("boxes", "scores", "classes"))
    return Boxes(
        corners=np.asarray(corners, np.float64).reshape(-1, 4),
        classes=read_integers(np.asarray(classes), "the classes"),
        scores=np.asarray(scores, np.float64),
    )


def _read_target_boxes(sample: ScoredSample, options: MetricOptions) -> Answer:
    found = parse_targets(sample.get_target(), sample.number, options.classes)
    return Boxes(corners=found.boxes, classes=found.classes)


def _read_text(sample: ScoredSample, options: MetricOptions) -> Answer:
    return Text(text=read_recognized_text(sample, options, "texts"))


def _read_target_text(sample: ScoredSample, options: MetricOptions) -> Answer:
    return Text(text=read_text(sample.get_target(), options, "the target", "texts"))


def _read_values(sample: ScoredSample, options: MetricOptions) -> Answer:
    return _to_values(sample.get_output(options.output))


def _read_target_values(sample: ScoredSample, options: MetricOptions) -> Answer | None:
    del options
    return _to_values(sample.targets["y"]) if "y" in sample.targets else None


def _read_values_of_original(sample: ScoredSample, options: MetricOptions) -> Answer:
    return _to_values(sample.get_target(options.output or next(iter(sample.targets))))


def _to_values(array: NDArray[np.generic]) -> Answer:
    return Values(numbers=np.asarray(array, np.float64))


VALUES = AnswerReader(read_output=_read_values, read_target=_read_target_values)
# Numbers in the report, classes in an application.
FRAME_VALUES = AnswerReader(
    read_output=_read_values, read_target=_read_target_values, kind="frames"
)
SCORES = AnswerReader(read_output=_read_values, read_target=_read_labels)
CLASS_SCORES = AnswerReader(read_output=_read_values, read_target=_read_labels, kind="frames")
BEST_CLASS = AnswerReader(read_output=_read_best_class, read_target=_read_labels, kind="class")
BEST_CLASSES = AnswerReader(read_output=_read_best_classes, read_target=_read_labels, kind="class")
SIDE = AnswerReader(read_output=_read_side, read_target=_read_labels, kind="class")
FRAME_CLASSES = AnswerReader(
    read_output=_read_frame_classes, read_target=_read_labels, kind="frames"
)
PRESENT_CLASSES = AnswerReader(
    read_output=_read_present_classes, read_target=_read_present_labels, kind="labels"
)
MASKS = AnswerReader(
    read_output=_read_mask,
    read_target=_read_labels,
    reduction=Postprocess("argmax"),
    kind="mask",
)
BOXES = AnswerReader(read_output=_read_boxes, read_target=_read_target_boxes, kind="boxes")
TEXTS = AnswerReader(read_output=_read_text, read_target=_read_target_text, kind="text")
PLACE_OF_ORIGINAL = AnswerReader(
    read_output=_read_best_class, read_target=_read_place_of_original, kind="class"
)
VALUES_OF_ORIGINAL = AnswerReader(read_output=_read_values, read_target=_read_values_of_original)
