"""Builds for two runtimes: candidates, choice, bundle and push."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

from edgekit.bundle.bundle_file import open_bundle
from tests.builders.if_branches import model_by_rate
from tests.builders.projects import PROFILE, assert_refused, edgekit, spawn, write_tiny

TIE = 1.03


@pytest.fixture(scope="module")
def both(shared_cache, tmp_path_factory):
    """A project built for both runtimes, and the output of the command."""
    project = write_tiny(tmp_path_factory.mktemp("both") / "tiny", samples=300)
    done = spawn("build", "-C", project, "--runtime", "auto", "--json", EDGEKIT_CACHE=shared_cache)
    assert done.code == 0, done.err
    return project, json.loads(done.out)


def test_candidates_of_both_runtimes_are_timed_in_one_run_and_say_which_is_theirs(both):
    candidates = {c["name"]: c for c in both[1]["candidates"]}
    assert {n: c["runtime"] for n, c in candidates.items()} == {
        "original": "onnxruntime",
        "int8-static": "onnxruntime",
        "int8-dynamic": "onnxruntime",
        "original-tflite": "litert",
        "int8-static-tflite": "litert",
    }
    for candidate in candidates.values():
        measured = candidate["measurements"][0]
        assert measured["runtime"] == candidate["runtime"]
        assert measured["latency"]["quiet_p50_ms"] > 0
        assert measured["n"] == 300


def test_the_fastest_that_passes_is_chosen_whatever_its_runtime(both):
    times = {
        c["name"]: c["measurements"][0]["latency"]["quiet_p50_ms"]
        for c in both[1]["candidates"]
        if c["passes"]
    }
    assert times[both[1]["chosen"]] <= TIE * min(times.values())


def test_those_far_behind_are_timed_in_fewer_processes_and_the_original_in_all(both):
    processes = {
        c["name"]: c["measurements"][0]["latency"]["processes"] for c in both[1]["candidates"]
    }
    assert processes["original"] == 5
    assert processes[both[1]["chosen"]] == 5
    assert set(processes.values()) <= {2, 3, 4, 5}


def test_a_device_measures_both_formats_and_the_fastest_that_passes_is_chosen(
    both, shared_cache, tmp_path
):
    done = spawn(
        "build", "-C", both[0], "--runtime", "auto", "--on", "local",
        "--out", tmp_path / "there", "--json",
        EDGEKIT_CACHE=shared_cache, EDGEKIT_HOME=tmp_path / "home",
    )  # fmt: skip
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    there = {c["name"]: c["measurements"][1] for c in facts["candidates"]}
    assert {m["source"] for m in there.values()} == {"device:local"}
    assert {m["runtime"] for m in there.values()} == {"onnxruntime", "litert"}
    passing = {c["name"] for c in facts["candidates"] if c["passes"]}
    times = {n: m["latency"]["quiet_p50_ms"] for n, m in there.items() if n in passing}
    assert times[facts["chosen"]] <= TIE * min(times.values())


def test_the_bundle_says_which_runtime_the_chosen_file_is_for(both):
    project, facts = both
    bundle = open_bundle(project / "build" / PROFILE)
    chosen = next(c for c in facts["candidates"] if c["name"] == facts["chosen"])
    assert bundle.manifest.runtime.name == chosen["runtime"]
    assert bundle.manifest.model == f"model.{chosen['format']}"
    page = (project / "build" / PROFILE / "report.html").read_text()
    assert "Comparison of the runtimes" in page


def test_the_terminal_shows_both_formats_of_a_recipe_in_one_line(both, monkeypatch, shared_cache):
    monkeypatch.setenv("EDGEKIT_CACHE", str(shared_cache))
    said = edgekit("build", "-C", both[0], "--runtime", "auto").out
    lines = {line.split()[0]: line.split() for line in said.splitlines() if line.endswith("x")}
    assert set(lines) == {"original", "int8-static"}
    assert all(len(cells) == 6 for cells in lines.values())


def test_a_device_with_tflite_only_gets_a_converted_onnx_model(workplace):
    project = write_tiny(workplace / "tiny", samples=300)
    how = ("--device", "beaglebone-black", "--runtime", "auto", "--json")
    done = edgekit("build", "-C", project, *how)
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    candidates = {c["name"]: c for c in facts["candidates"]}
    assert candidates["original"]["passes"] is False
    assert "used as reference only" in candidates["original"]["verdict"]["reasons"][0]
    assert {c["runtime"] for n, c in candidates.items() if n != "original"} == {"litert"}
    assert any("tflite-runtime" in note for note in facts["notes"])
    bundle = open_bundle(project / "build" / "beaglebone-black")
    assert (bundle.manifest.model, bundle.manifest.runtime.name) == ("model.tflite", "litert")
    assert bundle.manifest.inputs[0].shape == (1, 4)


def test_a_tflite_bundle_is_pushed_checked_and_served(workplace):
    project = write_tiny(workplace / "tiny", samples=300)
    steps = ("--step", "clean", "--step", "quantize-static", "--step", "to-tflite")
    done = edgekit("build", "-C", project, "--runtime", "litert", *steps, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["chosen"] == "clean+quantize-static+to-tflite"
    pushed = edgekit("push", project / "build" / PROFILE, "local", "--json")
    assert pushed.code == 0, pushed.err
    (report,) = json.loads(pushed.out)
    assert report["runtime"].startswith("litert")
    assert report["health"]["healthy"]


def test_a_tflite_model_is_compressed_as_an_onnx_model_is(workplace):
    project = write_tiny(workplace / "tiny", samples=300)
    lite = workplace / "model.tflite"
    assert edgekit("apply", "to-tflite", project / "model.onnx", "-o", lite).code == 0
    done = edgekit("build", lite, "-C", project, "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    runtimes = {c["name"]: c["runtime"] for c in facts["candidates"]}
    assert runtimes.pop("original") == "litert"
    assert set(runtimes.values()) == {"onnxruntime"}
    assert {"original-onnx", "int8-static"} <= set(runtimes)
    assert facts["chosen"] in runtimes


def test_a_file_is_converted_by_hand_and_back(tiny):
    there = edgekit("apply", "to-tflite", "-C", tiny, "model.onnx", "-o", "m.tflite", "--json")
    assert there.code == 0, there.err
    assert json.loads(there.out)["relative_error"] < 1e-5
    back = edgekit("apply", "to-onnx", "-C", tiny, "m.tflite", "-o", "back.onnx", "--json")
    assert back.code == 0, back.err
    x = np.load(tiny / "eval.npz")["x"][:1]
    answers = [
        onnxruntime.InferenceSession(tiny / name).run(None, {"x": x})[0]
        for name in ("model.onnx", "back.onnx")
    ]
    np.testing.assert_allclose(*answers, rtol=1e-5, atol=1e-6)


def test_a_recipe_that_ends_in_a_file_the_device_does_not_run_is_refused(tiny):
    how = ("--device", "beaglebone-black", "--runtime", "auto", "--step", "quantize-static")
    assert_refused("build", "-C", tiny, *how, says="edgekit apply to-tflite")
    assert_refused("build", "-C", tiny, "--step", "to-tflite", says="onnxruntime does not run")


def test_a_build_with_another_constant_makes_another_tflite_file(workplace):
    project = write_tiny(workplace / "tiny", samples=300)
    onnx.save(model_by_rate(), project / "model.onnx")
    # The labels are those of another model: without them the original's outputs count.
    np.savez(project / "eval.npz", x=np.load(project / "eval.npz")["x"])
    settings = (project / "edgekit.toml").read_text()
    for rate in (16000, 8000):
        constant = f"\n[model.inputs.sr]\nconstant = {rate}\n"
        (project / "edgekit.toml").write_text(settings + constant)
        done = edgekit(
            "build", "-C", project, "--runtime", "litert", "--step", "to-tflite", "--json"
        )
        assert done.code in (0, 3), done.err
        (candidate,) = (c for c in json.loads(done.out)["candidates"] if c["name"] == "to-tflite")
        assert any(f"input sr is fixed to {rate}" in note for note in candidate["notes"])
        assert not candidate["verdict"]["reasons"], candidate["verdict"]
