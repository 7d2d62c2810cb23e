"""Filters of the report's template: figures, sizes, units and names in words."""

from __future__ import annotations

import math

from edgekit.bundle.results import MIB, Check, Score

_NOT_MEASURED = "not measured"
LABELS = {
    "model_mib": "Model size",
    "transfer_mib": "Download size",
    "peak_rss_mib": "Peak memory",
    "latency_p95_ms": "Latency, 95th percentile",
    "accuracy_drop_points": "Accuracy drop",
}
_UNITS = {
    "percent": "%",
    "mib": "MiB",
    "ms": "ms",
    "points": "points",
    "mj": "mJ",
    "bytes": "bytes",
}


def format_value(score: Score) -> str:
    """Return the value of a metric without its counts."""
    return f"{100 * score.value:.2f} %" if score.is_share else f"{score.value:.4g}"


def format_figure(value: float | None, digits: int = 3) -> str:
    """Format a number with the given count of significant digits."""
    if value is None:
        return _NOT_MEASURED
    if not math.isfinite(value):
        return "unbounded"
    if value == 0:
        return "0"
    whole = math.floor(math.log10(abs(value))) + 1
    return f"{value:,.{min(max(digits - whole, 0), 6)}f}".replace("-", "\u2212")


def format_size(count: int | None) -> str:
    """Format a number of bytes in KiB or MiB."""
    if count is None:
        return _NOT_MEASURED
    if count < MIB:
        return f"{format_figure(count / 1024)} KiB"
    return f"{format_figure(count / MIB)} MiB"


def format_label(check: Check) -> str:
    """Return the name of a check in words."""
    if check.metric and check.name not in LABELS:
        return f"Loss of {check.metric}"
    stem, _, tail = check.name.rpartition("_")
    plain = stem if tail in _UNITS and stem else check.name
    return LABELS.get(check.name, plain.replace("_", " ").capitalize())


def get_unit(check: Check) -> str:
    """Return the unit at the end of a check's name."""
    return _UNITS.get(check.name.rpartition("_")[2], "")


def format_place(source: str) -> str:
    """Return in words where a value was measured."""
    return "build host" if source == "host" else source.replace("device:", "device ", 1)


def compute_used_percent(check: Check) -> float | None:
    """Compute the used share of a check's limit in percent, at most 100."""
    if check.measured is None or check.limit <= 0 or not math.isfinite(check.measured):
        return None
    return round(min(max(100 * check.measured / check.limit, 0), 100), 1)
