"""Letterbox: an image scaled to fit the model's input, with its aspect ratio kept, and the inverse.

A target ``letterbox`` holds five numbers: scale, left, top, width and height. A pixel of the input
is ``original * scale + (left, top)``; width and height are those of the original.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Tuple

import numpy as np

from edgekit_agent.failures import AgentError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

NUMBERS = 5


def compute_letterbox(
    width: int, height: int, size: Tuple[int, int], *, centered: bool
) -> Tuple[float, int, int]:
    """Compute scale, left and top of an image in the model's input.

    Args:
        width: width of the image.
        height: its height.
        size: height and width of the input.
        centered: whether the image is in the center of the input, else in its top left corner.
    """
    scale = min(size[0] / height, size[1] / width)
    if not centered:
        return scale, 0, 0
    left = (size[1] - scale_side(width, scale)) // 2
    top = (size[0] - scale_side(height, scale)) // 2
    return scale, left, top


def scale_side(side: int, scale: float) -> int:
    """Return the scaled length of a side in whole pixels, at least one."""
    return max(1, round(side * scale))


def restore_boxes(boxes: Floats, letterbox: NDArray[Any]) -> Floats:
    """Convert boxes [D, 4] from pixels of the input to those of the original, and clip them to it.

    Raises:
        AgentError: ``bad_job``; the letterbox does not hold five numbers, or its scale is not
            positive.
    """
    numbers = np.asarray(letterbox, np.float64).reshape(-1)
    if numbers.size != NUMBERS or not np.isfinite(numbers).all() or not (numbers[0] > 0):
        raise AgentError(
            "bad_job",
            f"the target letterbox is {numbers.tolist()}",
            hint="it must be scale, left, top, width, height, with a positive scale",
        )
    scale, left, top, width, height = numbers.tolist()
    restored = np.array(boxes, np.float64)
    restored[:, 0::2] = (restored[:, 0::2] - left) / scale
    restored[:, 1::2] = (restored[:, 1::2] - top) / scale
    return clip_boxes(restored, width, height)


def clip_boxes(boxes: Floats, width: float, height: float) -> Floats:
    """Clip boxes [D, 4] to an image."""
    clipped = boxes.copy()
    clipped[:, 0::2] = np.minimum(np.maximum(clipped[:, 0::2], 0.0), width)
    clipped[:, 1::2] = np.minimum(np.maximum(clipped[:, 1::2], 0.0), height)
    return clipped
