"""Selection of boxes: minimum score, non-maximum suppression (NMS) within each class, letterbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, List, Tuple

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.postprocess.letterbox import clip_boxes, restore_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.runtimes import Arrays
    from edgekit_agent.scoring import Postprocess

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

# Boxes with the best scores that NMS compares with each other.
_MOST_COMPARED = 1000
_LEAST_AREA = 1e-9


def select_by_class(
    boxes: Floats, scores: Floats, targets: Arrays, settings: Postprocess
) -> Arrays:
    """Select boxes by the scores [A, C] of all classes: a box may occur once in each class."""
    if settings.background >= 0:
        if settings.background >= scores.shape[1]:
            raise AgentError(
                "bad_job",
                f"background = {settings.background}, but there are scores of "
                f"{scores.shape[1]} classes",
            )
        scores = np.delete(scores, settings.background, axis=1)
    places, classes = np.nonzero(scores > settings.score_min)
    return select_boxes(boxes[places], scores[places, classes], classes, targets, settings)


def select_boxes(
    boxes: Floats, scores: Floats, classes: Integers, targets: Arrays, settings: Postprocess
) -> Arrays:
    """Select boxes [D, 4], in pixels of the input, each with a score and a class.

    Boxes below the minimum score go first. NMS then keeps the best box of a class and drops those
    that overlap it. The boxes that remain are converted to pixels of the original image if there is
    a target ``letterbox``, and clipped to it.

    Returns:
        ``boxes``, ``scores`` and ``classes``, by falling score.
    """
    kept = np.flatnonzero(scores > settings.score_min)
    kept = kept[np.argsort(-scores[kept], kind="stable")][:_MOST_COMPARED]
    kept = kept[suppress_overlaps(boxes[kept], classes[kept], settings.nms_iou, settings.most)]
    found = boxes[kept]
    if "letterbox" in targets:
        found = restore_boxes(found, targets["letterbox"])
    elif settings.size:
        height, width = get_size(settings)
        found = clip_boxes(found, width, height)
    return {
        "boxes": found,
        "scores": scores[kept],
        "classes": classes[kept].astype(np.int64) + settings.first_class,
    }


def suppress_overlaps(boxes: Floats, classes: Integers, limit: float, most: int) -> Integers:
    """Return the places of the boxes that NMS keeps within each class, ``most`` at most.

    Args:
        boxes: boxes by falling score.
        classes: their classes.
        limit: overlap (IoU) above which the box with the lower score is dropped.
        most: largest number of boxes to keep.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: List[int] = []
    rest = np.arange(len(boxes))
    while rest.size and len(kept) < most:
        best, rest = int(rest[0]), rest[1:]
        kept.append(best)
        sides = [
            np.minimum(boxes[rest, high], boxes[best, high])
            - np.maximum(boxes[rest, low], boxes[best, low])
            for low, high in ((0, 2), (1, 3))
        ]
        common = np.maximum(sides[0], 0.0) * np.maximum(sides[1], 0.0)
        union = np.maximum(areas[rest] + areas[best] - common, _LEAST_AREA)
        rest = rest[(classes[rest] != classes[best]) | (common / union <= limit)]
    return np.array(kept, np.int64)


def get_size(settings: Postprocess) -> Tuple[int, int]:
    """Return height and width of the model's input.

    Raises:
        AgentError: ``bad_job``; the settings do not give two positive numbers.
    """
    if len(settings.size) != 2 or min(settings.size) < 1:
        raise AgentError(
            "bad_job",
            f"post-processing {settings.kind} needs the size of the model's input, not "
            f"{list(settings.size)}",
            hint="[postprocess] size = [height, width]",
        )
    return settings.size[0], settings.size[1]
