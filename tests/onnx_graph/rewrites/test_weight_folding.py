"""Weights that are computed from stored tensors are stored themselves."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort

from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.rewrites.weight_folding import fold_weights
from tests.builders.tiny import normal, proto, uniform

# The gates of an LSTM as PyTorch has them (i, f, g, o), brought into ONNX's order in both branches.
SLICES = (
    "{p}z = Constant<value = int64[1] {{0}}>() {p}a = Constant<value = int64[1] {{16}}>() "
    "{p}m = Constant<value = int64[1] {{32}}>() {p}n = Constant<value = int64[1] {{48}}>() "
    "{p}e = Constant<value = int64[1] {{64}}>() "
    "{p}i = Slice(w, {p}z, {p}a, {p}z) {p}f = Slice(w, {p}a, {p}m, {p}z) "
    "{p}g = Slice(w, {p}m, {p}n, {p}z) {p}o = Slice(w, {p}n, {p}e, {p}z) "
    "{p}c = Concat<axis = 0>({p}i, {p}o, {p}f, {p}g) {p}W = Unsqueeze({p}c, {p}z) "
    "{p}s, {p}h, {p}l = LSTM<hidden_size = 16>(x, {p}W, r) "
)
IN_BRANCHES = (
    "g (float[T,1,16] x, bool which) => (float[T,1,1,16] y) {{ y = If(which)<"
    "then_branch = t () => (float[T,1,1,16] ts) {{ {then} }}, "
    "else_branch = e () => (float[T,1,1,16] es) {{ {otherwise} }}> }}"
)
WEIGHTS = {"w": normal(64, 16, scale=0.3), "r": normal(1, 64, 16, scale=0.3)}


def outputs(made, **feeds):
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def test_gates_joined_anew_in_two_branches_are_stored_once():
    text = IN_BRANCHES.format(then=SLICES.format(p="t"), otherwise=SLICES.format(p="e"))
    made = proto(text, weights=WEIGHTS, opset=15)
    feeds = {"x": uniform(3, 1, 16), "which": np.array(True)}
    expected = outputs(made, **feeds)[0]

    fold_weights(made)

    layers = [node for index in GraphIndex(made).inner() for node in index.graph.node]
    layers = [node for node in layers if node.op_type == "LSTM"]
    stored = {tensor.name: tensor for tensor in made.graph.initializer}
    assert len(layers) == 2
    assert layers[0].input[1] == layers[1].input[1] != ""
    assert list(stored[layers[0].input[1]].dims) == [1, 64, 16]
    assert "w" not in stored
    onnx.checker.check_model(made, full_check=True)
    np.testing.assert_array_equal(outputs(made, **feeds)[0], expected)


def test_siblings_that_use_one_name_for_two_constants_keep_their_own():
    half = (
        "k = Constant<value = int64[1] {%d}>() z = Constant<value = int64[1] {0}>() "
        "w2 = Concat<axis = 1>(%s) m = MatMul(x, w2) %s = Identity(m) "
    )
    text = (
        "g (float[N,16] x, bool which) => (float[N,32] y) { y = If(which)<"
        f"then_branch = t () => (float[N,32] a) {{ {half % (1, 'u, v', 'a')} }}, "
        f"else_branch = e () => (float[N,32] b) {{ {half % (2, 'v, u', 'b')} }}> }}"
    )
    made = proto(text, weights={"u": normal(16, 16), "v": normal(16, 16, seed=1)})
    cases = [{"x": uniform(2, 16), "which": np.array(flag)} for flag in (True, False)]
    expected = [outputs(made, **feeds)[0] for feeds in cases]

    fold_weights(made)

    assert all("Concat" not in [n.op_type for n in i.graph.node] for i in GraphIndex(made).inner())
    for feeds, known in zip(cases, expected, strict=True):
        np.testing.assert_array_equal(outputs(made, **feeds)[0], known)


def test_a_tied_embedding_stays_tied():
    text = (
        "g (int64[N] ids) => (float[N,100] y) "
        "{ v = Gather(table, ids) t = Transpose<perm = [1,0]>(table) y = MatMul(v, t) }"
    )
    made = proto(text, weights={"table": normal(100, 16)})
    fold_weights(made)
    assert [node.op_type for node in made.graph.node] == ["Gather", "Transpose", "MatMul"]


def test_integers_that_stand_for_weights_and_what_grows_stay_as_they_are():
    text = (
        "g (float[N,16] x) => (float[N,16] y, float[N,16] z) "
        "{ c = Cast<to = 1>(w) d = Mul(c, s) y = MatMul(x, d) "
        "e = Expand(row, shape) z = MatMul(x, e) }"
    )
    weights = {
        "w": np.ones((16, 16), np.int8),
        "s": normal(1, 16),
        "row": normal(1, 16),
        "shape": np.array([16, 16]),
    }
    made = proto(text, weights=weights)
    fold_weights(made)
    kinds = [node.op_type for node in made.graph.node]
    assert kinds == ["Cast", "Mul", "MatMul", "Expand", "MatMul"]


def test_a_transposed_weight_is_stored_as_it_is_read():
    text = "g (float[N,16] x) => (float[N,8] y) { t = Transpose<perm = [1,0]>(w) y = MatMul(x, t) }"
    weight = normal(8, 16)
    made = proto(text, weights={"w": weight})
    fold_weights(made)
    assert [node.op_type for node in made.graph.node] == ["MatMul"]
    np.testing.assert_array_equal(GraphIndex(made).constant(made.graph.node[0].input[1]), weight.T)
