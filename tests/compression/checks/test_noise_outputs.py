"""Outputs of rounding errors are noted, and do not reject a correct result."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

from edgekit.compression.checks.exactness import find_noise_outputs
from edgekit.compression.to_tflite import to_tflite
from edgekit.errors import PassError
from tests.builders.tiny import apply, model, samples, uniform, write

# m is zero but for rounding: the mean of values whose mean was subtracted.
CENTERED = (
    "g (float[1,64] x) => (float[1,64] c, float[1] m) { a = ReduceMean<axes = [1]>(x) "
    "c = Sub(x, a) m = ReduceMean<axes = [1], keepdims = 0>(c) }"
)
SMALL = "g (float[1,64] x) => (float[1,64] y) { y = Mul(x, k) }"


def test_an_output_of_rounding_alone_does_not_reject_the_file(tmp_path):
    data = samples(tmp_path, x=uniform(16, 64) + 3)
    made = apply("to-tflite", model(tmp_path, CENTERED), tmp_path, data)
    assert [t.name for t in made.signature.outputs] == ["c", "m"]


def test_rounding_outputs_are_found_by_perturbed_inputs(tmp_path):
    source, data = model(tmp_path, CENTERED), samples(tmp_path, x=uniform(4, 64) + 3)
    errors = {"c": 0.5, "m": 0.5}
    assert find_noise_outputs(source, data, errors, seed=0) == {"m"}


def test_an_output_with_jumps_is_not_a_rounding_output(tmp_path):
    text = "g (float[1,64] x) => (float[1,64] y) { y = Round(x) }"
    near_ties = np.where(np.arange(64) % 4 == 0, 0.5, 1.25).astype(np.float32)
    data = samples(tmp_path, x=np.tile(near_ties, (4, 1)))
    assert not find_noise_outputs(model(tmp_path, text), data, {"y": 1.0}, seed=0)


def test_a_small_wrong_output_is_not_a_rounding_output(tmp_path, monkeypatch):
    source = model(tmp_path, SMALL, weights={"k": np.float32(1e-9)})
    data = samples(tmp_path, x=uniform(4, 64))

    def doubled(given, settings, place):
        proto = onnx.load(given.path)
        proto.graph.initializer[0].CopyFrom(
            helper.make_tensor("k", onnx.TensorProto.FLOAT, [], [2e-9])
        )
        return to_tflite(write(tmp_path, proto), settings, place)

    monkeypatch.setattr("edgekit.compression.to_tflite.to_tflite", doubled)
    with pytest.raises(
        PassError, match=r"output y differs from the original's by 1 \(relative RMS\)"
    ):
        apply("to-tflite", source, tmp_path, data)
