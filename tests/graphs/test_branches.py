"""Residual layers are found whatever they are made of, and the graph is whole without them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort

from edgekit.graphs.branches import branches, without
from tests.tiny import normal, proto, uniform

_BLOCKS = """g (float[N,4,6,6] x) => (float[N,4,6,6] y) {
    a = Conv <pads=[1,1,1,1]> (x, w1)  b = Relu (a)  c = Conv <pads=[1,1,1,1]> (b, w2)
    s = Add (x, c)  t = Relu (s)
    d = Conv (t, w3)  e = Conv <pads=[1,1,1,1], group=4> (d, w4)  f = Mul (e, scale)
    y = Sum (f, t)
}"""


def convolutions():
    return {
        "w1": normal(4, 4, 3, 3, seed=1, scale=0.3),
        "w2": normal(4, 4, 3, 3, seed=2, scale=0.3),
        "w3": normal(4, 4, 1, 1, seed=3),
        "w4": normal(4, 1, 3, 3, seed=4),
        "scale": np.float32([0.5]),
    }


def computed(made, *names, **feeds):
    onnx.checker.check_model(made, full_check=True)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(names) or None, feeds)[0]


def test_blocks_in_a_row_are_found_with_the_nodes_and_the_arithmetic_that_go():
    found = branches(proto(_BLOCKS, weights=convolutions()), {"x": (2, 4, 6, 6)})

    assert [(b.add, b.kept) for b in found] == [("s", "x"), ("y", "t")]
    assert [b.nodes for b in found] == [("a", "b", "c", "s"), ("d", "e", "f", "y")]
    positions = 2 * 6 * 6
    assert [b.macs for b in found] == [positions * 2 * 144, positions * (16 + 36)]


def test_without_a_branch_of_zeros_nothing_changes():
    weights = convolutions()
    weights["w2"] *= 0
    whole = proto(_BLOCKS, weights=weights)
    x = uniform(3, 4, 6, 6)

    less = without(whole, branches(whole)[:1])

    assert [node.op_type for node in less.graph.node] == ["Relu", "Conv", "Conv", "Mul", "Sum"]
    assert {t.name for t in less.graph.initializer} == {"w3", "w4", "scale"}
    np.testing.assert_array_equal(computed(less, x=x), computed(whole, x=x))


def test_without_all_of_them_outputs_keep_their_names():
    whole = proto(_BLOCKS, weights=convolutions())
    x = uniform(3, 4, 6, 6)

    less = without(whole, branches(whole))

    np.testing.assert_array_equal(computed(less, "y", x=x), np.maximum(x, 0))


def test_a_branch_within_a_branch_goes_alone_or_with_it():
    text = """g (float[N,4] x) => (float[N,4] y) {
        a = MatMul (x, w)  b = MatMul (a, v)  c = Add (a, b)  d = MatMul (c, w2)
        s = Add (d, x)  y = Tanh (s)
    }"""
    weights = {name: normal(4, 4, seed=i) for i, name in enumerate(("w", "v", "w2"))}
    whole, x = proto(text, weights=weights), uniform(3, 4)

    inner, outer = branches(whole)

    assert (inner.nodes, outer.nodes) == (("b", "c"), ("a", "b", "c", "d", "s"))
    alone = computed(without(whole, [inner]), x=x)
    np.testing.assert_allclose(alone, np.tanh(x @ weights["w"] @ weights["w2"] + x), atol=1e-5)
    for both in ([outer], [inner, outer], [outer, inner]):
        np.testing.assert_allclose(computed(without(whole, both), x=x), np.tanh(x), atol=1e-6)


_ATTENTION = """
    q = MatMul ({0}, wq)  k = MatMul ({0}, wk)  v = MatMul ({0}, wv)
    kt = Transpose <perm=[0,2,1]> (k)  raw = MatMul (q, kt)  masked = Add (raw, mask)
    p = Softmax (masked)  mixed = MatMul (p, v)  out = MatMul (mixed, wo)  att = Add (out, bo)
"""
_PRE = (
    "g (float[N,5,4] x, float[N,5,5] mask) => (float[N,5,4] y) {"
    "n = LayerNormalization (x, g1, b1)" + _ATTENTION.format("n") + "s = Add (x, att)"
    "m = LayerNormalization (s, g1, b1)  h = MatMul (m, w1)  r = Relu (h)  z = MatMul (r, w2)"
    "y = Add (z, s) }"
)
_POST = (
    "g (float[N,5,4] x, float[N,5,5] mask) => (float[N,5,4] y) {"
    + _ATTENTION.format("x")
    + "s = Add (att, x) n = LayerNormalization (s, g1, b1)"
    "h = MatMul (n, w1)  r = Relu (h)  z = MatMul (r, w2)  t = Add (z, n)"
    "y = LayerNormalization (t, g1, b1) }"
)


def transformer(text):
    weights = {n: normal(4, 4, seed=i) for i, n in enumerate(("wq", "wk", "wv", "wo"))}
    weights |= {"w1": normal(4, 8, seed=9), "w2": normal(8, 4, seed=10), "bo": uniform(4)}
    return proto(text, weights=weights | {"g1": uniform(4, seed=5), "b1": uniform(4, seed=6)})


def test_attention_and_feed_forward_layers_are_found_before_and_after_their_norm():
    for text, kept in ((_PRE, ["x", "s"]), (_POST, ["x", "n"])):
        whole = transformer(text)
        found = branches(whole)

        assert [branch.kept for branch in found] == kept
        bare = without(whole, found)
        assert "MatMul" not in {node.op_type for node in bare.graph.node}
        computed(bare, x=uniform(2, 5, 4), mask=uniform(2, 5, 5))
    assert [v.name for v in bare.graph.input] == ["x", "mask"]


def test_a_mask_made_to_the_size_of_the_value_that_goes_on_is_no_hindrance():
    text = """g (float[N,4] x) => (float[N,4] y) {
        size = Shape (x)  ones = ConstantOfShape (size)
        a = MatMul (x, w)  b = Mul (a, ones)  s = Add (x, b)
        c = MatMul (s, w)  d = Mul (c, ones)  y = Add (s, d)
    }"""
    found = branches(proto(text, weights={"w": normal(4, 4)}))

    assert [branch.nodes for branch in found] == [("a", "b", "s"), ("c", "d", "y")]


def test_what_others_look_into_stays():
    read_again = """g (float[N,4] x) => (float[N,4] y) {
        a = MatMul (x, w)  b = Relu (a)  s = Add (x, b)  y = Mul (s, a)
    }"""
    output_too = """g (float[N,4] x) => (float[N,4] y, float[N,4] b) {
        a = MatMul (x, w)  b = Relu (a)  y = Add (x, b)
    }"""
    for text in (read_again, output_too):
        assert branches(proto(text, weights={"w": normal(4, 4)})) == ()


def test_sums_that_are_no_residual_layers_stay():
    no_layer = "g (float[N,4] x) => (float[N,4] y) { a = Tanh (x) y = Add (x, a) }"
    side_by_side = """g (float[N,4] x) => (float[N,4] y) {
        a = MatMul (x, w)  b = MatMul (x, v)  y = Add (a, b)
    }"""
    repeated = """g (float[N,4] x) => (float[N,4] y) {
        a = MatMul (x, w)  one = ReduceMean <axes=[1]> (x)  b = MatMul (one, u)  y = Add (one, b)
    }"""
    weights = {"w": normal(4, 4), "v": normal(4, 4), "u": normal(1, 4)}
    for text in (no_layer, side_by_side, repeated):
        assert branches(proto(text, weights=weights)) == ()
