"""Average precision of single images, by which the images that a candidate changes are found."""

from __future__ import annotations

import numpy as np

from edgekit.metrics.metric import Floats, SampleValue, Table
from edgekit_agent.metrics.detection import DETECTION_NUMBERS
from edgekit_agent.scoring import MetricOptions


def build_image_value(thresholds: int) -> SampleValue:
    """Return the average precision of each image alone, over the first IoU thresholds.

    The boxes of all classes are in one list, sorted by their scores, so that a box of a class that
    the image does not have counts as wrong. It is the mean of the precisions at the targets that
    are found, 0 at those that are not, without interpolation. An image without targets has 1 minus
    the highest score.
    """

    def compute(table: Table, options: MetricOptions) -> Floats:
        del options
        return np.array([_compute_precision(row, thresholds) for row in table.rows])

    return SampleValue(compute=compute, title="AP of the image", is_share=True)


def _compute_precision(row: Floats, thresholds: int) -> float:
    end = 1 + 2 * int(row[0])
    targets = float(row[2:end:2].sum())
    boxes = row[end:].reshape(-1, DETECTION_NUMBERS)
    boxes = boxes[np.argsort(-boxes[:, 1], kind="stable")]
    if not targets:
        counted = boxes[boxes[:, 3] == 0, 1]
        return 1.0 - float(counted.max(initial=0.0))
    bits = 1 << np.arange(thresholds)
    hits = (boxes[:, 2:3].astype(np.int64) & bits) > 0
    ignored = (boxes[:, 3:4].astype(np.int64) & bits) > 0
    found = np.maximum(np.cumsum(~ignored, axis=0), 1)
    precisions = np.where(hits, np.cumsum(hits, axis=0) / found, 0.0)
    return float(precisions.sum(axis=0).mean() / targets)
