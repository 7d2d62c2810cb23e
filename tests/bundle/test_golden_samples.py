"""Golden samples of both kinds are small, and still detect a damaged model or a wrong runtime."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.bundle.golden_samples import make_golden_samples
from edgekit.data.dataset import open_dataset
from edgekit.onnx_graph.io import open_session
from edgekit_agent.measure.health import check_health
from edgekit_agent.worker_jobs import HealthJob, ModelRef
from tests.builders.separable import network, weights
from tests.builders.tiny import model

SIDE = 96


@pytest.fixture
def images(tmp_path):
    """Return smooth images with an edge, all different."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    waves = [
        np.sin(a * x + b * y + c) + 0.1 * rng.normal(size=(SIDE, SIDE)) + (x > d)
        for a, b, c, d in rng.uniform(0, 6, size=(36, 4)) / [1, 1, 1, 6]
    ]
    values = np.stack(waves).reshape(12, 3, SIDE, SIDE).astype(np.float32)
    np.savez(tmp_path / "calib.npz", x=values)
    return model(tmp_path, network(3, SIDE), weights=weights(3))


def make_samples(
    source, tmp_path, data="calib.npz", runtime="onnxruntime", kind="calibration", seed=0
):
    split = open_dataset(
        data, source.signature, folder=tmp_path, cache=tmp_path / "cache", targets="none"
    )
    (tmp_path / "cache").mkdir(exist_ok=True)
    data = make_golden_samples(
        source.path, runtime, 1, split=split, model_bytes=source.bytes, kind=kind, seed=seed
    ).data
    (tmp_path / "golden.npz").write_bytes(data)
    return data, dict(np.load(BytesIO(data)))


def health(path, tmp_path, runtime="onnxruntime"):
    job = HealthJob(ModelRef(str(path), runtime), str(tmp_path / "golden.npz"), 0.1)
    return check_health(job, lambda *_: None)


def with_weights(proto, name, values, tmp_path):
    """Return the model with another value of a stored tensor."""
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    place = next(t for t in other.graph.initializer if t.name == name)
    place.CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(other, tmp_path / "damaged.onnx")
    return tmp_path / "damaged.onnx"


@pytest.mark.parametrize("kind", ["synthetic", "calibration"])
def test_golden_samples_of_images_take_about_a_kilobyte_and_the_model_repeats_them(
    images, tmp_path, kind
):
    data, arrays = make_samples(images, tmp_path, kind=kind)

    assert len(data) < 1300
    assert arrays["input:x"].shape == (2, 3, SIDE, SIDE)
    assert health(images.path, tmp_path).relative_error < 1e-3


@pytest.mark.parametrize("kind", ["synthetic", "calibration"])
def test_damage_is_detected_as_well_as_by_real_samples(images, tmp_path, kind):
    make_samples(images, tmp_path, kind=kind)
    proto = onnx.load(str(images.path))
    real = {"x": np.load(tmp_path / "calib.npz")["x"]}
    (before,) = open_session(images.path).run(None, real)
    rng = np.random.default_rng(0)
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        for damaged in (rng.permutation(values.ravel()).reshape(values.shape), -values, values * 0):
            path = with_weights(proto, tensor.name, damaged, tmp_path)
            (after,) = open_session(path).run(None, real)
            seen = np.sqrt(np.mean((after - before) ** 2) / np.mean(before**2))
            found = health(path, tmp_path)
            assert found.relative_error > 0.4 * seen, tensor.name
            assert found.healthy is (found.relative_error <= 0.1)


@pytest.mark.parametrize("kind", ["synthetic", "calibration"])
def test_an_operator_that_a_runtime_computes_differently_is_detected(images, tmp_path, kind):
    make_samples(images, tmp_path, kind=kind)
    proto = onnx.load(str(images.path))
    for node in proto.graph.node:
        if node.op_type == "Relu":
            node.op_type = "HardSigmoid"
            break
    onnx.save(proto, tmp_path / "other.onnx")
    assert not health(tmp_path / "other.onnx", tmp_path).healthy


@pytest.mark.parametrize("kind", ["synthetic", "calibration"])
def test_a_large_output_is_compared_at_some_places_of_every_part(tmp_path, kind):
    source = model(
        tmp_path,
        "g (float[N,3,64,64] x) => (float[N,8,64,64] y) { y = Conv<pads = [1,1,1,1]>(x, w) }",
        weights={"w": np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float32)},
    )
    x = np.random.default_rng(1).normal(size=(9, 3, 64, 64)).astype(np.float32)
    np.savez(tmp_path / "calib.npz", x=x)
    data, arrays = make_samples(source, tmp_path, kind=kind)

    assert len(data) < 2000
    assert arrays["picked:y"].shape == (2, 128)
    assert arrays["picked:y"].flags.c_contiguous, "readable as samples, which bench does"
    assert health(source.path, tmp_path).healthy
    proto = onnx.load(str(source.path))
    values = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    values[3] *= -1
    found = health(with_weights(proto, "w", values, tmp_path), tmp_path)
    assert not found.healthy
    assert found.relative_error > 0.1


def test_numbers_beyond_16_bits_and_integers_are_kept_exactly(tmp_path):
    source = model(
        tmp_path,
        "g (float[N,4] x, int64[N,5] i) => (float[N,4] y) "
        "{ s = ReduceSum(i, axes) f = Cast<to = 1>(s) y = Add(x, f) }",
        weights={"axes": np.array([1])},
    )
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 4)).astype(np.float32) * 1e9
    i = rng.integers(0, 60_000, size=(6, 5))
    np.savez(tmp_path / "calib.npz", x=x, i=i)
    _, arrays = make_samples(source, tmp_path)

    assert arrays["input:x"].dtype == np.float32
    assert all(any(np.array_equal(row, known) for known in i) for row in arrays["input:i"])
    assert health(source.path, tmp_path).relative_error < 1e-6


def test_samples_that_rounding_would_make_invalid_are_kept_exactly(tmp_path):
    text = (
        "g (float[N,2048] x) => (float[N,1] y) "
        "{ d = Sub(x, k) l = Log(d) y = ReduceMean<axes = [1]>(l) }"
    )
    low = np.linspace(0, 5, 2048).astype(np.float32)
    source = model(tmp_path, text, weights={"k": low[None]})
    x = low + np.random.default_rng(0).uniform(0.01, 0.02, size=(5, 2048)).astype(np.float32)
    np.savez(tmp_path / "calib.npz", x=x)
    _, arrays = make_samples(source, tmp_path)

    assert np.isfinite(arrays["output:y"]).all()


def test_the_two_samples_that_are_kept_are_those_whose_outputs_differ_most(tmp_path):
    source = model(tmp_path, "g (float[N,1] x) => (float[N,1] y) { y = Tanh(x) }")
    np.savez(tmp_path / "calib.npz", x=np.array([[0.5], [0.6], [-0.7], [0.9], [0.55]], np.float32))
    _, arrays = make_samples(source, tmp_path)

    assert arrays["input:x"].ravel() == pytest.approx([-0.7, 0.9], rel=1e-3)
