"""The compatibility benchmark reports results that are worse than the pass reported."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.compatibility_table import Outcome, find_fault, format_document

FINE = Outcome(
    model="m", step="quantize-static", status="ok", size_ratio=0.3, said=0.1, output="y",
    error=0.15, time_ratio=0.9,
)  # fmt: skip
LOSS = "outputs have a large relative error on the samples: y 0.4; give more samples"


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({}, ""),
        ({"error": 0.35}, "y has the error 0.35, the pass reported 0.1"),
        ({"error": float("nan")}, "y has the error nan, the pass reported 0.1"),
        ({"said": None}, "y has the error 0.15, the pass reported 0"),
        ({"said": 0.4, "error": 0.5}, "y has the error 0.5, and no note warns of it"),
        ({"said": 0.4, "error": 0.5, "notes": (LOSS,)}, ""),
        ({"time_ratio": 1.3}, "takes 1.30 times as long, and no note says so"),
        ({"time_ratio": 1.3, "notes": ("on this machine the file takes 1.24 times as long",)}, ""),
        ({"status": "exit 1", "text": "KeyError: 'x'"}, "exit 1: KeyError: 'x'"),
        ({"status": "refused", "text": "why"}, ""),
    ],
)
def test_a_result_worse_than_reported_is_a_fault(changed, fault):
    outcome = replace(FINE, **changed)

    assert find_fault(outcome) == fault
    document = format_document([outcome], {"m": "a model"})
    assert ("FAULT" in document) == bool(fault)
