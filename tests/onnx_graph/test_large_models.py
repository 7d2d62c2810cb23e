"""Models beyond the size limit of one file, tested with a smaller limit."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest

from edgekit.inspection.summary import inspect
from edgekit.onnx_graph import io as onnx_file
from edgekit.onnx_graph.io import load, read_onnx, save
from edgekit.pipeline.build import build
from edgekit.pipeline.request import Request
from tests.builders.projects import PROFILE
from tests.builders.tiny import apply, normal, proto, run, samples, sqnr_db, uniform

TEXT = (
    "g (float[N,64] x) => (float[N,10] y) "
    "{ a = MatMul(x, w0) b = Relu(a) c = MatMul(b, w1) d = Relu(c) y = MatMul(d, w2) }"
)
WEIGHTS = {"w0": normal(64, 200), "w1": normal(200, 100, seed=1), "w2": normal(100, 10, seed=2)}
LIMIT = 64 << 10  # the float model has 135 KiB of weights, the int8 one 34


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A model over the limit, with its data beside it."""
    monkeypatch.setattr(onnx_file, "MAX_BYTES", LIMIT)
    folder = tmp_path / "user"
    folder.mkdir()
    save(proto(TEXT, weights=WEIGHTS), folder / "model.onnx")
    return read_onnx(folder / "model.onnx")


def plain(folder):
    path = folder / "plain.onnx"
    path.write_bytes(proto(TEXT, weights=WEIGHTS).SerializeToString())
    return read_onnx(path)


def test_a_large_model_is_two_files_that_move_together(large, tmp_path):
    assert [file.name for file in large.beside] == ["model.onnx.data"]
    assert large.path.stat().st_size < 2000
    assert large.bytes > 4 * (64 * 200 + 200 * 100)
    x = uniform(3, 64)
    expected = run(plain(tmp_path), x=x)[0]

    shutil.move(large.path.parent, tmp_path / "elsewhere")

    moved = read_onnx(tmp_path / "elsewhere" / "model.onnx")
    assert moved.digest == large.digest
    np.testing.assert_array_equal(run(moved, x=x)[0], expected)


def test_other_data_are_another_model(large):
    data = bytearray(large.beside[0].read_bytes())
    data[-1] ^= 1
    large.beside[0].write_bytes(data)

    assert read_onnx(large.path).digest != large.digest


def test_a_large_model_is_inspected(large, tmp_path):
    found = inspect(large.path, device=PROFILE, folder=tmp_path)

    assert found.cost.macs == 64 * 200 + 200 * 100 + 100 * 10
    assert found.cost.parameters == found.cost.macs
    assert found.cost.peak_activation_bytes == 4 * 400
    assert found.bytes == large.bytes
    assert found.obstacles == ()


@pytest.mark.parametrize(
    "steps", [["quantize-dynamic"], ["quantize-static"], ["clean", "quantize-static"]]
)
def test_passes_make_one_small_file_of_it(large, tmp_path, steps):
    x = uniform(16, 64)
    made = large
    for step in steps:
        made = apply(step, made, tmp_path, samples(tmp_path, x=x))

    assert not made.beside
    assert made.bytes < 0.3 * large.bytes
    assert sqnr_db(run(large, x=x)[0], run(made, x=x)[0]) > 25


def test_cleaning_leaves_it_in_two_files(large, tmp_path):
    made = apply("clean", large, tmp_path, samples(tmp_path, x=uniform(4, 64)))

    assert made.beside
    x = uniform(3, 64)
    np.testing.assert_allclose(run(made, x=x)[0], run(large, x=x)[0], rtol=1e-5, atol=1e-4)


def test_the_original_is_measured_and_its_int8_candidate_is_packed(large, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    x = uniform(40, 64)
    np.savez(tmp_path / "calib.npz", x=uniform(40, 64, seed=9))
    np.savez(tmp_path / "eval.npz", x=x, label=run(large, x=x)[0].argmax(1))
    request = Request(
        folder=tmp_path,
        model=large.path,
        device=PROFILE,
        data="calib.npz",
        evaluation="eval.npz",
        max_drop_points=50,
    )

    outcome = build(request, lambda *_: None)

    baseline = outcome.found.baseline
    assert baseline.measurements[0].times is not None
    assert baseline.measurements[0].model_bytes == large.bytes
    assert "cannot be packed" in baseline.verdict.reasons[0]
    assert outcome.found.chosen.recipe.name.startswith("int8")
    assert outcome.manifest.file("model.onnx").bytes < LIMIT


def test_what_is_under_the_limit_is_one_file_again(large, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 1 << 31)
    save(load(large.path), tmp_path / "one.onnx")

    assert not read_onnx(tmp_path / "one.onnx").beside
    assert len(onnx.load(str(tmp_path / "one.onnx")).graph.initializer) == 3
