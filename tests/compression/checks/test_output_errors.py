"""Outputs are judged part by part, and a refinement must improve more than the noise."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compression.checks.output_errors import FloatOutputs, OutputErrors
from edgekit.compression.quantization.affine import compute_unsigned_affine
from edgekit.compression.quantization.calibration.trial_models import Version, write_version
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.output_parts import find_output_parts, find_output_values
from edgekit.onnx_graph.qdq_placement import plan_placement
from tests.builders.tiny import normal, proto, samples

HEAD = """
g (float[N,8] x) => (float[N,12] y) {
  box = MatMul(x, a)
  logit = MatMul(x, b)
  score = Sigmoid(logit)
  joined = Concat<axis = 1>(box, score)
  t = Transpose<perm = [0,1]>(joined)
  scaled = Mul(t, stride)
  y = Add(scaled, grid)
}
"""
WEIGHTS = {"a": normal(8, 4), "b": normal(8, 8, seed=1), "stride": np.float32([8]),
           "grid": normal(12, seed=2)}  # fmt: skip


def test_a_final_softmax_is_judged_by_its_input():
    made = proto(
        "g (float[N,8] x) => (float[N,8] y, float[N,8] z) { h = MatMul(x, w) y = Softmax(h) "
        "z = MatMul(x, w) }",
        weights={"w": normal(8, 8)},
    )

    assert find_output_parts(made) == ["h", "z"]


def test_concatenated_outputs_are_judged_part_by_part():
    assert find_output_parts(proto(HEAD, weights=WEIGHTS)) == ["box", "logit"]


def test_an_8_bit_version_has_the_same_parts(tmp_path):
    text = HEAD.replace("box = MatMul(x, a)", "h = MatMul(x, a) box = MatMul(h, c)")
    made = proto(text, weights=WEIGHTS | {"c": normal(4, 4, seed=3)})
    index = GraphIndex(made)
    parameters = {name: compute_unsigned_affine(-8, 8) for name in plan_placement(index).values}

    after = write_version(index, Version(parameters=parameters), 127)

    assert len(find_output_parts(after)) == len(find_output_parts(made)) == 2


def test_the_bias_of_a_layer_belongs_to_the_judged_value():
    made = proto(
        "g (float[N,8] x) => (float[N,4] y) { m = MatMul(x, w) y = Add(m, b) }",
        weights={"w": normal(8, 4), "b": normal(4)},
    )
    assert find_output_parts(made) == ["y"]


def test_an_output_that_is_an_input_is_still_judged():
    made = proto("g (float[N,8] x) => (float[N,8] y) { y = Identity(x) }")
    assert find_output_parts(made) == ["y"]


def test_judged_values_end_at_an_activation_function():
    found = find_output_values(proto(HEAD, weights=WEIGHTS))
    assert {"y", "scaled", "joined", "box", "score"} <= found
    assert "logit" not in found


def test_a_small_part_counts_as_much_as_a_large_one(tmp_path):
    made = proto(HEAD, weights=WEIGHTS | {"a": 1000 * WEIGHTS["a"]})
    other = proto(HEAD, weights=WEIGHTS | {"a": 1000 * WEIGHTS["a"], "b": 1.5 * WEIGHTS["b"]})
    path = tmp_path / "other.onnx"
    judged = find_output_parts(other)
    for name in judged:
        other.graph.output.add(name=name)
    path.write_bytes(other.SerializeToString())

    data = [samples(tmp_path, x=normal(8, 8))]
    found = FloatOutputs(GraphIndex(made), data, tmp_path).errors(path, judged)

    assert found.total == pytest.approx(0.25 / 2, rel=1e-4)


def errors(per_sample):
    table = np.array(per_sample, np.float64)[:, None]
    return OutputErrors(error=table, size=np.ones_like(table))


def test_a_gain_within_the_noise_does_not_count():
    rng = np.random.default_rng(0)
    before = np.exp(rng.normal(0, 0.3, 16))
    noisy = before * np.exp(rng.normal(-0.05, 0.8, 16))
    surely = before * np.exp(rng.normal(-0.3, 0.1, 16))

    assert errors(surely).beats(errors(before))
    assert not errors(noisy).beats(errors(before))
    assert not errors(before).beats(errors(before))
    assert not errors(surely).beats(errors(before), by=0.9)


def test_one_sample_with_a_large_gain_does_not_decide_for_all():
    before = np.ones(16)
    after = 1.05 * before
    after[3] = 0.01
    before[3] = 8
    assert errors(after).total < errors(before).total
    assert not errors(after).beats(errors(before))


def test_a_gain_of_accurate_outputs_only_does_not_count():
    rng = np.random.default_rng(0)
    noise = np.exp(rng.normal(0, 0.2, (16, 3)))
    # Three outputs; the second is furthest off.
    before = OutputErrors(error=noise * [2.0, 3.0, 2.0], size=np.ones((16, 3)))
    others = OutputErrors(error=before.error * [0.5, 1.01, 0.5], size=before.size)
    worst = OutputErrors(error=before.error * [1.0, 0.5, 1.0], size=before.size)
    assert others.total < 0.75 * before.total
    assert not others.beats(before)
    assert worst.beats(before)


def test_the_error_of_the_worst_part_is_relative_to_its_size():
    found = OutputErrors(error=np.array([[8.0, 1.0, 0.0]]), size=np.array([[100.0, 2.0, 0.0]]))
    assert found.by_part == pytest.approx([0.08, 0.5, 0.0])
