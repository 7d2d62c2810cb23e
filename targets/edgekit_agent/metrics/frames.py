"""Labels and scores of the frames of one sample: many of a stream (or a mask), else one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.metrics.portable_math import sigmoid
from edgekit_agent.metrics.shapes import move_classes_last, read_integers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.metrics import ScoredSample
    from edgekit_agent.scoring import MetricOptions

_LARGEST_SCORE = 1e100


@dataclass(frozen=True)
class Frames:
    """Labels [m] and scores [m, k] of the scored frames of one sample.

    One score per frame is that of class 1 of two classes.
    """

    labels: NDArray[np.int64]
    scores: NDArray[np.float64]


def read_frames(sample: ScoredSample, options: MetricOptions) -> Frames:
    """Read labels and scores, without the frames whose label is ignored.

    Raises:
        AgentError: ``bad_job``; the output has another number of frames than the target, or a
            label is no class of the output. ``model_failed``; a score is not a number.
    """
    labels = read_labels(sample)
    scores = split_frames(sample, options)
    scored = labels != options.ignore
    frames = Frames(labels=labels[scored], scores=scores[scored])
    classes = options.classes or max(scores.shape[1], 2)
    for label in frames.labels[(frames.labels < 0) | (frames.labels >= classes)]:
        raise AgentError(
            "bad_job",
            f"label {label} of sample {sample.number} must be from 0 to "
            f"{classes - 1}, as there are {classes} classes",
        )
    return frames


def read_labels(sample: ScoredSample) -> NDArray[np.int64]:
    """Read the target as one row of integers.

    Raises:
        AgentError: ``bad_job``; a label is no integer.
    """
    return read_integers(sample.get_target().reshape(-1), f"the target of sample {sample.number}")


def read_single_label(sample: ScoredSample) -> int:
    """Read the only label of a sample.

    Raises:
        AgentError: ``bad_job``; it is no integer, or there are several.
    """
    labels = read_labels(sample)
    if labels.size != 1:
        raise AgentError(
            "bad_job",
            "one label per sample is needed, but the labels have shape "
            f"{sample.get_target().shape}",
        )
    return int(labels[0])


def split_frames(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return the scored output as one row of scores for each value of the target.

    Raises:
        AgentError: ``bad_job``; the output has another number of frames. ``model_failed``; a score
            is not a number.
    """
    output, shape = sample.get_output(options.output), sample.get_target().shape
    count = sample.get_target().size
    if not output.size:
        raise AgentError(
            "bad_job",
            f"the scored output of sample {sample.number} is empty; check the sample axis of "
            "each input, and the initial size of states",
        )
    moved = output.reshape(1, -1) if count == 1 else move_classes_last(output, shape)
    if moved is None:
        raise AgentError(
            "bad_job",
            f"the target of sample {sample.number} has shape {shape}, but its scored output "
            f"{output.shape}",
            hint="the output needs the axes of the target, and at most one more, that of classes",
        )
    return read_scores(moved.reshape(-1, moved.shape[-1]), sample)


def read_scores(scores: NDArray[Any], sample: ScoredSample) -> NDArray[np.float64]:
    """Return scores as float64, infinite ones as 1e100: differences and squares are finite.

    Raises:
        AgentError: ``model_failed``; a score is not a number (NaN).
    """
    array = np.ascontiguousarray(scores, np.float64)
    if np.isnan(array).any():
        raise AgentError("model_failed", f"an output of sample {sample.number} is NaN")
    return np.asarray(np.clip(array, -_LARGEST_SCORE, _LARGEST_SCORE), np.float64)


def find_classes(frames: Frames, options: MetricOptions) -> NDArray[np.int64]:
    """Find the class of each frame: the largest score, or the threshold if there is one score."""
    if frames.scores.shape[1] > 1:
        return np.asarray(frames.scores.argmax(axis=1), np.int64)
    scores = sigmoid(frames.scores[:, 0]) if options.logits else frames.scores[:, 0]
    return np.asarray(scores > options.threshold, np.int64)
