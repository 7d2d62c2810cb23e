"""Statistics of detection: the boxes of one image matched to its targets, as in COCO's evaluation.

The row of an image holds, in this order: the number of classes that have targets; the number and
the targets (crowds left out) of each of these classes; then four numbers for each detection:
class, score, the IoU thresholds at which it is a true positive, and those at which it is ignored,
both as bit masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Dict, List, Tuple

import numpy as np

from edgekit_agent.failures import AgentError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from edgekit_agent.metrics import ScoredSample, Statistic
    from edgekit_agent.scoring import MetricOptions

    Floats = NDArray[np.float64]

# IoU thresholds of COCO: .50, .55, ..., .95.
THRESHOLDS: Tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
# Most detections of one class in an image that are scored.
MOST_DETECTIONS = 100
DETECTION_NUMBERS = 4

_MOST_IOU = 1 - 1e-10
_BITS = 2.0 ** np.arange(len(THRESHOLDS))


@dataclass(frozen=True)
class TargetBoxes:
    """Targets of one image: boxes [M, 4] as x1, y1, x2, y2, classes and crowd flags."""

    boxes: Floats
    classes: NDArray[np.int64]
    crowds: NDArray[np.bool_]


@dataclass(frozen=True)
class Detections:
    """Detections of one image: boxes [D, 4] as x1, y1, x2, y2, scores and classes."""

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]


def compute_detections(sample: ScoredSample, options: MetricOptions) -> Floats:
    """Return the targets of each class, and the matches of each detection at every threshold."""
    targets = parse_targets(sample.get_target(), sample.number, options.classes)
    found = _read_detections(sample)
    counted, counts = np.unique(targets.classes[~targets.crowds], return_counts=True)
    numbers: List[Floats] = [
        np.array([counted.size], np.float64),
        np.stack([counted, counts], axis=1).astype(np.float64).reshape(-1),
    ]
    for label in np.unique(found.classes):
        mine = np.flatnonzero(found.classes == label)
        best = mine[np.argsort(-found.scores[mine], kind="stable")][:MOST_DETECTIONS]
        there = targets.classes == label
        overlaps = compute_overlaps(found.boxes[best], targets.boxes[there], targets.crowds[there])
        hits, ignored = match_boxes(overlaps, targets.crowds[there])
        row = np.empty((best.size, DETECTION_NUMBERS))
        row[:, 0] = label
        row[:, 1] = found.scores[best]
        row[:, 2] = _pack_bits(hits)
        row[:, 3] = _pack_bits(ignored)
        numbers.append(row.reshape(-1))
    return np.concatenate(numbers)


def compute_overlaps(boxes: Floats, targets: Floats, crowds: NDArray[np.bool_]) -> Floats:
    """Return the IoU [D, M] of boxes and targets; for a crowd, the share of the box inside it."""
    sides = [
        np.minimum(boxes[:, None, high], targets[None, :, high])
        - np.maximum(boxes[:, None, low], targets[None, :, low])
        for low, high in ((0, 2), (1, 3))
    ]
    common = np.maximum(sides[0], 0.0) * np.maximum(sides[1], 0.0)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    others = (targets[:, 2] - targets[:, 0]) * (targets[:, 3] - targets[:, 1])
    union = np.where(crowds[None, :], areas[:, None], areas[:, None] + others[None, :] - common)
    overlaps: Floats = np.where(common > 0, common / np.where(common > 0, union, 1.0), 0.0)
    return overlaps


def match_boxes(
    overlaps: Floats, crowds: NDArray[np.bool_]
) -> Tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Match detections to targets greedily, in the order of the detections.

    A detection takes the free target with the largest overlap; of equal ones the last. A crowd
    stays free: detections that overlap it and no free target are ignored.

    Args:
        overlaps: overlaps [D, M] of detections and targets.
        crowds: which targets are crowds.

    Returns:
        Whether each detection is a true positive, and whether it is ignored: [D, thresholds].
    """
    least = np.minimum(np.array(THRESHOLDS), _MOST_IOU)
    hits = np.zeros((len(overlaps), least.size), np.bool_)
    ignored = np.zeros_like(hits)
    # Of equal overlaps the last one is taken; argmax returns the first one.
    single = np.ascontiguousarray(overlaps[:, ~crowds][:, ::-1])
    in_crowd = overlaps[:, crowds].max(axis=1, initial=0.0)
    taken = np.zeros((least.size, single.shape[1]), np.bool_)
    places = np.arange(least.size)
    near = single.max(axis=1, initial=0.0) >= least[0]
    for number in np.flatnonzero(near):
        free = np.where(taken, -1.0, single[number])
        best = free.argmax(axis=1)
        hits[number] = free[places, best] >= least
        taken[places[hits[number]], best[hits[number]]] = True
    ignored[:] = ~hits & (in_crowd[:, None] >= least)
    return hits, ignored


def parse_targets(target: NDArray[Any], number: int, classes: int = 0) -> TargetBoxes:
    """Check the target of an image: rows of x1, y1, x2, y2, class and optional crowd flag.

    Args:
        target: the boxes [M, 5 or 6].
        number: number of the sample, for messages.
        classes: number of classes; 0 = unknown.

    Raises:
        AgentError: ``bad_job``; the shape, a class, a flag or a box is wrong.
    """
    if target.size == 0:
        target = np.zeros((0, 6))
    if target.ndim != 2 or target.shape[1] not in (5, 6):
        raise AgentError(
            "bad_job",
            f"the boxes of sample {number} have shape {target.shape}",
            hint="a row for each box: x1, y1, x2, y2, class, and 1 if it is a crowd",
        )
    rows = target.astype(np.float64)
    labels = rows[:, 4]
    flags = rows[:, 5] if rows.shape[1] == 6 else np.zeros(len(rows))
    if not np.isfinite(rows).all():
        raise AgentError("bad_job", f"the boxes of sample {number} have NaN or infinite values")
    if (rows[:, 2:4] < rows[:, :2]).any():
        raise AgentError(
            "bad_job",
            f"a box of sample {number} ends before it begins",
            hint="boxes are x1, y1, x2, y2 in pixels, not x, y, width, height",
        )
    if (labels != np.floor(labels)).any() or (labels < 0).any() or (labels >= 2**31).any():
        raise AgentError("bad_job", f"the classes of sample {number} must be integers from 0 on")
    if classes and (labels >= classes).any():
        raise AgentError(
            "bad_job",
            f"class {int(labels.max())} of sample {number} must be less than {classes}, "
            "the number of classes",
        )
    if ((flags != 0) & (flags != 1)).any():
        raise AgentError("bad_job", f"the crowd flags of sample {number} must be 0 or 1")
    return TargetBoxes(rows[:, :4], labels.astype(np.int64), flags == 1)


def _read_detections(sample: ScoredSample) -> Detections:
    missing = [n for n in ("boxes", "scores", "classes") if n not in sample.outputs]
    if missing:
        raise AgentError(
            "bad_job",
            f"detection needs boxes, scores and classes, but the outputs are "
            f"{', '.join(sample.outputs)}",
            hint="declare in [postprocess] of edgekit.toml how the outputs become boxes",
        )
    boxes = np.asarray(sample.outputs["boxes"], np.float64)
    scores = np.asarray(sample.outputs["scores"], np.float64)
    classes = np.asarray(sample.outputs["classes"])
    if boxes.shape != (scores.size, 4) or scores.ndim != 1 or classes.shape != scores.shape:
        raise AgentError(
            "bad_job",
            f"boxes {boxes.shape}, scores {scores.shape} and classes {classes.shape} of sample "
            f"{sample.number} do not fit; boxes are [D, 4], scores and classes [D]",
        )
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise AgentError(
            "bad_job", f"boxes or scores of sample {sample.number} are NaN or infinite"
        )
    if not (classes == np.floor(classes)).all():
        raise AgentError("bad_job", f"the classes found in sample {sample.number} must be integers")
    return Detections(boxes, scores, classes.astype(np.int64))


def _pack_bits(flags: NDArray[np.bool_]) -> Floats:
    packed: Floats = np.where(flags, _BITS, 0.0).sum(axis=1)
    return packed


STATISTICS: Dict[str, Statistic] = {
    "map": compute_detections,
    "map50": compute_detections,
}
