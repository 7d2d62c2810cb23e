"""Formatting of the list of metrics."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.metrics.registry import MetricFacts

_UNITS = {"points": " points", "%": " %", "": ""}


def format_metrics(found: Sequence[MetricFacts]) -> str:
    """Format a table of the metrics."""
    head = ["metric", "title", "better", "margin", "target y of a sample"]
    rows = [head, *(_format_metric(facts) for facts in found)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _format_metric(facts: MetricFacts) -> list[str]:
    better = "higher" if facts.higher_is_better else "lower"
    return [facts.name, facts.title, better, format_margin(facts), facts.target or "-"]


def format_margin(facts: MetricFacts) -> str:
    """Format the default margin of a metric: 1 point, 2 %, 0.1."""
    unit = " point" if facts.unit == "points" and facts.margin == 1 else _UNITS[facts.unit]
    return f"{facts.margin:g}{unit}"
