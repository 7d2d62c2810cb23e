"""Graphs of every kind that users may have: ONNX text, inputs, weights, and a parser."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tests.builders.tiny import normal, uniform

IMAGE = {"x": uniform(8, 3, 8, 8)}
ROWS = {"x": uniform(8, 6)}
CONV = {"w": normal(4, 3, 3, 3), "b": normal(4)}
DENSE = {"w": normal(6, 4), "b": normal(4)}
WHICH = {"which": np.array([True, False] * 4)}
HALVES = (
    "<then_branch = t () => (float[N,4] p) { p = %s }, "
    "else_branch = e () => (float[N,4] q) { q = %s }>"
)
NET = (
    "g (float[N,3,8,8] x) => (float[N,3] y) { h = Conv(x, w, b) r = Relu(h) "
    "p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, v, c) }"
)
NET_WEIGHTS = CONV | {"v": normal(4, 3), "c": normal(3)}


@dataclass(frozen=True)
class Kind:
    """A graph; ``how`` goes to ``tests.builders.tiny.model``."""

    text: str
    inputs: dict
    weights: dict = field(default_factory=dict)
    how: dict = field(default_factory=dict)


def _image(body, weights, outputs="y"):
    return Kind(f"g (float[N,3,8,8] x) => ({outputs}) {{ {body} }}", IMAGE, weights)


def _rows(body, weights, outputs="y"):
    return Kind(f"g (float[N,6] x) => ({outputs}) {{ {body} }}", ROWS, weights)


def _with_if(then, otherwise):
    return Kind(
        "g (float[N,6] x, bool[1] which) => (float[N,4] y) { h = MatMul(x, w) "
        f"k = Squeeze(which) y = If(k){HALVES % (then, otherwise)} }}",
        ROWS | WHICH,
        DENSE,
    )


# Each has something to quantize statically.
QUANTIZABLE = {
    "conv without bias": _image("y = Conv<pads = [1,1,1,1]>(x, w)", {"w": CONV["w"]}),
    "conv 1d": Kind(
        "g (float[N,3,16] x) => (y) { y = Conv(x, w, b) }",
        {"x": uniform(8, 3, 16)},
        {"w": normal(4, 3, 3), "b": normal(4)},
    ),
    "conv 3d": Kind(
        "g (float[N,2,6,6,6] x) => (y) { c = Conv(x, w, b) y = Relu(c) }",
        {"x": uniform(8, 2, 6, 6, 6)},
        {"w": normal(4, 2, 3, 3, 3), "b": normal(4)},
    ),
    "depthwise conv": _image(
        "c = Conv<group = 3>(x, w, b) y = Relu(c)", {"w": normal(3, 1, 3, 3), "b": normal(3)}
    ),
    "grouped and dilated conv": Kind(
        "g (float[N,4,8,8] x) => (y) { y = Conv<group = 2, dilations = [2,2]>(x, w, b) }",
        {"x": uniform(8, 4, 8, 8)},
        {"w": normal(6, 2, 3, 3), "b": normal(6)},
    ),
    "conv and transposed conv": _image(
        "c = Conv(x, w, b) y = ConvTranspose(c, t)", CONV | {"t": normal(4, 2, 2, 2)}
    ),
    "gemm with its weight transposed": _rows(
        "y = Gemm<transB = 1>(x, w, b)", {"w": normal(4, 6), "b": normal(4)}
    ),
    "gemm without bias": _rows("y = Gemm(x, w)", {"w": DENSE["w"]}),
    "matmul of sequences": Kind(
        "g (float[N,5,6] x) => (y) { a = MatMul(x, w) y = Add(a, b) }",
        {"x": uniform(8, 5, 6)},
        DENSE,
    ),
    "several inputs and outputs, one weight": Kind(
        "g (float[N,6] first, float[N,6] second) => (p, q) "
        "{ p = MatMul(first, w) q = MatMul(second, w) }",
        {"first": uniform(8, 6), "second": uniform(8, 6, seed=3)},
        DENSE,
    ),
    "an output that is read inside": _rows(
        "h = MatMul(x, w) r = Relu(h) y = MatMul(r, v)",
        {"w": normal(6, 40), "v": normal(40, 3)},
        outputs="h, y",
    ),
    "a conv output that is read inside": _image(
        "c = Conv(x, w, b) y = Conv(c, v)", CONV | {"v": normal(3, 4, 1, 1)}, outputs="c, y"
    ),
    "weights as inputs, old format": Kind(
        "g (float[N,6] x, float[6,4] w, float[4] b) => (float[N,4] y) { y = Gemm(x, w, b) }",
        ROWS,
        DENSE,
        {"ir": 3, "opset": 9},
    ),
    "weights that a caller may override": Kind(
        "g (float[N,6] x, float[6,4] w, float[4] b) => (float[N,4] y) { y = Gemm(x, w, b) }",
        ROWS,
        DENSE,
    ),
    "one weight with a huge bias and a small one": _image(
        "p = Conv(x, w, b) q = Conv(x, w, huge)",
        CONV | {"huge": normal(4, scale=1e9)},
        outputs="p, q",
    ),
    "if that reads outer values": _with_if("Relu(h)", "Add(h, h)"),
    "if that reads an outer weight": _with_if("MatMul(x, w)", "Identity(h)"),
    "loop that reads outer values and weights": Kind(
        "g (float[1,6] x, int64[1] n) => (float[1,6] y) { h = MatMul(x, w) count = Squeeze(n) "
        "y = Loop(count, , h)<body = b (int64 i, bool go, float[1,6] a) => (bool on, float[1,6] o) "
        "{ on = Identity(go) m = MatMul(a, w) d = Add(m, h) o = Tanh(d) }> }",
        ROWS | {"n": np.full(8, 2)},
        {"w": normal(6, 6, scale=0.3)},
    ),
    "an output that is an input": _rows(
        "y = MatMul(x, w)", {"w": DENSE["w"]}, outputs="float[N,6] x, y"
    ),
    "an output that is a weight": _rows(
        "y = MatMul(x, w)", {"w": DENSE["w"]}, outputs="float[6,4] w, y"
    ),
    "clip without a lower bound": _image(
        "h = Conv(x, w, b) y = Clip(h, , m)", CONV | {"m": np.float32(3)}
    ),
    "clip without bounds": _image("h = Conv(x, w, b) y = Clip(h)", CONV),
    "clip above zero": _image("h = Conv(x, w, b) y = Clip(h, m)", CONV | {"m": np.float32(0.7)}),
    "an unused optional output": _rows("h = MatMul(x, w) y, mask = Dropout(h)", {"w": DENSE["w"]}),
    "a value used twice by one node": _image("h = Conv(x, w, b) y = Add(h, h)", CONV),
    "two convs with the same weight and input": _image(
        "h = Conv(x, w, b) p = Conv(h, v) q = Conv(h, v) y = Mul(p, q)",
        CONV | {"v": normal(4, 4, 1, 1)},
    ),
    **{
        f"opset {version}": Kind(NET, IMAGE, NET_WEIGHTS, {"opset": version, "ir": ir})
        for version, ir in ((9, 4), (10, 5), (11, 6), (12, 7), (21, 10), (24, 11))
    },
    "clip bounds as attributes": Kind(
        "g (float[N,3,8,8] x) => (float[N,4,6,6] y) "
        "{ h = Conv(x, w, b) y = Clip<min = 0.0, max = 6.0>(h) }",
        IMAGE,
        CONV,
        {"opset": 10, "ir": 5},
    ),
    "old if": Kind(
        "g (float[1,6] x, bool[1] which) => (float[4] y) { h = MatMul(x, w) k = Squeeze(which) "
        "y = If(k)<then_branch = t () => (float[4] p) { p = Squeeze<axes = [0]>(h) }, "
        "else_branch = e () => (float[4] q) { s = Add(h, h) q = Squeeze<axes = [0]>(s) }> }",
        ROWS | WHICH,
        DENSE,
        {"opset": 11, "ir": 6},
    ),
    "functions of its own": Kind(
        "g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, w) y = local.twice(h) }",
        ROWS,
        DENSE,
        {
            "imports": ', "local" : 1',
            "functions": ' <domain: "local", opset_import: ["" : 17]> twice (a) => (b) '
            "{ b = Add(a, a) }",
        },
    ),
    "a value without entries": _rows(
        "e = Slice(x, z, z) h = MatMul(e, w) m = MatMul(x, w) y = Concat<axis = 0>(m, h)",
        {"w": DENSE["w"], "z": np.array([0])},
    ),
    "a fixed batch of four": Kind(
        "g (float[4,3,8,8] x) => (y) { h = Conv(x, w, b) y = Relu(h) }", IMAGE, CONV
    ),
    "weights that are all zeros": _image(
        "h = Conv(x, w, b) y = Relu(h)",
        {"w": np.zeros((4, 3, 3, 3), np.float32), "b": np.zeros(4, np.float32)},
    ),
    "values too small for a float scale": Kind(
        "g (float[N,6] x) => (y) { y = Gemm(x, w, b) }",
        {"x": uniform(8, 6, scale=1e-25)},
        {"w": normal(6, 4, scale=1e-25), "b": np.zeros(4, np.float32)},
    ),
    "a weight in a Constant node": Kind(
        "g (float[N,2] x) => (y) "
        "{ w = Constant<value = float[2,2] {1.0, -2.0, 3.0, 0.5}>() y = MatMul(x, w) }",
        {"x": uniform(8, 2)},
    ),
    "a vector, no batch axis": Kind(
        "g (float[6] x) => (y) { y = MatMul(x, w) }", {"x": uniform(12)}, {"w": DENSE["w"]}
    ),
    "gemm with its input transposed": Kind(
        "g (float[6,6] x) => (y) { y = Gemm<transA = 1>(x, w, b) }", {"x": uniform(12, 6)}, DENSE
    ),
    "gemm with alpha and beta": _rows("y = Gemm<alpha = 0.5, beta = 2.0>(x, w, b)", DENSE),
    "gemm with a bias of two axes": _rows(
        "y = Gemm<beta = 0.5>(x, w, b)", {"w": DENSE["w"], "b": normal(1, 4)}
    ),
    "gemm with a bias of one value": _rows(
        "y = Gemm(x, w, b)", {"w": DENSE["w"], "b": np.float32(2)}
    ),
    "gemm with a bias that is computed": _rows(
        "h = Gemm(x, w) r = Relu(h) y = Gemm<beta = 3.0>(x, w, r)", {"w": DENSE["w"]}
    ),
    "gemm with a bias of one column": Kind(
        "g (float[2,6] x) => (y) { y = Gemm(x, w, b) }",
        ROWS,
        {"w": DENSE["w"], "b": normal(2, 1)},
    ),
    "matmul with a constant of three axes": Kind(
        "g (float[N,5,6] x) => (y) { y = MatMul(x, w) }",
        {"x": uniform(8, 5, 6)},
        {"w": normal(1, 6, 4)},
    ),
    "matmul with a transposed constant": _rows(
        "t = Transpose(w) y = MatMul(x, t)", {"w": normal(4, 6)}
    ),
    "no samples at all in one part": _rows(
        "h = MatMul(x, w) e = Slice(h, z, z) y = Concat<axis = 0>(h, e)",
        {"w": DENSE["w"], "z": np.array([0])},
    ),
}

LOOP = (
    "g (float[1,48] x, int64[1] n) => (float[1,48] y) { count = Squeeze(n) "
    "y = Loop(count, , x)<body = b (int64 i, bool go, float[1,48] a) => "
    "(bool on, float[1,48] o) { on = Identity(go) m = MatMul(a, w) o = Tanh(m) }> }"
)
IF = (
    "g (float[N,48] x, bool[1] which) => (float[N,48] y) { k = Squeeze(which) y = If(k)"
    "<then_branch = t () => (float[N,48] p) { m = MatMul(x, w) p = Relu(m) }, "
    "else_branch = e () => (float[N,48] q) { m = Gemm(x, v, c) q = Tanh(m) }> }"
)
SEQUENCE = {"x": uniform(4, 6, 24)}


def _recurrent(op, gates, extra=""):
    return Kind(
        f"g (float[N,6,24] x) => (float[6,2,N,32] y) {{ s = Transpose<perm = [1,0,2]>(x) "
        f'y = {op}<hidden_size = 32, direction = "bidirectional"{extra}>(s, w, r, b) }}',
        SEQUENCE,
        {
            "w": normal(2, gates * 32, 24, scale=0.2),
            "r": normal(2, gates * 32, 32, scale=0.2, seed=1),
            "b": normal(2, gates * 64, scale=0.2, seed=2),
        },
    )


# Nearly all of their bytes are weights that both quantizers find.
HEAVY = {
    "lstm": _recurrent("LSTM", 4),
    "gru": _recurrent("GRU", 3, ", linear_before_reset = 1"),
    "rnn": _recurrent("RNN", 1),
    "lstm with peepholes and a clip": Kind(
        "g (float[6,1,24] x) => (h) { y, h, c = LSTM<hidden_size = 64, clip = 2.0>"
        "(x, w, r, b, , , , p) }",
        {"x": uniform(12, 1, 24)},
        {
            "w": normal(1, 256, 24, scale=0.2),
            "r": normal(1, 256, 64, scale=0.2),
            "b": normal(1, 512),
            "p": normal(1, 192),
        },
    ),
    "two lstms with the same weights": Kind(
        "g (float[N,6,64] x) => (y) { s = Transpose<perm = [1,0,2]>(x) "
        "a = LSTM<hidden_size = 64>(s, w, r) t = Squeeze(a, one) "
        "y = LSTM<hidden_size = 64>(t, w, r) }",
        {"x": uniform(4, 6, 64)},
        {
            "w": normal(1, 256, 64, scale=0.2),
            "r": normal(1, 256, 64, scale=0.2, seed=1),
            "one": np.array([1]),
        },
    ),
    "a loop that reads an outer weight": Kind(
        LOOP,
        {"x": uniform(8, 48), "n": np.full(8, 3)},
        {"w": normal(48, 48, scale=0.2)},
    ),
    "an if with a weight in each branch": Kind(
        IF,
        {"x": uniform(8, 48)} | WHICH,
        {"w": normal(48, 48), "v": normal(48, 48, seed=1), "c": normal(48)},
    ),
    "transposed conv in an if": Kind(
        "g (float[N,24,4,4] x, bool[1] which) => (float[N,24,H,L] y) { k = Squeeze(which) y = If(k)"
        "<then_branch = t () => (float[N,24,H,L] p) { p = ConvTranspose<pads = [1,1,1,1]>(x, w) }, "
        "else_branch = e () => (float[N,24,H,L] q) { q = Conv<pads = [1,1,1,1]>(x, v) }> }",
        {"x": uniform(8, 24, 4, 4)} | WHICH,
        {"w": normal(24, 24, 3, 3), "v": normal(24, 24, 3, 3, seed=1)},
    ),
    "transposed conv alone": Kind(
        "g (float[N,24,8,8] x) => (y) { y = ConvTranspose<strides = [2,2]>(x, t, b) }",
        {"x": uniform(8, 24, 8, 8)},
        {"t": normal(24, 32, 4, 4), "b": normal(32)},
    ),
    "transposed conv of one axis": Kind(
        "g (float[N,24,9] x) => (y) { y = ConvTranspose<strides = [2]>(x, t) }",
        {"x": uniform(8, 24, 9)},
        {"t": normal(24, 32, 4)},
    ),
    "matmul with the constant on the left": Kind(
        "g (float[N,48,5] x) => (y) { y = MatMul(w, x) }",
        {"x": uniform(8, 48, 5)},
        {"w": normal(40, 48)},
    ),
    "gemm with the constant on the left": Kind(
        "g (float[48,5] x) => (y) { y = Gemm<alpha = 0.5, beta = 2.0>(w, x, c) }",
        {"x": uniform(96, 5)},
        {"w": normal(40, 48), "c": normal(40, 1)},
    ),
    "matmul with a batch of constants": Kind(
        "g (float[N,3,5,24] x) => (y) { y = MatMul(x, w) }",
        {"x": uniform(8, 3, 5, 24)},
        {"w": normal(3, 24, 32)},
    ),
    "half precision, large": Kind(
        "g (float16[N,48] x) => (float16[N,64] y) { y = MatMul(x, w) }",
        {"x": uniform(8, 48).astype(np.float16)},
        {"w": normal(48, 64).astype(np.float16)},
    ),
    "double precision, large": Kind(
        "g (double[N,48] x) => (y) { y = MatMul(x, w) }",
        {"x": uniform(8, 48).astype(np.float64)},
        {"w": normal(48, 64).astype(np.float64)},
    ),
}

# None of these has a weight that either quantizer knows or that is large enough to pay.
NOT_QUANTIZABLE = {
    "small transposed conv of one axis": Kind(
        "g (float[N,3,9] x) => (y) { y = ConvTranspose(x, t) }",
        {"x": uniform(8, 3, 9)},
        {"t": normal(3, 2, 2)},
    ),
    "small matmul with the constant on the left": Kind(
        "g (float[1,6,5] x) => (y) { y = MatMul(w, x) }",
        {"x": uniform(8, 6, 5)},
        {"w": normal(4, 6)},
    ),
    "double precision": Kind(
        "g (double[N,6] x) => (y) { y = MatMul(x, w) }",
        {"x": uniform(8, 6).astype(np.float64)},
        {"w": normal(6, 4).astype(np.float64)},
    ),
    "nothing but activations": _rows("y = Relu(x)", {}),
}
