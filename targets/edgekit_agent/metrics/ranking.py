"""Statistics of metrics that depend on the order of scores over all samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.metrics.frames import (
    read_frames,
    read_scores,
    read_single_label,
    split_frames,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.metrics import ScoredSample, Statistic
    from edgekit_agent.scoring import MetricOptions


def compute_labels_and_scores(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return the labels 0 or 1 of all frames, then the scores of class 1.

    Of two class scores it is the second; of two logits, their difference.
    """
    frames = read_frames(sample, options)
    classes = frames.scores.shape[1]
    if classes > 2:
        raise AgentError(
            "bad_job",
            f"AUC and EER need one score, or those of two classes; the output has {classes}",
            hint="use top1 or macro-f1",
        )
    _check_binary(frames.labels, sample)
    scores = frames.scores[:, -1]
    if classes == 2 and options.logits:
        scores = scores - frames.scores[:, 0]
    return np.concatenate([frames.labels.astype(np.float64), scores])


def compute_targets_and_values(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return the target numbers of a sample, then the predicted ones."""
    targets = sample.get_target().reshape(-1)
    values = split_frames(sample, options)
    if values.shape[1] != 1:
        raise AgentError(
            "bad_job",
            f"sample {sample.number} has {targets.size} targets, but {values.size} output values",
            hint="rank correlation needs one value for each target",
        )
    numbers = np.ascontiguousarray(targets, np.float64)
    if not np.isfinite(numbers).all():
        raise AgentError("bad_job", f"a target of sample {sample.number} is not a finite number")
    scored = numbers != options.ignore
    return np.concatenate([numbers[scored], values[scored, 0]])


def compute_label_and_error(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return the label 0 or 1, then the mean squared error of the reconstructed input.

    The mean of the output and that of its squares follow: all outputs may be the same.
    """
    label = read_single_label(sample)
    output = sample.get_output(options.output)
    same = [value for value in sample.inputs.values() if value.shape == output.shape]
    if not same or not output.size:
        shapes = ", ".join(str(value.shape) for value in sample.inputs.values())
        raise AgentError(
            "bad_job",
            f"no input has the shape of the scored output, {output.shape}; the inputs: {shapes}",
            hint="reconstruction-auc needs a model whose output reconstructs its input",
        )
    if label == options.ignore:
        return np.empty(0)
    _check_binary(np.array([label]), sample)
    difference = read_scores(output, sample) - read_scores(same[0], sample)
    made = np.ascontiguousarray(read_scores(output, sample))
    error = np.sum(np.ascontiguousarray(difference * difference)) / output.size
    moments = np.sum(made) / output.size, np.sum(made * made) / output.size
    return np.array([label, error, *moments], np.float64)


def _check_binary(labels: NDArray[np.int64], sample: ScoredSample) -> None:
    for label in labels[(labels != 0) & (labels != 1)]:
        raise AgentError(
            "bad_job",
            f"label {label} of sample {sample.number} is neither 0 nor 1",
            hint="1 is the class (or the anomaly) that has the higher scores",
        )


STATISTICS: Dict[str, Statistic] = {
    "auc": compute_labels_and_scores,
    "eer": compute_labels_and_scores,
    "spearman": compute_targets_and_values,
    "reconstruction-auc": compute_label_and_error,
}
