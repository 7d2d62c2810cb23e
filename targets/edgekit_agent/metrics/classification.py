"""Statistics of classification: one row for each sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.metrics.frames import find_classes, read_frames

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.metrics import ScoredSample, Statistic
    from edgekit_agent.scoring import MetricOptions


def read_label(sample: ScoredSample, classes: int) -> int:
    """Return the label of a sample: an integer from 0 to ``classes - 1``.

    Raises:
        AgentError: ``bad_job``; the target is not one integer, or out of range.
    """
    target = sample.get_target()
    if target.size != 1:
        raise AgentError(
            "bad_job", f"one label per sample is needed, but the labels have shape {target.shape}"
        )
    value = target.reshape(-1)[0]
    label = int(value)
    if label != value:
        raise AgentError("bad_job", "labels must be integers")
    if not classes:
        raise AgentError(
            "bad_job",
            f"the scored output of sample {sample.number} is empty; check the sample axis of "
            "each input, and the initial size of states",
        )
    if not 0 <= label < classes:
        raise AgentError(
            "bad_job",
            f"label {label} of sample {sample.number} must be from 0 to "
            f"{classes - 1}, as there are {classes} classes",
        )
    return label


def compute_top1(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return whether the class with the largest score is the label, and that class."""
    scores = read_class_scores(sample, options, "top1")
    label = read_label(sample, scores.size)
    predicted = int(scores.argmax())
    return np.array([predicted == label, predicted], np.float64)


def compute_top5(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return whether the label is among the five largest scores, and the class with the largest.

    As with argmax, the lower class number wins a tie.
    """
    scores = read_class_scores(sample, options, "top5")
    label = read_label(sample, scores.size)
    best = np.argsort(-scores.astype(np.float64), kind="stable")[:5]
    return np.array([label in best, scores.argmax()], np.float64)


def compute_binary(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return whether one value is on the label's side of the threshold, and its side."""
    score = read_single_score(sample, options, "binary")
    label = read_label(sample, 2)
    predicted = bool(score > options.threshold)
    return np.array([predicted == label, predicted], np.float64)


def compute_labels_and_classes(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return the labels of all frames, then their predicted classes."""
    frames = read_frames(sample, options)
    return np.concatenate([frames.labels, find_classes(frames, options)]).astype(np.float64)


def read_class_scores(sample: ScoredSample, options: MetricOptions, metric: str) -> NDArray[Any]:
    """Return the scores of all classes as one row.

    Raises:
        AgentError: ``bad_job``; the output has a single value.
    """
    scores = sample.get_output(options.output).reshape(-1)
    if scores.size == 1:
        raise AgentError(
            "bad_job",
            f"metric {metric} needs several output values, the output has one",
            hint="use binary",
        )
    return scores


def read_single_score(sample: ScoredSample, options: MetricOptions, metric: str) -> float:
    """Return the only value of an output.

    Raises:
        AgentError: ``bad_job``; the output has another number of values.
    """
    scores = sample.get_output(options.output).reshape(-1)
    if scores.size != 1:
        raise AgentError(
            "bad_job",
            f"metric {metric} needs one output value, the output has {scores.size}",
            hint="use top1",
        )
    return float(scores[0])


STATISTICS: Dict[str, Statistic] = {
    "top1": compute_top1,
    "top5": compute_top5,
    "binary": compute_binary,
    "macro-f1": compute_labels_and_classes,
}
