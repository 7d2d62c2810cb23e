"""The prunable parts of a model are listed, and pruned if a budget requires it."""

from __future__ import annotations

import json
import re

import numpy as np

from edgekit.bundle.bundle_file import open_bundle
from tests.builders.projects import edgekit
from tests.builders.tiny import model, normal

PROFILE = "tablet-x86"


def test_what_can_be_pruned_is_in_the_text_and_in_json(digits):
    told = edgekit("inspect", "model.onnx", "-C", digits, "--prunable")
    facts = json.loads(edgekit("inspect", "model.onnx", "-C", digits, "--prunable", "--json").out)

    found = facts["prunable"]
    assert told.code == 0
    assert found["refused"] == ""
    assert all(part["name"] in told.out for part in found["parts"])
    assert {part["kind"] for part in found["parts"]} <= {"channels", "heads", "neurons"}
    assert f"{found['macs']:,} MACs" in told.out
    assert re.search(r"Pruning can remove at most \d\d\.\d % of them", told.out)
    assert found["macs"] == facts["cost"]["macs"] > found["least_macs"] > 0
    assert found["fixed"][0]["reason"] in told.out


def test_prunable_parts_are_shown_only_on_request(digits):
    plain = edgekit("inspect", "model.onnx", "-C", digits)

    assert "pruned" not in plain.out
    assert (
        json.loads(edgekit("inspect", "model.onnx", "-C", digits, "--json").out)["prunable"] is None
    )


def test_a_model_that_cannot_be_pruned_is_inspected_with_the_reason(workplace):
    source = model(
        workplace,
        "g (float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }",
        weights={"w": normal(4, 3)},
    )
    done = edgekit("inspect", source.path, "--prunable")

    assert (done.code, done.out.splitlines()[-1]) == (
        0,
        "nothing can be pruned: y: they are tied to the output y",
    )


def test_apply_reports_the_removed_macs(workplace):
    write_fat(workplace / "fat")
    ask = ("apply", "prune-channels", "-C", "fat", "model.onnx", "-o", "o.onnx")

    done = edgekit(*ask, "--set", "remove=0.5")
    before, after = json.loads(edgekit(*ask, "--set", "remove=0.5", "--json").out)["macs"]

    assert done.code == 0, done.err
    assert f"MACs {before:,} -> {after:,} (-" in done.out
    assert before == 64 * 256 + 256 * 10
    assert 0.45 * before < after <= 0.5 * before
    seen = json.loads(edgekit("inspect", "o.onnx", "-C", "fat", "--json").out)
    assert seen["cost"]["macs"] == after


def write_fat(project):
    """Write a model in which every other neuron has nearly no effect, with labels."""
    live = np.arange(256) % 2 == 0
    weights = {"w": normal(64, 256) * np.where(live, 1, 1e-3), "v": normal(256, 10, seed=1)}
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    project.mkdir()
    model(
        project,
        "g (float[N,64] x) => (float[N,10] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }",
        weights=weights,
    ).path.rename(project / "model.onnx")
    x = normal(400, 64, seed=2)
    answers = (np.maximum(x @ weights["w"], 0) @ weights["v"]).argmax(1)
    np.savez(project / "calib.npz", x=x[:100])
    np.savez(project / "eval.npz", x=x[100:], label=answers[100:])
    (project / "edgekit.toml").write_text(
        '[model]\npath = "model.onnx"\n[data]\ncalibration = "calib.npz"\n'
        'evaluation = "eval.npz"\nmetric = "top1"\n'
    )


def test_a_build_prunes_channels_if_int8_is_too_large(workplace):
    project = workplace / "fat"
    write_fat(project)
    text = edgekit("devices", "show", PROFILE).out
    (project / "tight.toml").write_text(
        re.sub(r"^model_mib *=.*$", "model_mib = 0.013", text, flags=re.MULTILINE)
    )
    done = edgekit(
        "build", "-C", project, "--device", "tight.toml", "--runtime", "onnxruntime",
        "--max-drop", "3", "--json",
    )  # fmt: skip

    facts = json.loads(done.out)
    assert done.code == 0, done.err
    assert re.fullmatch(r"pruned-\d\d-static", facts["chosen"])
    bundle = open_bundle(project / "build" / PROFILE)
    assert "prune-channels" in [step["name"] for step in bundle.manifest.recipe["steps"]]
    assert bundle.manifest.passes
