"""Values that a Relu or Clip cuts off are ignored when a layer is refitted."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from edgekit.compression.reconstruction import reconstruct as refitting
from edgekit.compression.reconstruction.layer_targets import find_refit_tasks
from edgekit.compression.reconstruction.reconstruct import RefitLayer, refit
from edgekit.compression.reconstruction.relu_targets import find_clipped_value
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.progress import ignore_progress
from tests.builders.tiny import normal, proto, samples

# The second layer of the changed model sees fewer inputs than it needs to make all values.
_TEXT = (
    "g (float[N,12] x) => (float[N,8] y) {{ h = MatMul(x, v) s = Add(h, c) a = Gemm(s, w, b) {} }}"
)
_RELU = "y = Relu(a)"
_CLIP = "y = Clip(a, low, high)"
_SUM = "z = MatMul(x, u) t = Add(a, z) y = Relu(t)"
_MORE = {"low": np.float32(-0.5), "high": np.float32(0.5), "u": normal(12, 8, seed=6, scale=0.3)}


def _models(tail):
    weights = {
        "v": normal(12, 12, seed=1, scale=0.4),
        "c": normal(12, seed=2, scale=0.3),
        "w": normal(12, 8, seed=3, scale=0.5),
        "b": normal(8, seed=4, scale=0.3) - np.float32(2.5),  # little comes through
    }
    weights |= {name: value for name, value in _MORE.items() if f", {name}" in tail}
    damaged = dict(weights, v=weights["v"] * (np.arange(12) < 9).astype(np.float32))
    return [proto(_TEXT.format(tail), weights=each) for each in (weights, damaged)]


def _compute(made, x):
    return ort.InferenceSession(made.SerializeToString()).run(None, {"x": x})[0]


@pytest.mark.parametrize("tail", [_RELU, _CLIP, _SUM])
def test_a_layer_before_a_relu_improves_when_it_is_refitted_again(tmp_path, monkeypatch, tail):
    whole, changed = _models(tail)
    learning = [samples(tmp_path, x=normal(200, 12, seed=100 + i)) for i in range(2)]
    others = [samples(tmp_path, x=normal(64, 12, seed=99))]
    x = normal(2000, 12, seed=7)
    errors = []

    for turns in (1, refitting._TURNS):
        monkeypatch.setattr(refitting, "_TURNS", turns)
        made = refit(
            whole,
            changed,
            [RefitLayer(output="a")],
            learning,
            held_out=others,
            tick=ignore_progress,
        )
        errors.append(np.square(_compute(made, x) - _compute(whole, x)).mean())

    assert errors[1] < 0.98 * errors[0]


def test_a_value_with_another_reader_is_fitted_completely():
    tail = "r = Relu(a) y = Add(r, a)"
    whole, changed = _models(tail)
    (task,) = find_refit_tasks(whole, changed, {"a": None})

    assert find_clipped_value(GraphIndex(changed), task, residual=False) is None


def test_stored_bounds_of_a_clip_are_used():
    whole, changed = _models(_CLIP)
    (task,) = find_refit_tasks(whole, changed, {"a": None})
    cutoff = find_clipped_value(GraphIndex(changed), task, residual=False)

    assert (cutoff.value, cutoff.low, cutoff.high) == ("a", -0.5, 0.5)
