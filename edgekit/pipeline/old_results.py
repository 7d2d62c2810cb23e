"""Results that edgekit 0.1 wrote, in the present form: it knew accuracy alone."""

from __future__ import annotations

from typing import Any

from edgekit.metrics.registry import get_metric

_RENAMED = {
    "drop_points": "drop",
    "interval_points": "interval",
    "worst_points": "worst",
    "margin_points": "margin",
}


def upgrade_comparison(found: dict[str, Any]) -> dict[str, Any]:
    """Return a comparison under the present names of its fields."""
    renamed = {_RENAMED.get(name, name): value for name, value in found.items()}
    known = {"metric": "top1", "unit": "points", "before": 0.0, "after": 0.0, "method": ""}
    return {**known, "groups": found.get("n", 0), **renamed}


def upgrade_measurement(found: object) -> object:
    """Return a measurement with a score for its count of correct predictions."""
    if not isinstance(found, dict) or "scores" in found or not isinstance(found.get("tally"), dict):
        return found
    tally = found["tally"]
    n, correct = tally.get("n"), tally.get("correct")
    if not (isinstance(n, int) and isinstance(correct, int) and n > 0):
        return found
    metric = get_metric(str(tally.get("metric")))
    score = {
        "metric": metric.name,
        "title": metric.title,
        "value": correct / n,
        "n": n,
        "is_share": True,
        "correct": correct,
    }
    return {**found, "scores": [score]}
