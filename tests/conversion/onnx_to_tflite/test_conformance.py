"""The statements of docs/operators.md about ONNX's operators are true."""

import re
from importlib.metadata import version

import pytest

from benchmarks.conformance import DOCUMENT, format_document, judge_all
from benchmarks.conformance_case import CLAIMED, load_cases, operator_of


def written_for():
    return re.findall(r"(?:onnx|ai-edge-litert) (\d[\w.]+)", DOCUMENT.read_text())


def test_every_operator_with_a_rule_has_a_line():
    lines = set(re.findall(r"^\| ([\w.:]+) \| yes", DOCUMENT.read_text(), re.M))
    assert lines == CLAIMED


def test_every_test_that_is_listed_as_passing_passes_and_the_document_says_all():
    found = judge_all(sorted(load_cases()))
    stated = DOCUMENT.read_text()
    failing = {v.name for v in found if v.status in ("failed", "refused") and v.operator in CLAIMED}
    listed = {
        name for line in re.findall(r"^- \w+: (test_.*)", stated, re.M) for name in line.split(", ")
    }
    if written_for() != [version("onnx"), version("ai-edge-litert")]:
        pytest.skip("docs/operators.md is of other versions of onnx or ai-edge-litert")
    assert failing <= listed
    assert format_document(found) == stated


def test_operators_have_names():
    assert operator_of("test_relu") == "Relu"
