"""Samples of different sizes through scoring, calibration, golden samples, timing and a build."""

from __future__ import annotations

import json
from io import BytesIO

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter

from edgekit.bundle.golden_samples import make_golden_samples
from edgekit.conversion.open_model import read_model
from edgekit.data.column_rows import read_column
from edgekit.data.dataset import open_dataset
from edgekit.data.original_outputs import SingleModel, add_original_outputs
from edgekit_agent.measure.accuracy import score
from edgekit_agent.measure.benchmark import bench, select_median_size
from edgekit_agent.measure.health import check_health
from edgekit_agent.metrics.outputs import decode_outputs
from edgekit_agent.metrics.rows import decode_rows
from edgekit_agent.scoring import MetricJob
from edgekit_agent.worker_jobs import BenchJob, HealthJob, ModelRef, ScoreJob
from tests.builders.metrics.ragged_projects import (
    make_ragged_samples,
    run_each,
    write_ragged_project,
)
from tests.builders.projects import PROFILE, edgekit


@pytest.fixture
def project(tmp_path):
    return tmp_path, write_ragged_project(tmp_path)


def open_split(folder, targets="optional", source="eval.npz"):
    source_model = read_model(folder / "model.onnx")
    return open_dataset(
        source, source_model.signature, folder=folder, cache=folder / "cache", targets=targets
    )


def read_rows(folder, samples, metric, start=0):
    ref = ModelRef(str(folder / "model.onnx"), "onnxruntime")
    job = ScoreJob(ref, samples, metric, start=start, metrics=(MetricJob(metric),))
    tally = score(job, lambda *_: None)
    return decode_rows(tally.statistics[0], tally.n)


@pytest.mark.parametrize("start", [0, 50])
def test_the_outputs_are_bit_for_bit_those_of_each_sample_alone(project, start):
    folder, held = project
    expected = run_each(folder / "model.onnx", held.rows)

    rows = read_rows(folder, open_split(folder).samples, "outputs", start)

    assert len(rows) == 120 - start
    for row, wanted in zip(rows, expected[start:], strict=True):
        found = decode_outputs(row)
        assert np.array_equal(found["logits"], wanted[0][0])
        assert np.array_equal(found["frames"], wanted[1][0])


def test_without_labels_outputs_of_each_size_agree_with_the_original(project):
    folder, held = project
    split, model = open_split(folder), read_model(folder / "model.onnx")

    original = SingleModel(model=model)
    found = add_original_outputs(split, original, cache=folder / "cache", tick=lambda *_: None)

    expected = run_each(folder / "model.onnx", held.rows)
    for targets, wanted in zip(found.read_targets(), expected, strict=True):
        assert sorted(targets) == ["frames", "logits"]
        assert np.array_equal(targets["frames"], wanted[1][0])
    (sums,) = {len(row) for row in read_rows(folder, found.samples, "output-rms")}
    assert sums == 4
    assert all(row[0] == row[2] == 0 for row in read_rows(folder, found.samples, "output-rms"))


def test_golden_samples_have_one_size_and_the_device_accepts_them(project):
    folder, _ = project
    model = read_model(folder / "model.onnx")
    split = open_split(folder, "none", "calib.npz")

    made = make_golden_samples(
        model.path, "onnxruntime", 1, split=split, model_bytes=model.bytes
    ).data

    arrays = dict(np.load(BytesIO(made)))
    assert arrays["input:x"].shape == (2, read_column(split.samples.lengths[0])[:8].min(), 6)
    assert np.isfinite(arrays["input:x"]).all()
    (folder / "golden.npz").write_bytes(made)
    job = HealthJob(ModelRef(str(model.path), "onnxruntime"), str(folder / "golden.npz"), 0.01)
    assert check_health(job, lambda *_: None).healthy


def test_samples_of_the_median_size_are_timed(project):
    folder, held = project
    ref = ModelRef(str(folder / "model.onnx"), "onnxruntime")
    job = BenchJob(ref, open_split(folder).samples, seconds=0.05, warmup_s=0.2, max_runs=50)
    inputs = [{"x": row[None]} for row in held.rows[:7]]

    timed = select_median_size(inputs)

    assert {one["x"].shape[1] for one in timed} == {np.median(held.lengths[:7])}
    assert len(bench(job, lambda *_: None).latency.values_ms) >= 20


def test_static_int8_is_calibrated_on_samples_of_each_size(project):
    folder, held = project
    done = edgekit(
        "apply", "quantize-static", "-C", folder, "model.onnx", "-o", folder / "q.onnx", "--json"
    )

    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["samples"] >= 8
    assert facts["relative_error"] < 0.1
    nodes = onnx.load(folder / "q.onnx").graph.node
    assert any(node.op_type == "QuantizeLinear" for node in nodes)
    was, now = (run_each(folder / name, held.rows) for name in ("model.onnx", "q.onnx"))
    same = [a[0].argmax() == b[0].argmax() for a, b in zip(was, now, strict=True)]
    assert np.mean(same) > 0.9


def test_a_build_judges_each_sample_at_its_own_size_and_refuses_tflite_alone(project):
    folder, held = project
    labels = np.load(folder / "eval.npz")["y"]

    built = edgekit("build", "--device", PROFILE, "-C", folder, "--json")

    assert built.code in (0, 3), built.err
    facts = json.loads(built.out)
    for candidate in facts["candidates"]:
        name = candidate["name"]
        assert candidate["runtime"] == "onnxruntime"
        if name != "original":
            continue
        outputs = run_each(folder / "model.onnx", held.rows)
        right = sum(int(out[0].argmax() == y) for out, y in zip(outputs, labels, strict=True))
        assert candidate["measurements"][0]["correct"] == right
    assert len(facts["candidates"]) > 1
    assert facts["rejected"].keys() == {"original-tflite"}
    reason = facts["rejected"]["original-tflite"]
    assert "a .tflite file has fixed sizes, but neither the samples nor --dims give T" in reason


def test_a_size_that_contradicts_the_samples_ends_a_build_with_2(project):
    folder, _ = project

    built = edgekit("build", "--device", PROFILE, "-C", folder, "--dims", "T=40")

    assert built.code == 2
    assert "T = 40 (--dims, or dims in edgekit.toml): in eval.npz, T is from 5 to 40" in built.err


def test_a_wrong_length_ends_a_build_with_2_and_one_line(project):
    folder, held = project
    lengths = held.lengths.copy()
    lengths[7] = 41
    np.savez(folder / "eval.npz", x=held.padded, x_length=lengths)

    built = edgekit("build", "--device", PROFILE, "-C", folder)

    assert built.code == 2
    assert "eval.npz: x_length: 41 of sample 7 must be from 1 to 40, the size of x" in built.err
    assert not (folder / "build" / PROFILE).exists()


def test_litert_runs_each_sample_at_its_own_size_too(tmp_path):
    tf = pytest.importorskip("tensorflow")
    weights = np.random.default_rng(0).normal(0, 0.3, (3, 6, 4)).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec([1, None, 6], tf.float32)])
    def convolve(x):
        return tf.reduce_mean(tf.nn.relu(tf.nn.conv1d(x, weights, 2, "SAME")), 1)

    made = tf.lite.TFLiteConverter.from_concrete_functions([convolve.get_concrete_function()])
    (tmp_path / "model.tflite").write_bytes(made.convert())
    held = make_ragged_samples(24, 2)
    np.savez(tmp_path / "eval.npz", x=held.padded, x_length=held.lengths)
    model = read_model(tmp_path / "model.tflite")
    split = open_dataset(
        "eval.npz", model.signature, folder=tmp_path, cache=tmp_path, targets="optional"
    )

    ref = ModelRef(str(model.path), "litert")
    job = ScoreJob(ref, split.samples, "outputs", metrics=(MetricJob("outputs"),))
    tally = score(job, lambda *_: None)

    found = [decode_outputs(row) for row in decode_rows(tally.statistics[0], tally.n)]
    assert len(found) == 24
    for (output,), row in zip((each.values() for each in found), held.rows, strict=True):
        interpreter = Interpreter(model_path=str(model.path), num_threads=1)
        place = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(place, (1, *row.shape))
        interpreter.allocate_tensors()
        interpreter.set_tensor(place, row[None])
        interpreter.invoke()
        wanted = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        assert np.array_equal(output, wanted[0])


def test_the_samples_of_this_test_differ_in_size():
    lengths = make_ragged_samples(64, 1).lengths
    assert (lengths.min(), lengths.max()) == (5, 40)
    assert len(set(lengths.tolist())) > 20
