"""Simulated rows of an original and a candidate whose true loss is known exactly.

Each process draws samples of both models. Its true loss is that of infinitely many samples, in
closed form (for AP by numerical integration).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgekit.metrics.metric import Floats, Table

Rng = np.random.Generator
Rows = list[Floats]


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that draws pairs of tables of a metric.

    Attributes:
        metric: Name of the metric.
        samples: Number of samples at which the true loss is the margin.
        pilot: Number of samples from which the needed number is estimated.
        most: Most samples of a trial, where a pilot asks for more.
        draw: Draws the rows of both models, for a number of samples and a true loss, in the unit
            of the margin.
    """

    metric: str
    samples: int
    pilot: int
    most: int
    draw: Callable[[int, float, Rng], tuple[Rows, Rows]]

    def draw_tables(self, n: int, loss: float, rng: Rng) -> tuple[Table, Table]:
        """Draw the tables of both models."""
        before, after = self.draw(n, loss, rng)
        return Table(rows=tuple(before)), Table(rows=tuple(after))


def draw_hits(n: int, loss: float, rng: Rng) -> tuple[Rows, Rows]:
    """Draw correct predictions: 88 %, of which the candidate loses some and wins fewer others."""
    won, lost = 0.02, 0.02 + loss / 100
    fate = rng.random(n)
    before = fate < 0.88
    after = ((fate >= lost) & before) | (fate >= 1 - won)
    return list(_pair_columns(before, before)), list(_pair_columns(after, after))


def draw_errors(n: int, loss: float, rng: Rng) -> tuple[Rows, Rows]:
    """Draw the absolute values of normal errors, correlated, the candidate's scaled by the loss."""
    before, noise = rng.normal(0, 1, (2, n))
    after = (1 + loss / 100) * (0.995 * before + math.sqrt(1 - 0.995**2) * noise)
    ones = np.ones(n)
    return list(_pair_columns(np.abs(before), ones)), list(_pair_columns(np.abs(after), ones))


def draw_scores(n: int, loss: float, rng: Rng) -> tuple[Rows, Rows]:
    """Draw normal scores of two classes; the candidate's are closer to each other.

    With unit variances and a distance d, the AUC is the normal distribution of d / sqrt(2).
    """
    normal = NormalDist()
    before_auc = 0.9
    distances = [
        math.sqrt(2) * normal.inv_cdf(auc) for auc in (before_auc, before_auc - loss / 100)
    ]
    labels = (rng.random(n) < 0.4).astype(np.float64)
    own, noise = rng.normal(0, 1, (2, n))
    after = 0.97 * own + math.sqrt(1 - 0.97**2) * noise
    return (
        list(_pair_columns(labels, distances[0] * labels + own)),
        list(_pair_columns(labels, distances[1] * labels + after)),
    )


def draw_masks(n: int, loss: float, rng: Rng) -> tuple[Rows, Rows]:
    """Draw counts of four classes, of which the rarest is in 40 % of the images.

    Target and output have the same area A, of which a share q is common: the IoU is
    E[q] / (2 - E[q]). The candidate's q is a mean of the original's and another one.
    """
    own, mixed = 0.8, 0.15
    iou = own / (2 - own) - loss / 100
    wanted = 2 * iou / (1 + iou)
    other = (wanted - (1 - mixed) * own) / mixed
    areas = rng.gamma(2, 500, (n, 4)) * (rng.random((n, 4)) < (1.0, 0.9, 0.6, 0.4))
    before = rng.beta(8 * own, 8 * (1 - own), (n, 4))
    after = (1 - mixed) * before + mixed * rng.beta(4 * other, 4 * (1 - other), (n, 4))
    rows = [
        np.stack([areas * shares, areas, areas], axis=2).reshape(n, -1)
        for shares in (before, after)
    ]
    return list(rows[0]), list(rows[1])


# Share of detected targets that pass each IoU threshold; targets and false detections by class and
# image; share of detected targets; share of detections that both models have in common.
_PASSED = np.linspace(0.95, 0.15, 10)
_CLASSES = 3
_TARGETS = 0.8
_FALSE = 0.6
_DETECTED = 0.75
_KEPT = 0.95


def draw_boxes(n: int, loss: float, rng: Rng) -> tuple[Rows, Rows]:
    """Draw images of three classes with their detections, true and false.

    The candidate decides anew on a twentieth of the targets, with the rate of detection that leads
    to the loss. Scores of targets have the density 3 s^2, of false detections 3 (1 - s)^2.
    """
    rate = _find_rate(loss)
    again = (rate - _KEPT * _DETECTED) / (1 - _KEPT)
    before: Rows = []
    after: Rows = []
    for _ in range(n):
        targets = rng.poisson(_TARGETS, _CLASSES)
        false = rng.poisson(_FALSE, _CLASSES)
        classes = np.repeat(np.arange(_CLASSES), targets)
        others = np.repeat(np.arange(_CLASSES), false)
        present = np.flatnonzero(targets)
        head = np.r_[present.size, np.column_stack([present, targets[present]]).reshape(-1)]
        found = rng.random(classes.size) < _DETECTED
        first = _draw_detections(classes, others, rng)
        second = _draw_detections(classes, others, rng)
        is_kept = rng.random(classes.size) < _KEPT
        found_again = np.where(is_kept, found, rng.random(classes.size) < again)
        keeps = np.r_[is_kept, rng.random(others.size) < _KEPT]
        mixed = np.where(keeps[:, None], first, second)
        is_false = np.ones(others.size, bool)
        before.append(np.r_[head, first[np.r_[found, is_false]].reshape(-1)])
        after.append(np.r_[head, mixed[np.r_[found_again, is_false]].reshape(-1)])
    return before, after


def _draw_detections(classes: NDArray[np.int64], others: NDArray[np.int64], rng: Rng) -> Floats:
    """Draw rows of class, score, thresholds that are passed (bits) and ignored (none)."""
    quality = rng.random(classes.size)
    passed = (quality[:, None] < _PASSED) @ (1 << np.arange(_PASSED.size))
    scores = np.r_[rng.random(classes.size) ** (1 / 3), 1 - rng.random(others.size) ** (1 / 3)]
    numbers = np.r_[classes, others], scores, np.r_[passed, np.zeros(others.size)]
    return np.column_stack([*numbers, np.zeros(scores.size)])


def compute_precision(detected: float) -> float:
    """Compute the mean AP of infinitely many images for a rate of detection."""
    scores = np.linspace(0, 1, 200_001)
    above, false = 1 - scores**3, (1 - scores) ** 3
    areas = []
    for passed in _PASSED:
        recall = detected * passed * above
        count = detected * above * _TARGETS + false * _FALSE
        precision = np.where(count > 0, _TARGETS * recall / np.where(count > 0, count, 1), 0)
        # Recall falls with the score: a recall is reached with the scores up to some place.
        order = np.searchsorted(recall[::-1], np.linspace(0, 1, 101), side="left")
        best = np.maximum.accumulate(precision)
        reached = order < scores.size
        places = np.where(reached, scores.size - 1 - order, 0)
        areas.append(float(np.where(reached, best[places], 0).mean()))
    return float(np.mean(areas))


@cache
def _find_rate(loss: float) -> float:
    """Find the rate of detection that lowers AP by a loss in points.

    Raises:
        ValueError: The loss is too large for the few targets that the candidate decides anew.
    """
    if not loss:
        return _DETECTED
    wanted = compute_precision(_DETECTED) - loss / 100
    low, high = _KEPT * _DETECTED, _DETECTED
    if compute_precision(low) > wanted:
        raise ValueError(f"a loss of {loss} points is too large for this process")
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if compute_precision(middle) < wanted else (low, middle)
    return high


def _pair_columns(first: Floats | NDArray[np.bool_], second: Floats | NDArray[np.bool_]) -> Floats:
    return np.column_stack([first, second]).astype(np.float64)


PROCESSES = (
    Process(metric="top1", samples=1000, pilot=600, most=10000, draw=draw_hits),
    Process(metric="miou", samples=150, pilot=40, most=3000, draw=draw_masks),
    Process(metric="mae", samples=300, pilot=120, most=4000, draw=draw_errors),
    Process(metric="auc", samples=400, pilot=150, most=3000, draw=draw_scores),
    Process(metric="map", samples=100, pilot=200, most=2500, draw=draw_boxes),
)
