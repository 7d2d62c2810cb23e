"""Origin and accuracy of the model of a release, read from its manifest."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Optional

from edgekit_agent import strictjson

MANIFEST = "manifest.json"
MOST_MANIFEST_BYTES = 64 << 20
_MOST_TEXT = 1000


@dataclass(frozen=True)
class Provenance:
    """Recipe and accuracy of the model of a release.

    In the last scoring, on ``source`` (``host`` or ``device:NAME``), ``correct`` of ``n`` samples
    were correct by ``metric``. ``drop_points`` is the loss of accuracy against the original.
    """

    recipe: str
    metric: str = ""
    correct: Optional[int] = None
    n: Optional[int] = None
    source: str = ""
    drop_points: Optional[float] = None


def read_provenance(folder: str) -> Optional[Provenance]:
    """Read the manifest in a folder; ``None`` if it is damaged or of another edgekit version."""
    try:
        with open(os.path.join(folder, MANIFEST), "rb") as file:
            manifest = strictjson.load(file, MOST_MANIFEST_BYTES)
        scored = [m for m in manifest["measurements"] if m["n"]]
        last = scored[-1] if scored else {"correct": None, "n": None, "source": ""}
        drop = manifest["verdict"].get("comparison", {}).get("drop_points")
        return Provenance(
            recipe=_check_type(manifest["recipe"]["name"], str),
            metric=_check_type(manifest["metric"], str),
            correct=_check_type(last["correct"], int, type(None)),
            n=_check_type(last["n"], int, type(None)),
            source=_check_type(last["source"], str),
            drop_points=_check_type(drop, float, int, type(None)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # the release is served without it


def _check_type(value: Any, *kinds: type) -> Any:  # noqa: ANN401 - any JSON value
    if not isinstance(value, kinds):
        raise TypeError(f"expected {kinds[0].__name__}")
    if isinstance(value, str) and len(value) > _MOST_TEXT:
        raise ValueError("a string is too long")
    return value
