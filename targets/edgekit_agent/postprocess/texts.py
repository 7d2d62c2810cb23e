"""Post-processing of text recognizers: greedy CTC decoding (Graves 2006)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.postprocess import select_outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.postprocess import Convert
    from edgekit_agent.runtimes import Arrays
    from edgekit_agent.scoring import Postprocess


def decode_ctc(outputs: Arrays, targets: Arrays, settings: Postprocess) -> Arrays:
    """Return ``text``: the code points of the best class of each step.

    Repeated classes count once, the blank not at all.

    Raises:
        AgentError: ``bad_job``; the output does not have the classes of the charset.
    """
    del targets
    scores = next(iter(select_outputs(outputs, settings).values()))
    best = move_text_classes_last(scores, settings).argmax(axis=-1)
    chosen = best[find_chosen_steps(best, settings.blank)]
    text = "".join(settings.charset[k - (k > settings.blank)] for k in chosen.tolist())
    return {"text": np.array([ord(character) for character in text], np.int32)}


def find_chosen_steps(best: NDArray[Any], blank: int) -> NDArray[np.bool_]:
    """Return at which steps the best class is a new character."""
    is_new = np.concatenate([[True], best[1:] != best[:-1]])
    chosen: NDArray[np.bool_] = is_new[: len(best)] & (best != blank)
    return chosen


def move_text_classes_last(scores: NDArray[Any], settings: Postprocess) -> NDArray[Any]:
    """Return the scores as [steps, classes].

    Raises:
        AgentError: ``bad_job``; the output does not have the classes of the charset.
    """
    classes = len(settings.charset) + 1
    if not 0 <= settings.blank < classes:
        raise AgentError(
            "bad_job",
            f"post-processing ctc: blank {settings.blank} must be less than {classes}, the number "
            "of classes",
        )
    values = scores
    while values.ndim > 2 and 1 in values.shape:
        values = values.squeeze(values.shape.index(1))
    if values.ndim == 2 and values.shape[1] == classes:
        return values
    if values.ndim == 2 and values.shape[0] == classes:
        return values.T
    raise AgentError(
        "bad_job",
        f"post-processing ctc: the output of shape {scores.shape} has no axis of {classes} "
        "classes (characters and blank)",
        hint="check the charset; a space may be missing at its end",
    )


KINDS: Dict[str, Convert] = {"ctc": decode_ctc}
