"""A slower file is distinguished from timing noise."""

from __future__ import annotations

import pytest

from edgekit.compression.checks.timing import measure_slowdown


@pytest.mark.parametrize(
    ("ratios", "told"),
    [
        ([2.0], 2.0),
        ([1.16], 1.16),
        ([1.1, 1.08], 1.08),
        ([1.06, 1.3], 1.06),
        ([1.1, 1.04], 1.0),
        ([1.05], 1.0),
        ([0.4], 1.0),
    ],
)
def test_a_small_slowdown_is_measured_twice(monkeypatch, ratios, told):
    left = iter(ratios)
    monkeypatch.setattr(
        "edgekit.compression.checks.timing.measure_time_ratio", lambda *_: next(left)
    )

    assert measure_slowdown(lambda: None, lambda: None) == told
    assert next(left, None) is None
