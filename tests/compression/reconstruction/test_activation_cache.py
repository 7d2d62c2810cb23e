"""Cached activations of earlier layers give the same result as a complete run."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from edgekit.compression.reconstruction import activation_cache as replay
from edgekit.compression.reconstruction.activation_cache import Replay
from edgekit.onnx_graph.runs.activations import observe
from tests.builders.tiny import normal, proto, samples

# An early value, a mask and one of two outputs of a node are read again at the end.
_TEXT = """g (float[N,4] x, int64[N,4] mask) => (float[N,2] y) {
    early = Tanh (x)  real = Cast <to=1> (mask)
    a = MatMul (early, w1)  b = Relu (a)
    left, right = Split <axis=1> (b, halves)
    c = MatMul (left, w2)  d = Mul (c, right)
    e = MatMul (d, w3)  masked = Where (holds, e, right)  f = Concat <axis=1> (masked, early, real)
    holds = Greater (d, zero)  y = MatMul (f, w4)
}"""


def whole(seed):
    sizes = {"w1": (4, 4), "w2": (2, 2), "w3": (2, 2), "w4": (10, 2)}
    weights = {n: normal(*s, seed=seed + i) for i, (n, s) in enumerate(sizes.items())}
    text = _TEXT.replace("holds = Greater (d, zero)  ", "")
    text = text.replace("e = MatMul", "holds = Greater (d, zero)  e = MatMul")
    return proto(text, weights=weights | {"halves": np.int64([2, 2]), "zero": np.float32(0)})


def data(tmp_path):
    masks = np.random.default_rng(0).integers(0, 2, (5, 4))
    return [samples(tmp_path, x=normal(5, 4), mask=masks)]


@pytest.mark.parametrize("room", [1 << 20, 200, 0])
def test_layers_changed_by_earlier_stages_are_used(tmp_path, monkeypatch, room):
    monkeypatch.setattr(replay, "_MOST_BYTES", room)
    made, parts = whole(1), data(tmp_path)
    runs = Replay(parts)
    stages = [
        (["early"], "a", "w1"),
        (["left", "x"], "c", "w2"),
        (["d"], "e", "w3"),
        (["f"], "y", "w4"),
    ]
    for number, (names, _, weight) in enumerate(stages):
        ahead = stages[number:]
        later = [name for asked, _, _ in ahead[1:] for name in asked]
        unsettled = [output for _, output, _ in ahead]

        seen = list(runs.values(made, names, later=later, unsettled=unsettled))

        for values, wanted in zip(seen, observe(made, names, parts), strict=True):
            for name in names:
                np.testing.assert_allclose(values[name], wanted[name], atol=1e-6)
        tensor = next(t for t in made.graph.initializer if t.name == weight)
        changed = numpy_helper.to_array(tensor) + 1
        tensor.CopyFrom(numpy_helper.from_array(changed, weight))


def test_cached_values_are_not_computed_again(tmp_path):
    made, parts = whole(1), data(tmp_path)
    runs = Replay(parts)
    list(runs.values(made, ["d"], later=["f"], unsettled=["e"]))
    for tensor in made.graph.initializer:  # the front, which the next run leaves out
        if tensor.name in ("w1", "w2"):
            nothing = np.full(tensor.dims, np.nan, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(nothing, tensor.name))

    seen = list(runs.values(made, ["f"], later=[], unsettled=["y"]))

    assert len(seen) == 5
    assert all(np.isfinite(values["f"]).all() for values in seen)
