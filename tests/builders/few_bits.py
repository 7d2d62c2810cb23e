"""Models and checks for tests of few-bit weights."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from tests.builders.separable import network, weights
from tests.builders.tiny import (
    model,
    normal,
    samples,
    uniform,
)

NETWORK, WEIGHTS = network(3, 12), weights(3)


def integers(made):
    """Return the int8 initializers of a file, in its order."""
    graph = onnx.load(str(made.path)).graph
    arrays = map(numpy_helper.to_array, graph.initializer)
    return [a for a in arrays if a.dtype == np.int8 and a.ndim > 1]


FIXED = {"grid": "fixed", "allocation": "uniform"}


def two_matrices(folder):
    """Build a model that consists mostly of two weights."""
    text = "g (float[N,128] x) => (float[N,64] y) { h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }"
    rng = np.random.default_rng(0)
    weights = {"a": rng.laplace(size=(128, 256)), "b": rng.laplace(size=(256, 64))}
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    return model(folder, text, weights=weights), samples(folder, x=uniform(64, 128))


def draw_lopsided():
    """Build a graph whose first matrix matters much more than the second."""
    text = (
        "g (float[N,32] x) => (float[N,8] y) "
        "{ a = MatMul(x, loud) h = MatMul(x, quiet) s = Add(a, h) y = MatMul(s, last) }"
    )
    return text, {
        "loud": normal(32, 64, scale=1.0),
        "quiet": normal(32, 64, scale=0.02, seed=1),
        "last": normal(64, 8, seed=2),
    }
