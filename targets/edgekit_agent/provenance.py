"""Where the model of a release comes from, as its manifest tells."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Optional

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Provenance:
    """What the manifest of a release tells of its model.

    ``correct`` of ``n`` samples were right by ``metric`` where they were scored last (``host`` or
    ``device:NAME``); ``drop_points`` is the accuracy lost against the original.
    """

    recipe: str
    metric: str = ""
    correct: Optional[int] = None
    n: Optional[int] = None
    source: str = ""
    drop_points: Optional[float] = None


def read_provenance(folder: str) -> Optional[Provenance]:
    """What the manifest in a folder tells; ``None`` where it is damaged or of another edgekit."""
    try:
        with open(os.path.join(folder, MANIFEST), "rb") as file:
            manifest = json.load(file)
        scored = [m for m in manifest["measurements"] if m["n"]]
        last = scored[-1] if scored else {"correct": None, "n": None, "source": ""}
        drop = manifest["verdict"].get("comparison", {}).get("drop_points")
        return Provenance(
            recipe=_checked(manifest["recipe"]["name"], str),
            metric=_checked(manifest["metric"], str),
            correct=_checked(last["correct"], int, type(None)),
            n=_checked(last["n"], int, type(None)),
            source=_checked(last["source"], str),
            drop_points=_checked(drop, float, int, type(None)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # the release is served all the same


def _checked(value: Any, *kinds: type) -> Any:  # noqa: ANN401 - what JSON holds
    if not isinstance(value, kinds):
        raise TypeError(f"expected {kinds[0].__name__}")
    return value
