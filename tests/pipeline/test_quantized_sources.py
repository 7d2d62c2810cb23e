"""Models that are already quantized, and candidates that the profile does not allow."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.cli.render.build import encode_build, format_build
from edgekit.pipeline.build import build
from edgekit.pipeline.request import Request
from tests.builders.projects import PROFILE, ROOT
from tests.builders.tiny import apply, model, normal, run, samples, uniform

TEXT = "g (float[N,16] x) => (float[N,4] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }"
WEIGHTS = {"w": normal(16, 40), "v": normal(40, 4, seed=1)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def build_of(source, folder, device=PROFILE):
    x = uniform(40, 16)
    np.savez(folder / "calib.npz", x=uniform(40, 16, seed=9))
    np.savez(folder / "eval.npz", x=x, label=run(source, x=x)[0].argmax(1))
    request = Request(
        folder=folder,
        model=source.path,
        device=str(device),
        data="calib.npz",
        evaluation="eval.npz",
        max_drop_points=50,
        runtime="onnxruntime",
    )
    return build(request, lambda *_: None)


@pytest.mark.parametrize("step", ["quantize-static", "quantize-dynamic"])
def test_a_quantized_model_is_measured_and_packed_as_it_is_and_one_note_says_so(folder, step):
    float_model = model(folder, TEXT, weights=WEIGHTS)
    source = apply(step, float_model, folder, samples(folder, x=uniform(40, 16)))

    outcome = build_of(source, folder)

    assert outcome.found.chosen is outcome.found.baseline
    assert outcome.manifest.file("model.onnx").digest == source.digest
    notes = encode_build(outcome)["notes"]
    assert len([note for note in notes if "already quantized" in note]) == 1
    assert format_build(outcome).count("already quantized") == 1


def test_a_candidate_with_an_operator_that_the_profile_forbids_is_rejected(folder):
    text = (ROOT / "device_profiles" / f"{PROFILE}.toml").read_text()
    start = text.index("[runtimes.onnxruntime]") + len("[runtimes.onnxruntime]")
    text = text[:start] + '\nforbidden = ["MatMulInteger"]' + text[start:]
    (folder / "mine.toml").write_text(text.replace(f'"{PROFILE}"', '"mine"'))

    outcome = build_of(model(folder, TEXT, weights=WEIGHTS), folder, folder / "mine.toml")

    said = {r.recipe.name: r.reason for r in outcome.found.rejected}
    assert "MatMulInteger" in said["int8-dynamic"]
    assert outcome.found.chosen is not None
