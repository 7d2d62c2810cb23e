"""Origin and accuracy of the model of a release, read from its manifest."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Dict, Optional

from edgekit_agent import strictjson
from edgekit_agent.protocol import mark_added

MANIFEST = "manifest.json"
MOST_MANIFEST_BYTES = 64 << 20
_MOST_TEXT = 1000


@dataclass(frozen=True)
class Provenance:
    """Recipe and accuracy of the model of a release.

    In the last scoring, on ``source`` (``host`` or ``device:NAME``), ``metric`` was ``value`` on
    ``n`` samples, of which ``correct`` were correct where the metric counts them. ``drop`` is the
    loss against the original in ``unit``: points, %, or that of the metric; ``drop_points`` the
    same in points alone.
    """

    recipe: str
    metric: str = ""
    correct: Optional[int] = None
    n: Optional[int] = None
    source: str = ""
    drop_points: Optional[float] = None
    value: Optional[float] = field(default=None, metadata=mark_added())
    drop: Optional[float] = field(default=None, metadata=mark_added())
    unit: str = field(default="points", metadata=mark_added())


def read_provenance(folder: str) -> Optional[Provenance]:
    """Read the manifest in a folder; ``None`` if it is damaged or of another edgekit version."""
    try:
        with open(os.path.join(folder, MANIFEST), "rb") as file:
            manifest = strictjson.load(file, MOST_MANIFEST_BYTES)
        scored = [m for m in manifest["measurements"] if m["n"]]
        nothing: Dict[str, Any] = {"correct": None, "n": None, "source": ""}
        last = scored[-1] if scored else nothing
        found = manifest["verdict"].get("comparison", {})
        # One of several models has no metric of its own: that of all together counts.
        metric = _check_type(manifest["metric"] or found.get("metric", ""), str)
        points = found.get("drop_points")  # of version 0.1
        drop, unit = found.get("drop", points), found.get("unit", "points")
        return Provenance(
            recipe=_check_type(manifest["recipe"]["name"], str),
            metric=metric,
            correct=_check_type(last["correct"], int, type(None)),
            n=_check_type(last["n"], int, type(None)),
            source=_check_type(last["source"], str),
            drop_points=_check_type(drop if unit == "points" else None, float, int, type(None)),
            value=_check_type(last.get("scores", {}).get(metric), float, int, type(None)),
            drop=_check_type(drop, float, int, type(None)),
            unit=_check_type(unit, str),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # the release is served without it


def _check_type(value: Any, *kinds: type) -> Any:  # noqa: ANN401 - any JSON value
    if not isinstance(value, kinds):
        raise TypeError(f"expected {kinds[0].__name__}")
    if isinstance(value, str) and len(value) > _MOST_TEXT:
        raise ValueError("a string is too long")
    return value
