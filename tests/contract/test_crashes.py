"""If a pass crashes, its candidate is lost and a report is written that can be sent."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit.compression.pass_specs import PASSES
from edgekit.errors import DeviceError
from edgekit.onnx_graph.io import read_onnx
from edgekit.pipeline.timing import Timing, time_interleaved
from edgekit_agent.worker_jobs import ModelRef
from edgekit_agent.worker_results import Latency, Report
from tests.builders.projects import edgekit

REPORT = re.compile(r"please report it and attach (\S+\.txt)")
SECRET = "/home/alice/patients/ward 7/scan.npy"


def raises_what_nobody_expected(source, settings, work):
    del settings, work
    weights = read_onnx(source.path)
    raise ZeroDivisionError(f"{SECRET}: division by zero in {weights.path}")


def recurses(source, settings, work):
    return recurses(source, settings, work)


def fails_without_a_word(source, settings, work):
    raise AssertionError


def runs_out_of_memory(source, settings, work):
    raise MemoryError


def is_interrupted(source, settings, work):
    raise KeyboardInterrupt


def ends_the_process(source, settings, work):
    raise SystemExit(3)


def returns_no_path(source, settings, work):
    return 7


def takes_only_the_samples_it_saw(source, settings, work):
    """A model that the runtime refuses to run once an input is larger than any seen so far."""
    proto = onnx.load(str(source.path))
    seen = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 17]>'
        "g (float[N, 4] x) => (float[N, 3] y) <int64[1] zero = {0}> {"
        " big = Constant <value_float = 50.0> () high = ReduceMax <keepdims = 0> (x)"
        " over = Greater (high, big) place = Cast <to = 7> (over)"
        " at = Gather (zero, place) atf = Cast <to = 1> (at) }"
    )
    proto.graph.initializer.extend(seen.graph.initializer)
    added = [*seen.graph.node, onnx.helper.make_node("Add", ["inner", "atf"], ["y"])]
    proto.graph.node[-1].output[0] = "inner"
    proto.graph.node.extend(added)
    path = work.scratch / "made.onnx"
    onnx.save(proto, path)
    return path


def instead_of(monkeypatch, name, function, **others):
    spec = replace(PASSES[name], function=f"{__name__}:{function.__name__}", **others)
    monkeypatch.setitem(PASSES, name, spec)


@pytest.fixture(autouse=True)
def own_cache(workplace, monkeypatch):
    """Use a separate cache, without results of the real passes."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(workplace / "cache"))


@pytest.fixture(scope="module")
def kept_cache(tmp_path_factory):
    """A cache with the results of the passes that do not crash; a crash is never stored."""
    return tmp_path_factory.mktemp("kept")


CRASHES = [
    raises_what_nobody_expected,
    recurses,
    fails_without_a_word,
    ends_the_process,
    returns_no_path,
]


@pytest.mark.parametrize("crash", CRASHES)
def test_a_crash_in_a_build_rejects_its_candidate_alone(tiny, monkeypatch, crash, kept_cache):
    monkeypatch.setenv("EDGEKIT_CACHE", str(kept_cache))
    instead_of(monkeypatch, "quantize-dynamic", crash)
    done = edgekit("build", "-C", tiny, "--json")

    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert [c["name"] for c in facts["candidates"]] == ["original", "int8-static"]
    assert facts["rejected"]["int8-dynamic"].startswith("failed: quantize-dynamic crashed: ")
    report = Path(REPORT.search(facts["hints"]["int8-dynamic"])[1])
    assert "Traceback" in report.read_text()

    text = edgekit("build", "-C", tiny).out
    assert re.search(
        r"int8-dynamic: no candidate: failed: .*\n  this is a bug in edgekit; .*\.txt", text
    )
    page = (tiny / "build" / "tablet-x86" / "report.html").read_text()
    assert f"CACHE/crashes/{report.name}" in page
    assert str(report) not in page


def test_the_report_of_a_crash_names_the_fault_and_nothing_of_the_user(tiny, monkeypatch):
    instead_of(monkeypatch, "quantize-dynamic", raises_what_nobody_expected)
    done = edgekit(
        "apply", "quantize-dynamic", "-C", tiny, "model.onnx", "-o", "q.onnx", "--set",
        "weight_bits=8",
    )  # fmt: skip

    assert (done.code, done.out) == (1, "")
    assert "Traceback" not in done.err
    said = done.err.splitlines()
    assert "edgekit: quantize-dynamic crashed: ZeroDivisionError: scan.npy: division" in said[-2]
    assert not (tiny / "q.onnx").exists()
    report = Path(REPORT.search(said[-1])[1]).read_text()
    for part in (
        "ZeroDivisionError: scan.npy",
        '"weight_bits": 8',
        "tests/contract/test_crashes.py",
        "in raises_what_nobody_expected",
        f"edgekit {__import__('edgekit').__version__}",
        f"onnx {onnx.__version__}",
        f"numpy {np.__version__}",
        "onnxruntime ",
        "opsets: ai.onnx 17",
        "operators: 1 MatMul",
        "stored: 1 float[4, 3]",
        "input float32[N, 4]",
    ):
        assert part in report, report
    weight = onnx.numpy_helper.to_array(onnx.load(tiny / "model.onnx").graph.initializer[0])
    for secret in ("alice", "ward 7", str(tiny), str(tiny.parent), f"{weight[0, 0]:.4f}"):
        assert secret not in report


def test_one_recipe_that_crashes_ends_with_1_and_the_report(tiny, monkeypatch):
    instead_of(monkeypatch, "quantize-static", fails_without_a_word)
    done = edgekit("build", "-C", tiny, "--step", "quantize-static")

    assert (done.code, done.out) == (1, "")
    assert "Traceback" not in done.err
    assert "failed: quantize-static crashed: AssertionError" in done.err
    assert REPORT.search(done.err)


def test_a_machine_out_of_memory_and_ctrl_c_end_the_build(tiny, monkeypatch):
    instead_of(monkeypatch, "quantize-static", runs_out_of_memory)
    done = edgekit("build", "-C", tiny)
    assert (done.code, done.out) == (2, "")
    assert "edgekit: out of memory" in done.err

    instead_of(monkeypatch, "quantize-static", is_interrupted)
    assert edgekit("build", "-C", tiny).code == 130


def test_a_candidate_that_the_runtime_refuses_while_it_is_scored_is_rejected(tiny, monkeypatch):
    found = dict(np.load(tiny / "eval.npz"))
    found["x"][7, 0] = 1000.0
    np.savez(tiny / "eval.npz", **found)
    promise = replace(PASSES["quantize-dynamic"].promise, stores=(), fewer_float_weights=False)
    promise = replace(promise, saves=0.0, max_growth=9.0)
    instead_of(monkeypatch, "quantize-dynamic", takes_only_the_samples_it_saw, promise=promise)
    done = edgekit("build", "-C", tiny, "--json", "--max-drop", "50")

    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert "int8-static" in [c["name"] for c in facts["candidates"]]
    assert "fails on the evaluation data" in facts["rejected"]["int8-dynamic"]


class Device:
    """An agent that one of the models crashes."""

    def __init__(self, **failure):
        self.failure = failure

    def ask(self, job, result, *, progress):
        if job.model.path == "bad":
            raise DeviceError("the agent ended by SIGSEGV", **self.failure)
        return Report(Latency((1.0,), 1, 1, 1.0), 1, 1, "onnxruntime", "1")


@pytest.mark.parametrize(
    ("failure", "here", "stays"),
    [
        ({"kind": "killed"}, False, True),
        ({"kind": "internal"}, False, True),
        ({"kind": "no_memory"}, False, True),
        ({"transient": True}, True, True),
        ({"transient": True}, False, False),
        ({"kind": "no_space"}, True, False),
    ],
)
def test_a_model_that_crashes_the_measuring_process_does_not_affect_others(failure, here, stays):
    models = {name: ModelRef(name, "onnxruntime") for name in ("good", "bad", "other")}

    def measure():
        return time_interleaved(
            Device(**failure), models, None, dims={}, timing=Timing(rounds=2),
            racing=list(models), tick=lambda *_: None, here=here,
        )  # fmt: skip

    if not stays:
        with pytest.raises(DeviceError):
            measure()
        return
    found = measure()
    assert found["bad"] == "the agent ended by SIGSEGV"
    assert [len(found[name]) for name in ("good", "other")] == [2, 2]
