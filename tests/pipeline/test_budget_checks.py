"""Gate: checks of measurements against the budgets; unmeasured checks never hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekit.bundle.results import Measurement, Verdict
from edgekit.config.profile import Budget
from edgekit.metrics.comparison import compare
from edgekit.metrics.metric import Margin, Table
from edgekit.metrics.registry import get_metric
from edgekit.pipeline.budget_checks import MIB, Limits, judge
from edgekit_agent.scoring import MetricOptions
from edgekit_agent.worker_results import Latency, Tally


def table(right, n=1000):
    return Table(rows=tuple(np.array([float(number < right), 1.0]) for number in range(n)))


def make_measurement(source="host", *, mib=1.0, p95=None, rss_mib=None, scored=True):
    return Measurement(
        source=source,
        tally=Tally("top1", 1000) if scored else None,
        model_bytes=int(mib * MIB),
        transfer_bytes=int(mib * MIB * 0.5),
        latency=(Latency((p95,) * 20, 1, 1, 1.0),) if p95 else (),
        peak_rss_bytes=int(rss_mib * MIB) if rss_mib else None,
    )


def verdict(budget, *, host=None, device=None, right=900, drop=1.0, proof=False, strict=False):
    margins = (Margin(value=drop),)
    limits = Limits(budget=budget, margins=margins, require_proof=proof, strict=strict)
    comparison = compare(
        get_metric("top1"), table(900), table(right), options=MetricOptions(), margin=margins[0]
    )
    return judge(limits, host=host or make_measurement(), device=device, comparison=comparison)


def outcomes(found):
    return {check.name: check.outcome for check in found.checks}


ALL = Budget(model_mib=2, transfer_mib=1, peak_rss_mib=100, latency_p95_ms=10)


def test_latency_and_memory_of_the_host_never_count_for_a_device():
    found = verdict(ALL, host=make_measurement(p95=1.0, rss_mib=10))

    assert outcomes(found) == {
        "model_mib": "holds",
        "transfer_mib": "holds",
        "peak_rss_mib": "unmeasured",
        "latency_p95_ms": "unmeasured",
        "accuracy_drop_points": "holds",
    }
    assert found.passes
    assert "not measured (limit 10); not measured on a device" in str(found.checks[3])


def test_a_device_that_is_too_slow_fails_and_the_line_says_by_how_much():
    found = verdict(ALL, device=make_measurement("device:pi", p95=12.5, rss_mib=50))

    assert [c.name for c in found.failing_checks] == ["latency_p95_ms"]
    assert not found.passes
    assert str(found.failing_checks[0]) == "latency_p95_ms: fails, 12.5 of 10, over by 2.5"


def test_a_limit_that_is_met_exactly_holds():
    found = verdict(ALL, host=make_measurement(mib=2.0), right=890)

    assert found.passes
    assert "0 below the limit" in str(found.checks[0])


def test_a_limit_that_the_profile_does_not_set_makes_no_line():
    assert set(outcomes(verdict(Budget()))) == {"accuracy_drop_points"}


def test_too_large_a_drop_fails():
    assert [c.name for c in verdict(ALL, right=889).failing_checks] == ["accuracy_drop_points"]


def test_with_required_proof_a_good_estimate_is_not_enough():
    figure = verdict(Budget(), right=895, drop=0.6)
    proof = verdict(Budget(), right=895, drop=0.6, proof=True)

    assert figure.passes
    assert outcomes(figure) == {"accuracy_drop_points": "unproven"}
    assert not proof.passes
    assert proof.failing_checks[0].measured > 0.6, (
        "the largest drop that the samples leave possible"
    )
    assert "not proven" in str(proof.failing_checks[0])
    assert "samples could" in str(proof.failing_checks[0])


@pytest.mark.parametrize(
    ("device", "where"),
    [
        (None, "host"),
        (make_measurement("device:pi"), "device"),
        (make_measurement("device:pi", scored=False), "host"),
    ],
)
def test_the_accuracy_line_says_where_the_samples_were_scored(device, where):
    check = verdict(Budget(), device=device).checks[-1]

    assert f"1000 samples on the {where}" in check.note


def test_a_candidate_that_a_device_could_not_run_does_not_pass_whatever_its_figures():
    assert not Verdict(checks=(), reasons=("killed for memory",)).passes


def test_strict_fails_what_is_not_measured_or_not_proven():
    device = make_measurement("device:pi", p95=1.0, rss_mib=10)
    assert [c.name for c in verdict(ALL, strict=True).failing_checks] == [
        "peak_rss_mib",
        "latency_p95_ms",
    ]
    assert verdict(ALL, device=device, strict=True).passes
    unproven = verdict(ALL, device=device, right=893)
    assert unproven.passes
    assert outcomes(unproven)["accuracy_drop_points"] == "unproven"
    assert not verdict(ALL, device=device, right=893, strict=True).passes


def test_the_transfer_counts_the_manifest_and_the_golden_samples():
    host = replace(make_measurement(), overhead_bytes=MIB // 2)
    (line,) = (c for c in verdict(ALL, host=host).checks if c.name == "transfer_mib")
    assert line.measured == 1.0
    host = replace(host, overhead_bytes=MIB // 2 + 4)
    assert [c.name for c in verdict(ALL, host=host).failing_checks] == ["transfer_mib"]
