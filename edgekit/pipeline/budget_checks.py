"""The gate: checks of a candidate against the budgets of the device and the accuracy limit.

Each check holds, fails, is unmeasured (no device measured the figure, or there are no samples), is
unproven (the samples do not show that the loss of accuracy is small enough), or is meaningless (the
original is no better than a predictor that ignores its input).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from edgekit.bundle.results import MIB, Check, Measurement, Outcome, Verdict
from edgekit.config.profile import Budget
from edgekit.metrics.comparison import Comparison
from edgekit.metrics.intervals.paired_tables import Unit
from edgekit.metrics.metric import Margin

# Metric of the check of an accuracy that was not measured.
_UNMEASURED = "accuracy"
_UNITS: dict[Unit, str] = {"points": "points", "%": "percent"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that a candidate must keep.

    Attributes:
        budget: Budget of the device.
        margins: Largest loss of the gated metric, and of each guard.
        require_proof: Whether the samples must prove that the drop is no larger.
        strict: Whether unmeasured and unproven checks fail.
        allow_unmeasured: Whether a candidate passes although its accuracy was not measured.
    """

    budget: Budget
    margins: tuple[Margin, ...]
    require_proof: bool = False
    strict: bool = False
    allow_unmeasured: bool = False


def judge(
    limits: Limits,
    *,
    host: Measurement,
    device: Measurement | None,
    comparison: Comparison | None,
) -> Verdict:
    """Judge a candidate by the limits.

    Sizes are those of the file and of everything that an update sends. Latency and memory count
    only if a device measured them, as those of the host say nothing about the device. Accuracy is
    that of the device if it scored the samples, else that of the host.
    """
    budget = limits.budget
    times = device.times if device else None
    rss = device.peak_rss_bytes if device else None
    doubts = f"unreliable: {', '.join(times.doubts)}" if times and times.doubts else ""
    lines = [
        check_budget("model_mib", budget.model_mib, host.model_bytes / MIB),
        check_budget("transfer_mib", budget.transfer_mib, host.update_bytes / MIB),
        check_budget("peak_rss_mib", budget.peak_rss_mib, rss / MIB if rss else None),
        check_budget(
            "latency_p95_ms", budget.latency_p95_ms, times.p95_ms if times else None, doubts
        ),
        *_iter_accuracy_checks(limits, comparison, on_device=bool(device and device.tally)),
    ]
    return Verdict(
        checks=tuple(line for line in lines if line),
        strict=limits.strict,
        needs_accuracy=not limits.allow_unmeasured,
    )


def _iter_accuracy_checks(
    limits: Limits, comparison: Comparison | None, *, on_device: bool
) -> Iterator[Check]:
    if comparison is None:
        yield Check(
            name="accuracy_drop_points",
            limit=limits.budget.accuracy_drop_points,
            measured=None,
            outcome="unmeasured",
            note="there are no samples to measure it on; give --eval, or pass --allow-unmeasured",
            metric=_UNMEASURED,
        )
        return
    for each in (comparison, *comparison.guards):
        yield _check_accuracy(limits, each, on_device=on_device)


def check_budget(
    name: str, limit: float | None, measured: float | None, note: str = ""
) -> Check | None:
    """Check a figure against its limit; ``None`` if there is no limit.

    Args:
        name: Name of the check, with the unit at its end.
        limit: The limit.
        measured: The figure; ``None`` if no device measured it.
        note: Remark on the figure.
    """
    if limit is None:
        return None
    if measured is None:
        why = "not measured on a device (use --on HOST)"
        return Check(name=name, limit=limit, measured=None, outcome="unmeasured", note=why)
    outcome = _to_outcome(measured <= limit)
    return Check(name=name, limit=limit, measured=measured, outcome=outcome, note=note)


def _to_outcome(holds: bool) -> Outcome:
    return "holds" if holds else "fails"


def _check_accuracy(limits: Limits, comparison: Comparison, *, on_device: bool) -> Check:
    """Check the loss by one metric: it holds if proven small enough, and fails if too large.

    Between the two the samples prove nothing, and the outcome is ``unproven``. If proof is
    required, the largest loss that the samples leave possible is checked instead.
    """
    outcome: Outcome = "holds" if comparison.proven else "unproven"
    measured = comparison.drop
    if limits.require_proof or limits.strict:
        measured = comparison.worst
    if measured > comparison.margin:
        outcome = "fails"
    if comparison.meaningless:
        outcome = "meaningless"
    return Check(
        name=name_accuracy_check(comparison),
        limit=comparison.margin,
        measured=measured,
        outcome=outcome,
        note=comparison.meaningless or _describe_evidence(comparison, on_device=on_device),
        metric=comparison.metric,
    )


def name_accuracy_check(comparison: Comparison) -> str:
    """Return the name of a check of accuracy, with the unit of the loss at its end."""
    if comparison.unit == "points" and comparison.lost is not None:
        return "accuracy_drop_points"
    name = comparison.metric.rpartition(":")[2]  # of the user's metrics, the function
    stem = f"{name.replace('-', '_').replace('.', '_').lower()}_loss"
    return f"{stem}_{_UNITS[comparison.unit]}" if comparison.unit else stem


def _describe_evidence(comparison: Comparison, *, on_device: bool) -> str:
    low, high = comparison.interval
    where = "device" if on_device else "host"
    apart = f" in {comparison.groups} groups" if comparison.groups < comparison.n else ""
    samples = f"{comparison.n} samples{apart} on the {where}"
    if not (math.isfinite(low) and math.isfinite(high)):
        why = comparison.method.partition(": ")[2] or comparison.method
        return f"{samples}, no interval: {why}; non-inferiority not proven"
    text = f"{samples}, 95 % interval {low:.2f} to {high:.2f}"
    if comparison.proven:
        return f"{text}; non-inferiority proven (at worst {comparison.worst:.2f})"
    text = f"{text}; non-inferiority not proven (at worst {comparison.worst:.2f}"
    if comparison.needed_samples:
        text += f"; about {comparison.needed_samples} samples could"
    return text + ")"
