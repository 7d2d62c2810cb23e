"""Values that are undefined or unbounded appear as valid JSON, and are read back."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.builders.projects import PROFILE, edgekit

HEADER = '<ir_version: 8, opset_import: ["" : 17]> '
COPY = "g (float[1,4] x) => (float[1,4] y) { y = Identity(x) }"
MEAN = "g (float[1,4] x) => (float[1,1] y) { y = ReduceMean<axes=[1]>(x) }"


def refuse(name):
    raise ValueError(f"{name} is not JSON")


def read_json(text):
    return json.loads(text, parse_constant=refuse)


def write_project(folder, text, metric, **arrays):
    onnx.save(onnx.parser.parse_model(HEADER + text), folder / "model.onnx")
    np.savez(folder / "eval.npz", **arrays)
    (folder / "edgekit.toml").write_text(
        f'[model]\npath = "model.onnx"\n[data]\nevaluation = "eval.npz"\nmetric = "{metric}"\n'
        f'[build]\ndevice = "{PROFILE}"\n'
    )


@pytest.mark.parametrize("case", ["a relative margin of zero", "one class alone"])
def test_undefined_values_are_valid_json_and_are_reported(tmp_path, case):
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    if case == "one class alone":
        write_project(tmp_path, MEAN, "auc", x=x, y=np.ones(20, np.int64))
    else:
        write_project(tmp_path, COPY, "mae", x=x, y=x)
    steps = ("--step", "clean", "--step", "to-tflite")

    built = edgekit("build", "-C", tmp_path, *steps, "--json", "--allow-failing")

    assert built.code == 3, built.err
    last = read_json(built.out)["candidates"][-1]["comparison"]
    folder = tmp_path / "build" / PROFILE
    lines = [read_json(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert lines[-1]["comparison"]["metric"] == last["metric"]
    if case == "one class alone":
        assert last["before"] is None
    else:
        assert (last["drop"], last["worst"], last["interval"]) == (None, None, [None, None])
    reported = edgekit("report", folder)
    assert reported.code == 0, reported.err
    page = (folder / "report.html").read_text()
    assert "Infinity" not in page
    assert "NaN" not in page
    assert "inf to inf" not in page
    if (folder / "manifest.json").exists():
        read_json((folder / "manifest.json").read_text())
