"""Post-processing of scores: class masks, probabilities and decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.metrics import portable_math
from edgekit_agent.metrics.shapes import find_class_axis, move_classes_last
from edgekit_agent.postprocess import select_outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.postprocess import Convert
    from edgekit_agent.runtimes import Arrays
    from edgekit_agent.scoring import Postprocess


def choose_classes(outputs: Arrays, targets: Arrays, settings: Postprocess) -> Arrays:
    """Return ``mask``: the class with the largest score at each position.

    Raises:
        AgentError: ``bad_job``; no axis of the output can be the one of the classes.
    """
    scores = next(iter(select_outputs(outputs, settings).values()))
    moved = _move_classes_last(scores, targets)
    if moved is None:
        raise AgentError(
            "bad_job",
            f"post-processing argmax: output of shape {scores.shape} has no class axis in addition "
            f"to the axes of the labels, {targets['y'].shape}",
        )
    if moved.shape[-1] == 1:
        raise AgentError(
            "bad_job",
            f"post-processing argmax: output of shape {scores.shape} has a single channel",
            hint="use threshold",
        )
    return {"mask": moved.argmax(axis=-1).astype(np.int32)}


def compute_softmax(outputs: Arrays, targets: Arrays, settings: Postprocess) -> Arrays:
    """Return the probabilities along the class axis; other outputs are unchanged."""
    changed = {
        name: _apply_softmax(values, targets)
        for name, values in select_outputs(outputs, settings).items()
    }
    return {**outputs, **changed}


def compute_sigmoid(outputs: Arrays, targets: Arrays, settings: Postprocess) -> Arrays:
    """Return the logistic function of each value; other outputs are unchanged."""
    del targets
    changed = {
        name: portable_math.sigmoid(values)
        for name, values in select_outputs(outputs, settings).items()
    }
    return {**outputs, **changed}


def apply_threshold(outputs: Arrays, targets: Arrays, settings: Postprocess) -> Arrays:
    """Return 1 where a value exceeds the threshold, else 0; other outputs are unchanged."""
    del targets
    changed = {
        name: (values > settings.threshold).astype(np.uint8)
        for name, values in select_outputs(outputs, settings).items()
    }
    return {**outputs, **changed}


def _apply_softmax(scores: NDArray[Any], targets: Arrays) -> NDArray[Any]:
    axis = _guess_class_axis(scores, targets)
    return np.moveaxis(portable_math.softmax(np.moveaxis(scores, axis, -1)), -1, axis)


def _move_classes_last(scores: NDArray[Any], targets: Arrays) -> NDArray[Any] | None:
    """Return the scores with the axis that the labels lack last."""
    if "y" in targets:
        return move_classes_last(scores, targets["y"].shape)
    return np.moveaxis(scores, _guess_class_axis(scores, targets), -1)


def _guess_class_axis(scores: NDArray[Any], targets: Arrays) -> int:
    """Return the axis that the labels lack, else the shorter one of the first and the last."""
    if scores.ndim < 2:
        return 0
    if "y" in targets:
        found = find_class_axis(scores.shape, targets["y"].shape)
        if found is not None:
            return found
    return 0 if scores.ndim > 2 and scores.shape[0] <= scores.shape[-1] else scores.ndim - 1


KINDS: Dict[str, Convert] = {
    "argmax": choose_classes,
    "softmax": compute_softmax,
    "sigmoid": compute_sigmoid,
    "threshold": apply_threshold,
}
