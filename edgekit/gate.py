"""Budgets against measurements: every line holds, fails, or is unmeasured."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.compare import Comparison
from edgekit.profile import Budget
from edgekit.results import MIB, Check, Measurement, Outcome, Verdict


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a candidate is held against.

    Attributes:
        budget: of the device.
        drop_points: the largest accuracy drop.
        require_proof: whether the drop must be proven to be no larger.
        strict: whether what was not measured, or not proven, fails.
    """

    budget: Budget
    drop_points: float
    require_proof: bool = False
    strict: bool = False


def judge(
    limits: Limits,
    *,
    host: Measurement,
    device: Measurement | None,
    comparison: Comparison,
) -> Verdict:
    """Hold a candidate against the limits.

    Sizes are facts of the file and of all that an update sends. Latency and memory count only
    where a device measured them; the host's say nothing of the device, and are left out. Accuracy
    is the device's where it scored the samples, else the host's.
    """
    budget = limits.budget
    times = device.times if device else None
    rss = device.peak_rss_bytes if device else None
    doubts = f"in doubt: {', '.join(times.doubts)}" if times and times.doubts else ""
    lines = [
        _line("model_mib", budget.model_mib, host.model_bytes / MIB),
        _line("transfer_mib", budget.transfer_mib, host.update_bytes / MIB),
        _line("peak_rss_mib", budget.peak_rss_mib, rss / MIB if rss else None),
        _line("latency_p95_ms", budget.latency_p95_ms, times.p95_ms if times else None, doubts),
        _accuracy(limits, comparison, on_device=bool(device and device.tally)),
    ]
    return Verdict(checks=tuple(line for line in lines if line), strict=limits.strict)


def _line(name: str, limit: float | None, measured: float | None, note: str = "") -> Check | None:
    if limit is None:
        return None
    if measured is None:
        why = "no device measured it (--on HOST)"
        return Check(name=name, limit=limit, measured=None, outcome="unmeasured", note=why)
    outcome = _outcome(measured <= limit)
    return Check(name=name, limit=limit, measured=measured, outcome=outcome, note=note)


def _outcome(holds: bool) -> Outcome:
    return "holds" if holds else "fails"


def _accuracy(limits: Limits, comparison: Comparison, *, on_device: bool) -> Check:
    """The drop holds when the samples prove it small enough, and fails when it was not small.

    In between they prove nothing, and the line says so. Where proof is required, what counts is
    the largest drop that the samples leave possible.
    """
    outcome: Outcome = "holds" if comparison.proven else "unproven"
    measured = comparison.drop_points
    if limits.require_proof or limits.strict:
        measured = comparison.worst_points
    if measured > limits.drop_points:
        outcome = "fails"
    return Check(
        name="accuracy_drop_points",
        limit=limits.drop_points,
        measured=measured,
        outcome=outcome,
        note=_evidence(comparison, on_device=on_device),
    )


def _evidence(comparison: Comparison, *, on_device: bool) -> str:
    low, high = comparison.interval_points
    where = "device" if on_device else "host"
    text = f"{comparison.n} samples on the {where}, 95 % interval {low:.2f} to {high:.2f}"
    if comparison.proven:
        return f"{text}; non-inferiority proven (at worst {comparison.worst_points:.2f})"
    text = f"{text}; non-inferiority not proven (at worst {comparison.worst_points:.2f}"
    if comparison.needed_samples:
        text += f"; about {comparison.needed_samples} samples could"
    return text + ")"
