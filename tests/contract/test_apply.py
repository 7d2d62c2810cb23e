"""`edgekit apply` and `edgekit passes`: one pass, checked as in a build."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import onnx
import pytest

from edgekit.bundle.layer_report import LayerCost, write_layers
from edgekit.compression.pass_specs import PASSES, PassSpec
from edgekit.onnx_graph.io import open_session
from edgekit.pass_settings import Clean
from tests.builders.projects import assert_refused, assert_untouched, edgekit, listing
from tests.builders.tiny import model, normal


def test_apply_writes_a_model_and_reports_its_cost(digits):
    with assert_untouched(digits):
        done = edgekit("apply", "quantize-static", "-C", digits, "model.onnx", "-o", "../q.onnx")

    assert done.code == 0, done.err
    assert "371.7 KiB -> " in done.out
    assert "relative output error 0.0" in done.out
    assert "quantize-static: histograms" in done.err
    made = onnx.load(digits.parent / "q.onnx")
    assert any(node.op_type == "QuantizeLinear" for node in made.graph.node)


def test_json_is_one_document_with_every_figure(digits):
    out = digits / "w.onnx"
    settings = ("--set", "weight_bits=8", "--set", "max_samples=16")
    done = edgekit(
        "apply", "quantize-static", digits / "model.onnx", "-o", out, "--json",
        "--data", digits / "calib.npz", *settings,
    )  # fmt: skip

    facts = json.loads(done.out)
    assert facts["pass"] == "quantize-static"
    assert (facts["settings"]["weight_bits"], facts["settings"]["max_samples"]) == (8, 16)
    assert facts["before"]["bytes"] == (digits / "model.onnx").stat().st_size
    assert facts["after"]["bytes"] == out.stat().st_size < facts["before"]["bytes"] / 3
    assert 0 < facts["after"]["transfer_bytes"] <= facts["after"]["bytes"]
    assert 0 < facts["relative_error"] < 0.1
    assert facts["samples"] == 16
    assert facts["seconds"] > 0


def test_an_older_result_is_replaced_and_the_bytes_do_not_depend_on_the_run(tiny):
    first, second = tiny / "a.onnx", tiny / "b.onnx"
    second.write_bytes(b"older")
    for out in (first, second):
        assert edgekit("apply", "quantize-static", "-C", tiny, "model.onnx", "-o", out).code == 0
    assert first.read_bytes() == second.read_bytes()


def test_a_pass_that_finds_nothing_writes_the_same_model_and_says_so(tiny):
    assert edgekit("apply", "clean", "-C", tiny, "model.onnx", "-o", "a.onnx").code == 0
    again = edgekit("apply", "clean", "-C", tiny, "a.onnx", "-o", "b.onnx")

    assert "nothing to change: the output file is identical to the input" in again.out
    assert (tiny / "a.onnx").read_bytes() == (tiny / "b.onnx").read_bytes()


def test_without_samples_a_pass_that_needs_none_runs_and_its_error_is_not_made_up(tiny):
    shutil.copy(tiny / "model.onnx", "alone.onnx")
    done = edgekit("apply", "quantize-dynamic", "alone.onnx", "-o", "made.onnx")

    assert done.code == 0, done.err
    assert "output error not measured: no samples" in done.out
    x = np.ones((1, 4), np.float32)
    assert np.isfinite(open_session("made.onnx").run(None, {"x": x})[0]).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["squeeze", "model.onnx", "-o", "o.onnx"], "no pass named 'squeeze'"),
        (
            ["quantize-weights", "model.onnx", "-o", "o.onnx", "--set", "bits=9"],
            "bits: must be a number from 1 to 8",
        ),
        (
            ["quantize-weights", "model.onnx", "-o", "o.onnx", "--set", "bit=4"],
            "bit: unknown setting",
        ),
        (["clean", "model.onnx", "-o", "no/o.onnx"], "no folder no"),
        (["clean", "model.onnx", "-o", "model.onnx"], "the command reads it"),
        (["clean", "model.onnx", "-o", "./../tiny/model.onnx"], "the command reads it"),
        (["clean", "model.onnx", "-o", "hard.onnx"], "the command reads it"),
        (["clean", "model.onnx", "-o", "link.onnx"], "exists and is not a regular file"),
        (["clean", "model.onnx", "-o", "folder"], "exists and is not a regular file"),
        (["clean", "model.onnx", "-o", "pipe"], "exists and is not a regular file"),
        (["clean", "model.onnx", "-o", "calib.npz"], "the command reads it"),
        (["clean", "model.onnx", "-o", "edgekit.toml"], "the command reads it"),
        (["clean", "eval.npz", "-o", "o.onnx"], "eval.npz: not an ONNX model"),
        (["quantize-static", "model.onnx", "-o", "o.onnx", "--data", "no.npz"], "no.npz"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_and_changes_nothing(tiny, arguments, says):
    os.link(tiny / "model.onnx", tiny / "hard.onnx")
    (tiny / "link.onnx").symlink_to("model.onnx")
    (tiny / "folder").mkdir()
    os.mkfifo(tiny.parent / "pipe")
    (tiny.parent / "pipe").rename(tiny / "pipe")
    before = listing(tiny)

    assert_refused("apply", *arguments, "-C", tiny, says=says)

    assert listing(tiny) == before


def test_samples_are_asked_for_where_a_pass_needs_them(tiny):
    shutil.copy(tiny / "model.onnx", "alone.onnx")
    done = assert_refused(
        "apply", "quantize-weights", "alone.onnx", "-o", "o.onnx", says="calibration data"
    )
    assert "--data CALIB" in done.err


def test_a_pass_that_does_not_apply_says_why_and_ends_with_2(tiny):
    assert edgekit("apply", "quantize-static", "-C", tiny, "model.onnx", "-o", "q.onnx").code == 0
    assert_refused(
        "apply", "quantize-static", "-C", tiny, "q.onnx", "-o", "r.onnx", says="already quantized"
    )
    assert not (tiny / "r.onnx").exists()


# ---------------------------------------------------------------- passes of our own


NOTE = "64 -> 48 channels"


def returns_its_input(source, settings, work):
    return source.path


def tells_of_layers(source, settings, work):
    """Change the file, and write a layer report."""
    proto = onnx.load(str(source.path))
    proto.producer_name = "told"
    path = work.scratch / "told.onnx"
    path.write_bytes(proto.SerializeToString())
    how = {"op": "Conv", "parameters": 10, "bits": 2.5, "width": 3, "bytes": 40}
    costs = [
        LayerCost(layer=name, kl=kl, note=note, **how)
        for name, kl, note in (
            ("cheap<b>", 0.001, ""),
            ("dear", 0.25, NOTE),
            ("middling", 0.02, ""),
        )
    ]
    write_layers(work.scratch, costs)
    return path


@pytest.fixture
def table(monkeypatch):
    for name, function in (("idle", returns_its_input), ("telling", tells_of_layers)):
        where = f"{__name__}:{function.__name__}"
        row = PassSpec(settings=Clean, function=where, summary="for a test", version=1)
        monkeypatch.setitem(PASSES, name, row)


def test_a_pass_that_breaks_its_promise_ends_with_1_and_leaves_nothing(tiny, table):
    done = edgekit("apply", "idle", "-C", tiny, "model.onnx", "-o", "o.onnx")

    assert (done.code, done.out) == (1, "")
    assert "edgekit: idle: the output file is identical to the input" in done.err
    assert not (tiny / "o.onnx").exists()


def test_the_costliest_layers_come_first(tiny, table):
    done = edgekit("apply", "telling", "-C", tiny, "model.onnx", "-o", "o.onnx")
    told = edgekit("apply", "telling", "-C", tiny, "model.onnx", "-o", "o.onnx", "--json")

    at = [done.out.index(name) for name in ("dear", "middling", "cheap")]
    assert at == sorted(at)
    assert NOTE in done.out
    layers = {c["layer"]: c["kl"] for c in json.loads(told.out)["layers"]}
    assert layers == {"cheap<b>": 0.001, "dear": 0.25, "middling": 0.02}


def test_what_layers_cost_stays_with_a_candidate_and_is_in_the_report(tiny, table):
    for _ in range(2):  # made, and from the store
        assert edgekit("build", "-C", tiny, "--step", "telling").code == 0
    out = next((tiny / "build").iterdir())

    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    told = [line["layers"] for line in lines if line.get("name") == "telling"]
    assert [[c["layer"] for c in costs] for costs in told] == [["cheap<b>", "dear", "middling"]] * 2
    page = (out / "report.html").read_text()
    section = page.partition("Cost of each layer")[2]
    assert section.index("dear") < section.index("middling") < section.index("cheap&lt;b&gt;")
    assert "cheap<b>" not in page
    assert '<td class="n">92.3</td>' in section, "dear has 0.25 of 0.271 nats"
    assert section.count("64 -&gt; 48 channels") == 1
    assert "Remarks" in section


def test_passes_lists_every_pass_with_what_it_takes():
    facts = json.loads(edgekit("passes", "--json").out)

    assert [f["name"] for f in facts] == list(PASSES)
    text = edgekit("passes").out
    for each in facts:
        assert f"{each['name']}: {each['summary']}" in text
    weights = json.loads(edgekit("passes", "quantize-weights", "--json").out)
    assert weights["needs_calibration"] is True
    bits = next(s for s in weights["settings"] if s["name"] == "bits")
    assert (bits["allowed"], bits["default"]) == ("a number from 1 to 8", 4.0)
    assert "GPTQ" in edgekit("passes", "quantize-weights").out


def test_each_output_has_its_error_and_the_worst_comes_first(tmp_path):
    text = "g (float[N,8] x) => (float[N,8] state, float[N,8] mask) {state = MatMul(x, a) "
    weights = {"a": 1000 * normal(8, 8), "b": normal(8, 8), "c": normal(8, 8), "d": 0 * normal(8)}
    text += "m = MatMul(x, b) r = Relu(m) t = MatMul(r, c) mask = Add(t, d)}"
    source = model(tmp_path, text, weights=weights)
    np.savez(tmp_path / "c.npz", x=normal(80, 8, seed=3))
    given = ("quantize-static", source.path, "--data", tmp_path / "c.npz")

    told = edgekit("apply", *given, "-o", tmp_path / "a.onnx")
    facts = json.loads(edgekit("apply", *given, "-o", tmp_path / "b.onnx", "--json").out)

    errors = facts["relative_errors"]
    assert list(errors) == ["mask", "state"]
    assert facts["relative_error"] == errors["mask"] > errors["state"] > 0
    lines = [line.strip() for line in told.out.splitlines()]
    where = "10 held-out samples"
    at = lines.index(f"relative output error {errors['mask']:.3g} on {where}, largest first:")
    assert lines[at + 1 : at + 3] == [f"{n} {error:.3g}" for n, error in errors.items()]


# "to-onnx" takes another format, and "distil" a teacher.
@pytest.mark.parametrize("name", [n for n in PASSES if n not in ("to-onnx", "distil")])
def test_the_suffix_of_the_output_fits_the_format_of_the_result(tiny, name):
    wrong, right = ("onnx", "tflite") if name == "to-tflite" else ("tflite", "onnx")
    for given in (f"o.{wrong}", "o.bin", "o"):
        with assert_untouched(tiny):
            done = assert_refused(
                "apply", name, tiny / "model.onnx", "-o", tiny / given,
                says=f"{given}: the result is a .{right} file",
            )  # fmt: skip
        assert f"name it o.{right}" in done.err


def test_the_suffix_fits_after_a_conversion_to_onnx(tiny):
    lite = tiny / "m.tflite"
    assert edgekit("apply", "to-tflite", tiny / "model.onnx", "-o", lite).code == 0
    assert_refused("apply", "to-onnx", lite, "-o", tiny / "o.tflite", says="is a .onnx file")
    assert edgekit("apply", "to-onnx", lite, "-o", tiny / "o.ONNX").code == 0
    assert_refused("apply", "clean", lite, "-o", tiny / "o.onnx", says="processes onnx models")
