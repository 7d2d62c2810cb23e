"""Statistics of segmentation: positions of each class in output, target and both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Tuple

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.metrics.portable_math import sigmoid
from edgekit_agent.metrics.shapes import move_classes_last, read_integers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.metrics import ScoredSample, Statistic
    from edgekit_agent.scoring import MetricOptions

# Classes of masks, where the output does not say how many there are.
MOST_CLASSES = 1 << 16


def count_classes(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return three numbers for each class: positions in both masks, in the target, in the output.

    Positions that the target ignores do not count. The row is empty if there are no others.

    Raises:
        AgentError: ``bad_job``; output and target differ in shape, or a label is out of range.
    """
    target = read_integers(sample.get_target(), f"the target of sample {sample.number}")
    output, classes = read_classes(sample, options, target.shape)
    is_scored = np.ones(target.shape, bool)
    if options.ignore is not None:
        is_scored = target != options.ignore
    labels, found = target[is_scored], output[is_scored]
    if not labels.size:
        return np.zeros(0)
    _check_range(labels, classes, f"label {{}} in the target of sample {sample.number}")
    _check_range(found, classes, f"class {{}} in the output of sample {sample.number}")
    count = classes or int(max(labels.max(), found.max())) + 1
    parts = (labels[labels == found], labels, found)
    counts = np.stack([np.bincount(part, minlength=count) for part in parts], axis=1)
    return counts.reshape(-1).astype(np.float64)


def read_classes(
    sample: ScoredSample, options: MetricOptions, shape: Tuple[int, ...]
) -> Tuple[NDArray[np.int64], int]:
    """Return the class of each position, and the number of classes; 0 = unknown."""
    output = sample.get_output(options.output)
    scores = move_classes_last(output, shape)
    if scores is None:
        raise AgentError(
            "bad_job",
            f"the output of sample {sample.number} has shape {output.shape}; beyond the axes of "
            f"its mask, {shape}, it may have one axis of classes",
            hint="store masks in the size of the output",
        )
    if scores.shape[-1] > 1:
        return _choose_largest(scores, options, shape), scores.shape[-1]
    if output.dtype.kind in "iu":
        return output.reshape(shape).astype(np.int64), options.classes
    scores = sigmoid(scores) if options.logits else scores
    return (scores > options.threshold).reshape(shape).astype(np.int64), 2


def _choose_largest(
    scores: NDArray[Any], options: MetricOptions, shape: Tuple[int, ...]
) -> NDArray[np.int64]:
    if options.classes not in (0, scores.shape[-1]):
        raise AgentError(
            "bad_job", f"the output has {scores.shape[-1]} classes, not {options.classes}"
        )
    return np.asarray(scores.argmax(axis=-1).reshape(shape), np.int64)


def _check_range(labels: NDArray[np.int64], classes: int, name: str) -> None:
    limit = classes or MOST_CLASSES
    for label in (int(labels.min()), int(labels.max())):
        if not 0 <= label < limit:
            raise AgentError(
                "bad_job",
                f"{name.format(label)} must be from 0 to {limit - 1}",
                hint=f"set ignore = {label} if that label is not scored; two classes are 0 and 1",
            )


STATISTICS: Dict[str, Statistic] = {
    "miou": count_classes,
    "dice": count_classes,
}
