"""Residual branches: which can be removed, what is removed with them, and what must remain."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgekit.compression.pruning.residual_branches import (
    find_branches,
    list_branches,
    remove_branches,
)
from tests.builders.tiny import normal, proto

X = normal(3, 4, 6, 6)
CONVS = {name: normal(4, 4, 3, 3, seed=n, scale=0.3) for n, name in enumerate("abc")}
CONV = "Conv<pads = [1,1,1,1]>"
CHAIN = (
    "g (float[N,4,6,6] x) => (float[N,4,6,6] y) { "
    f"a1 = {CONV}(x, a) r1 = Relu(a1) b1 = {CONV}(r1, b) s1 = Add(b1, x) "
    f"c1 = {CONV}(s1, c) m1 = Mul(c1, scale) y = Sum(s1, m1) }}"
)
SCALE = {"scale": np.float32([0.5])}
ATTENTION = {
    "q": normal(8, 8, seed=1), "k": normal(8, 8, seed=2), "v": normal(8, 8, seed=3),
    "o": normal(8, 8, seed=4), "u": normal(8, 16, seed=5), "d": normal(16, 8, seed=6),
    "one": np.ones(8, np.float32), "zero": np.zeros(8, np.float32),
}  # fmt: skip


def _run(made, x=X):
    onnx.checker.check_model(made, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(made.SerializeToString(), options).run(None, {"x": x})


def _layer(norm_first):
    """Attention and a feed-forward layer, the norms before them or behind the sums."""
    norm = "LayerNormalization"
    read = f"n1 = {norm}(x, one, zero) " if norm_first else "n1 = Identity(x) "
    sums = "s1 = Add(x, o1) " if norm_first else f"t1 = Add(x, o1) s1 = {norm}(t1, one, zero) "
    between = f"n2 = {norm}(s1, one, zero) " if norm_first else "n2 = Identity(s1) "
    return (
        f"g (float[N,5,8] x) => (float[N,5,8] y) {{ {read} q1 = MatMul(n1, q) k1 = MatMul(n1, k) "
        "v1 = MatMul(n1, v) kt = Transpose<perm = [0,2,1]>(k1) qk = MatMul(q1, kt) "
        f"w1 = Softmax(qk) h1 = MatMul(w1, v1) o1 = MatMul(h1, o) {sums} {between} "
        "u1 = MatMul(n2, u) r1 = Relu(u1) d1 = MatMul(r1, d) y = Add(d1, s1) }"
    )


def test_each_residual_sum_is_a_branch_including_scaled_ones():
    found = list_branches(proto(CHAIN, weights=CONVS | SCALE))

    assert [(b.add, b.kept) for b in found] == [("s1", "x"), ("y", "s1")]
    assert found[0].nodes == ("a1", "r1", "b1", "s1")
    assert found[1].nodes == ("c1", "m1", "y")
    assert found[1].macs == 4 * 36 * 4 * 9  # of one sample


def test_removing_a_branch_of_zeros_changes_nothing():
    weights = CONVS | SCALE | {"b": np.zeros((4, 4, 3, 3), np.float32)}
    whole = proto(CHAIN, weights=weights)
    made = remove_branches(whole, list_branches(whole)[:1])

    assert np.array_equal(_run(made)[0], _run(whole)[0])
    assert [node.output[0] for node in made.graph.node] == ["c1", "m1", "y"]
    assert {t.name for t in made.graph.initializer} == {"c", "scale"}


def test_a_chain_of_branches_can_be_removed_and_the_output_keeps_its_name():
    whole = proto(CHAIN, weights=CONVS | SCALE)
    made = remove_branches(whole, list_branches(whole))

    assert np.array_equal(_run(made)[0], X)
    assert [o.name for o in made.graph.output] == ["y"]
    assert not made.graph.initializer
    assert len(whole.graph.node) == 7  # the model itself stays as it was


def test_a_nested_branch_is_removed_alone_or_with_its_outer_branch():
    text = (
        f"g (float[N,4,6,6] x) => (float[N,4,6,6] y) {{ a1 = {CONV}(x, a) b1 = {CONV}(a1, b) "
        f"s1 = Add(a1, b1) c1 = {CONV}(s1, c) y = Add(x, c1) }}"
    )
    whole = proto(text, weights=CONVS)
    inner, outer = list_branches(whole)

    assert (inner.kept, outer.kept) == ("a1", "x")
    assert set(inner.nodes) < set(outer.nodes)
    assert [n.output[0] for n in remove_branches(whole, [inner]).graph.node] == ["a1", "c1", "y"]
    assert np.array_equal(_run(remove_branches(whole, [outer, inner]))[0], X)


@pytest.mark.parametrize("norm_first", [True, False])
def test_attention_and_feed_forward_layers_are_branches(norm_first):
    whole = proto(_layer(norm_first), weights=ATTENTION)
    attention, forward = list_branches(whole)
    x = normal(2, 5, 8)

    assert {"q1", "k1", "v1", "o1"} < set(attention.nodes)
    assert set(forward.nodes) > {"u1", "r1", "d1"}
    silent = proto(_layer(norm_first), weights=ATTENTION | {"o": np.zeros((8, 8), np.float32)})
    left = remove_branches(silent, [attention])
    assert np.allclose(_run(left, x)[0], _run(silent, x)[0], atol=1e-6)
    assert not {"q", "k", "v", "o"} & {t.name for t in left.graph.initializer}


def test_parallel_layers_are_removed_one_by_one_and_shared_nodes_with_the_last():
    text = (
        f"g (float[N,4,6,6] x) => (float[N,4,6,6] y) {{ n = Relu(x) a1 = {CONV}(n, a) "
        f"b1 = {CONV}(n, b) s = Add(x, a1) y = Add(s, b1) }}"
    )
    whole = proto(text, weights=CONVS)
    first, second = list_branches(whole)

    assert (first.kept, second.kept) == ("x", "s")
    assert (first.nodes, second.nodes) == (("a1", "s"), ("b1", "y"))
    left = [n.output[0] for n in remove_branches(whole, [first]).graph.node]
    assert left == ["n", "b1", "y"]
    assert [n.output[0] for n in remove_branches(whole, [second]).graph.node][:2] == ["n", "a1"]
    assert [n.op_type for n in remove_branches(whole, [first, second]).graph.node] == ["Identity"]


def test_branches_read_elsewhere_or_output_are_kept_with_the_reason():
    weights = CONVS | SCALE
    read = CHAIN.replace("m1 = Mul(c1, scale) y = Sum(s1, m1)", "m1 = Mul(c1, a1) y = Add(m1, s1)")
    found, fixed = find_branches(proto(read, weights=CONVS))

    assert [b.add for b in found] == ["y"]
    assert [(f.where, f.reason) for f in fixed] == [
        ("s1", "a1 inside the branch is also read by m1")
    ]
    seen = CHAIN.replace("=> (float[N,4,6,6] y)", "=> (float[N,4,6,6] y, float[N,4,6,6] r1)")
    found, fixed = find_branches(proto(seen, weights=weights))
    assert [b.add for b in found] == ["y"]
    assert fixed[0].reason == "r1 inside the branch is an output of the model"


def test_two_layers_of_one_value_are_not_a_branch():
    text = (
        f"g (float[N,4,6,6] x) => (float[N,4,6,6] y) {{ a1 = {CONV}(x, a) b1 = {CONV}(x, b) "
        "y = Add(a1, b1) }"
    )
    found, fixed = find_branches(proto(text, weights=CONVS))

    assert not found
    assert fixed[0].reason == "neither operand of the sum is computed from the other"


def test_composed_activations_and_repeated_operands_are_not_branches():
    gelu = (
        "g (float[N,4,6,6] x) => (float[N,4,6,6] y) { c1 = Mul(x, x) c2 = Mul(c1, x) "
        f"c3 = Add(x, c2) t = Tanh(c3) a1 = {CONV}(t, a) p = GlobalAveragePool(a1) "
        "y = Add(a1, p) }"
    )

    assert find_branches(proto(gelu, weights=CONVS)) == ((), ())


def test_values_read_by_inner_graphs_keep_their_names():
    text = (
        f"g (float[N,4,6,6] x, bool k) => (float[N,4,6,6] y) {{ a1 = {CONV}(x, a) "
        "s1 = Add(x, a1) y = If(k)<then_branch = t () => (float[N,4,6,6] p) { p = Relu(s1) }, "
        "else_branch = e () => (float[N,4,6,6] q) { q = Identity(s1) }> }"
    )
    whole = proto(text, weights=CONVS)
    made = remove_branches(whole, list_branches(whole))
    onnx.checker.check_model(made, full_check=True)
    session = ort.InferenceSession(made.SerializeToString())

    assert np.array_equal(session.run(None, {"x": X, "k": np.array(False)})[0], X)


def test_a_branch_of_another_model_is_refused():
    whole = proto(CHAIN, weights=CONVS | SCALE)
    found = list_branches(whole)

    with pytest.raises(ValueError, match="the model has no sum s1"):
        remove_branches(remove_branches(whole, found[:1]), found[:1])
