"""Metrics with a weight for each unit: image, line or pair.

With integer weights they are the metrics of a sample that holds each unit that many times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_IOU_THRESHOLDS = np.arange(0.5, 0.96, 0.05)
_RECALLS = np.linspace(0, 1, 101)


def ratio(sums: Array, counts: Array) -> float:
    """Return the ratio of two sums over units; ``sums`` holds both terms of each unit."""
    above, below = counts @ sums
    return float(above / below)


def mean_iou(tables: Array, counts: Array) -> float:
    """Return the mean IoU of the classes present, from one confusion table per unit."""
    table = np.tensordot(counts, tables, 1)
    right, truth, made = np.diag(table), table.sum(1), table.sum(0)
    present = truth > 0
    return float((right / np.maximum(truth + made - right, 1))[present].mean())


def weighted_auc(
    labels: Array, scores: Array, weigh: Callable[[Array], Array]
) -> Callable[[Array], float]:
    """Return the area under the ROC curve as a function of the counts of units.

    ``weigh`` gives the weight of each sample. Ties count half (Mann-Whitney). The area is nan if a
    class has no weight.
    """
    rank = np.unique(scores, return_inverse=True)[1]
    positive = np.asarray(labels) == 1

    def area(counts: Array) -> float:
        weights = weigh(counts)
        high = np.bincount(rank, weights * positive)
        low = np.bincount(rank, weights * ~positive)
        pairs = high.sum() * low.sum()
        return float(high @ (np.cumsum(low) - low / 2) / pairs) if pairs else float("nan")

    return area


@dataclass(frozen=True, kw_only=True)
class ClassMatches:
    """Detections of one class by falling score: their image, and correctness per IoU threshold."""

    boxes_of_image: Array
    image: Array
    true: NDArray[np.bool_]


Boxes = Mapping[Any, Sequence[Array]]


def match(
    iou: Callable[[Array, Array], Array], truths: Boxes, found: Boxes, most: int = 100
) -> list[ClassMatches]:
    """Match detections to boxes, each to the free box that it covers best (COCO's rule)."""
    matches = []
    for label in sorted({label for _, labels in truths.values() for label in labels}):
        boxes, images, scores, true = [], [], [np.zeros(0)], [np.zeros((len(_IOU_THRESHOLDS), 0))]
        for place, (name, (truth, labels)) in enumerate(truths.items()):
            here = truth[labels == label]
            boxes.append(len(here))
            made, confidence, kinds = found[name]
            of_class = np.flatnonzero(kinds == label)
            order = of_class[np.argsort(-confidence[of_class], kind="mergesort")][:most]
            images += [place] * len(order)
            scores.append(confidence[order])
            true.append(_match_image(iou(made[order], here)))
        order = np.argsort(-np.concatenate(scores), kind="mergesort")
        matches.append(
            ClassMatches(
                boxes_of_image=np.array(boxes, float),
                image=np.array(images, int)[order],
                true=np.concatenate(true, 1)[:, order].astype(bool),
            )
        )
    return matches


def _match_image(overlaps: Array) -> NDArray[np.bool_]:
    """Mark the detections (rows, by falling score) that take a free box, for each threshold."""
    true = np.zeros((len(_IOU_THRESHOLDS), len(overlaps)), bool)
    if not overlaps.size:
        return true
    for row, threshold in zip(true, _IOU_THRESHOLDS, strict=True):
        taken = np.zeros(overlaps.shape[1], bool)
        for number, overlap in enumerate(overlaps):
            best = np.where(taken, -1.0, overlap).argmax()
            if not taken[best] and overlap[best] >= threshold:
                taken[best] = row[number] = True
    return true


def mean_precision(matches: Sequence[ClassMatches], counts: Array) -> float:
    """Return the COCO mean average precision of weighted images (101 recalls, IoU .5 to .95)."""
    found = []
    for each in matches:
        boxes = counts @ each.boxes_of_image
        if not boxes:
            continue
        weights = counts[each.image]
        right, made = np.cumsum(each.true * weights, 1), np.cumsum(weights)
        precision = right / np.maximum(made, 1e-12)
        precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        precision = np.pad(precision, ((0, 0), (0, 1)))
        places = [np.searchsorted(row, _RECALLS) for row in right / boxes]
        found.append(np.take_along_axis(precision, np.array(places), 1).mean())
    return float(np.mean(found))
