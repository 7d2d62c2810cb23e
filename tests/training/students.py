"""Small models of several kinds, compressed in several ways, to learn again."""

import numpy as np
import onnx

from tests.builders import tiny

TEXTS = {
    "images": """
        g (float[N,3,12,12] x) => (float[N,5] y) {
            a = Conv <pads=[1,1,1,1]> (x, w1, b1)  r = Relu (a)
            c = Conv <pads=[1,1,1,1], group=16> (r, w2, b2)  s = Relu (c)
            d = Conv (s, w3, b3)  t = Add (d, a)
            p = GlobalAveragePool (t)  f = Flatten (p)
            m = MatMul (f, w4)  y = Add (m, b4)
        }""",
    "branches": """
        g (float[N,8,12,12] x) => (float[N,5] y) {
            a = Conv <pads=[1,1,1,1]> (x, w1)  r = Relu (a)
            p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r)
            c = Conv <strides=[2,2]> (r, w2)  s = Relu (c)
            j = Concat <axis=1> (p, s)
            d = Conv (j, w3)  t = Add (d, p)
            q = GlobalAveragePool (t)  f = Flatten (q)
            y = MatMul (f, w4)
        }""",
    "tokens": """
        g (int64[N,6] x) => (float[N,6,96] y) {
            e = Gather <axis=0> (table, x)
            h = MatMul (e, w)  k = Add (h, b)  r = Relu (k)
            back = Transpose <perm=[1,0]> (table)
            y = MatMul (r, back)
        }""",
    "sequences": """
        g (float[N,7,12] x) => (float[N,6] y) {
            t = Transpose <perm=[1,0,2]> (x)
            h, last = LSTM <hidden_size=24, direction="bidirectional"> (t, w, r, b)
            l = Transpose <perm=[1,0,2]> (last)  f = Flatten (l)
            y = Gemm <transB=1> (f, v, c)
        }""",
}
WEIGHTS = {
    "images": {
        "w1": tiny.normal(16, 3, 3, 3, seed=1, scale=0.3),
        "b1": tiny.normal(16, seed=2, scale=0.2),
        "w2": tiny.normal(16, 1, 3, 3, seed=3, scale=0.3),
        "b2": tiny.normal(16, seed=4, scale=0.2),
        "w3": tiny.normal(16, 16, 1, 1, seed=5, scale=0.3),
        "b3": tiny.normal(16, seed=6, scale=0.2),
        "w4": tiny.normal(16, 5, seed=7),
        "b4": tiny.normal(5, seed=8),
    },
    "branches": {
        "w1": tiny.normal(16, 8, 3, 3, seed=1, scale=0.3),
        "w2": tiny.normal(16, 16, 1, 1, seed=3, scale=0.3),
        "w3": tiny.normal(16, 32, 1, 1, seed=5, scale=0.3),
        "w4": tiny.normal(16, 5, seed=7),
    },
    "tokens": {
        "table": tiny.normal(96, 48, seed=1),
        "w": tiny.normal(48, 48, seed=2, scale=0.2),
        "b": tiny.normal(48, seed=3, scale=0.2),
    },
    "sequences": {
        "w": tiny.normal(2, 96, 12, seed=1, scale=0.3),
        "r": tiny.normal(2, 96, 24, seed=2, scale=0.2),
        "b": tiny.normal(2, 192, seed=3, scale=0.1),
        "v": tiny.normal(6, 48, seed=4, scale=0.3),
        "c": tiny.normal(6, seed=5),
    },
}
INPUTS = {
    "images": tiny.normal(24, 3, 12, 12, seed=9),
    "branches": tiny.normal(24, 8, 12, 12, seed=9),
    "tokens": np.random.default_rng(9).integers(0, 96, (24, 6)),
    "sequences": tiny.normal(24, 7, 12, seed=9),
}
FEW = ("quantize-weights", {"bits": 3.0, "allocation": "uniform", "max_samples": 16})
STATIC = ("quantize-static", {"max_samples": 16, "float_layers": "none"})
RECIPES = {
    "few": [FEW],
    "static": [STATIC],
    "few-static": [FEW, STATIC],
    "dynamic": [("quantize-dynamic", {})],
    "half": [("float16", {})],
}


def make_student(folder, kind, recipe):
    """Compress a model of one kind, and return the file as a graph."""
    data = tiny.samples(folder, x=INPUTS[kind])
    model = tiny.model(folder, TEXTS[kind], weights=WEIGHTS[kind])
    for name, settings in RECIPES[recipe]:
        model = tiny.apply(name, model, folder, data, **settings)
    return onnx.load(model.path)


def disturb(function):
    """Change every learned tensor by some of its size, as steps of learning do."""
    draw = np.random.default_rng(1)
    for variable in function.variables_by_name.values():
        value = variable.numpy()
        size = np.sqrt(np.square(value).mean())
        variable.assign_add(draw.normal(0, 0.1 * size, value.shape).astype(np.float32))
    for variable in function.scales_by_name.values():
        variable.assign(variable * draw.uniform(0.85, 1.15, variable.shape).astype(np.float32))
