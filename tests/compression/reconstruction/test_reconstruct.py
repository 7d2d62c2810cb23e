"""Layers of a changed model are refitted to the original outputs by least squares."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from edgekit.compression.output_divergence import Reference
from edgekit.compression.pruning.dependency import find_channels
from edgekit.compression.pruning.surgery import remove_groups
from edgekit.compression.reconstruction.reconstruct import RefitLayer, refit
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.progress import ignore_progress
from tests.builders.tiny import normal, proto, samples

_CHAIN = """g (float[N,3,8,8] x) => (float[N,5] y) {
    a = Conv <pads=[1,1,1,1]> (x, w1, b1)  r = Relu (a)
    c = Conv <strides=[2,2], pads=[1,1,1,1]> (r, w2)  s = Relu (c)
    p = GlobalAveragePool (s)  f = Flatten (p)  y = Gemm <transB=1> (f, w3, b3)
}"""


def chain(seed=0):
    return {
        "w1": normal(8, 3, 3, 3, seed=seed, scale=0.4),
        "b1": normal(8, seed=seed + 1, scale=0.2),
        "w2": normal(6, 8, 3, 3, seed=seed + 2, scale=0.2),
        "w3": normal(5, 6, seed=seed + 3),
        "b3": normal(5, seed=seed + 4),
    }


def compute(made, **feeds):
    onnx.checker.check_model(made, full_check=True)
    session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def parts(tmp_path, *shape, count=48):
    """Samples to fit on, and others."""
    learning = [samples(tmp_path, x=normal(1, *shape, seed=100 + i)) for i in range(count)]
    return learning, [samples(tmp_path, x=normal(8, *shape, seed=99))]


def cut_first(whole, going):
    """The model without the first channels of its first family, and what is kept of each layer."""
    channels = find_channels(whole)
    gone = channels.families[0].groups[:going]
    layers = []
    for node in whole.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            axis = channels.walk.axes[node.output[0]][1 if node.op_type == "Conv" else -1]
            layers.append(RefitLayer(output=node.output[0], kept=channels.find_kept(axis, gone)))
    return remove_groups(channels, gone), layers


def test_removed_copies_of_channels_are_compensated(tmp_path):
    weights = chain()
    for twin in (0, 1):  # relu(2 a) = 2 relu(a)
        weights["w1"][twin] = 2 * weights["w1"][twin + 2]
        weights["b1"][twin] = 2 * weights["b1"][twin + 2]
    whole = proto(_CHAIN, weights=weights)
    changed, layers = cut_first(whole, 2)
    learning, others = parts(tmp_path, 3, 8, 8)
    x = normal(16, 3, 8, 8, seed=7)

    made = refit(whole, changed, layers, learning, held_out=others, tick=ignore_progress)

    wanted = compute(whole, x=x)
    assert np.abs(compute(changed, x=x) - wanted).max() > 0.1
    np.testing.assert_allclose(compute(made, x=x), wanted, atol=1e-4)
    assert numpy_helper.to_array(made.graph.initializer[0]).dtype == np.float32
    sizes = {tuple(t.dims) for t in made.graph.initializer}
    assert sizes == {tuple(t.dims) for t in changed.graph.initializer} | {(6,)}  # a bias for c


def test_refitting_a_pruned_model_reduces_the_error_on_unseen_samples(tmp_path):
    whole = proto(_CHAIN, weights=chain(seed=20))
    changed, layers = cut_first(whole, 3)
    learning, others = parts(tmp_path, 3, 8, 8)
    told = []

    made = refit(whole, changed, layers, learning, held_out=others, tick=lambda *t: told.append(t))

    x = normal(64, 3, 8, 8, seed=8)
    before, after = (
        np.square(compute(m, x=x) - compute(whole, x=x)).mean() for m in (changed, made)
    )
    assert after < 0.3 * before
    assert told[0] == ("refitting", 0, 3)
    assert told[-1] == ("refitting", 3, 3)


def test_one_run_for_all_layers_is_enough_where_little_changed(tmp_path):
    whole = proto(_CHAIN, weights=chain(seed=20))
    changed, layers = cut_first(whole, 1)
    learning, others = parts(tmp_path, 3, 8, 8)
    told = []

    made = refit(
        whole, changed, layers, learning, held_out=others, tick=lambda *t: told.append(t), stages=1
    )

    reference = Reference(whole, others)
    assert reference.divergence(made) < reference.divergence(changed)
    assert told[-1] == ("refitting", 1, 1)


def test_a_model_that_was_not_changed_stays_as_it_is(tmp_path):
    whole = proto(_CHAIN, weights=chain())
    learning, others = parts(tmp_path, 3, 8, 8, count=8)
    layers = [RefitLayer(output=name) for name in ("a", "c", "y")]

    made = refit(whole, whole, layers, learning, held_out=others, tick=ignore_progress)

    assert made.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)
    assert made is not whole


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("a = Conv <group=6, pads=[1,1,1,1]> (x, dw)  y = Conv (a, pw)", (6, 7, 7)),
        ("a = Conv <group=2> (x, grouped, b)  y = Conv (a, pw)", (6, 7, 7)),
        ('a = Conv <auto_pad="SAME_UPPER", strides=[2]> (x, line)  y = Conv (a, pl)', (6, 9)),
        ("a = Conv <dilations=[1,2,1]> (x, cube)  y = Conv (a, pc)", (6, 3, 6, 3)),
        ("h = MatMul (x, product)  a = Add (bp, h)  y = Tanh (a)", (5, 6)),
        ("a = MatMul (x, product)  y = Tanh (a)", (5, 6)),
        ("f = Flatten (x)  a = Gemm (f, gemm)  y = Tanh (a)", (1, 6)),
    ],
)
def test_a_damaged_layer_of_any_kind_is_restored(tmp_path, text, shape):
    sizes = {
        "dw": (6, 1, 3, 3), "pw": (2, 6, 1, 1), "grouped": (6, 3, 2, 2), "b": (6,),
        "line": (6, 6, 3), "pl": (2, 6, 1), "cube": (6, 6, 2, 2, 1), "pc": (2, 6, 1, 1, 1),
        "product": (6, 4), "bp": (4,), "gemm": (6, 4),
    }  # fmt: skip
    weights = {n: normal(*s, seed=i) for i, (n, s) in enumerate(sizes.items()) if n in text}
    dims = ",".join(map(str, shape))
    text = f"g (float[N,{dims}] x) => (y) {{ {text} }}"
    damaged = dict(weights)
    first = next(n for n in ("dw", "grouped", "line", "cube", "product", "gemm") if n in weights)
    damaged[first] = weights[first] + 0.5 * normal(*sizes[first], seed=50)
    whole, changed = (proto(text, weights=w) for w in (weights, damaged))
    learning, others = parts(tmp_path, *shape, count=64)
    output = "h" if "h =" in text else "a"

    made = refit(
        whole, changed, [RefitLayer(output=output)], learning, held_out=others, tick=ignore_progress
    )

    x = normal(4, *shape, seed=3)
    assert np.abs(compute(changed, x=x) - compute(whole, x=x)).max() > 0.05
    np.testing.assert_allclose(compute(made, x=x), compute(whole, x=x), atol=2e-3)


def test_a_layer_in_a_sum_compensates_the_error_of_the_other_operand(tmp_path):
    text = """g (float[N,6] x) => (float[N,6] y) {
        k = MatMul (x, v)  a = MatMul (x, w)  b = Add (a, bias)  y = Add (k, b)
    }"""
    weights = {"v": normal(6, 6), "w": normal(6, 6, seed=1), "bias": normal(6, seed=2)}
    whole = proto(text, weights=weights)
    changed = proto(text, weights=weights | {"v": normal(6, 6, seed=5)})
    learning, others = parts(tmp_path, 6)

    made = refit(
        whole, changed, [RefitLayer(output="a")], learning, held_out=others, tick=ignore_progress
    )

    x = normal(4, 6, seed=3)
    np.testing.assert_allclose(compute(made, x=x), compute(whole, x=x), atol=1e-4)


def test_few_samples_and_dead_channels_do_no_harm(tmp_path):
    weights = chain()
    weights["w1"][5] = 0
    weights["b1"][5] = -1  # never passes the Relu
    whole = proto(_CHAIN, weights=weights)
    changed, layers = cut_first(whole, 2)
    reference = Reference(whole, [samples(tmp_path, x=normal(16, 3, 8, 8, seed=9))])
    for count in (1, 2, 5):
        learning, others = parts(tmp_path, 3, 8, 8, count=count)

        made = refit(whole, changed, layers, learning, held_out=others, tick=ignore_progress)

        index = GraphIndex(made)
        assert all(index.is_finite(t.name) for t in made.graph.initializer)
        assert reference.divergence(made) < 1.05 * reference.divergence(changed)


def test_refits_that_make_the_outputs_worse_are_undone(tmp_path):
    whole = proto(_CHAIN, weights=chain(seed=20))
    changed, layers = cut_first(whole, 3)
    learning = [samples(tmp_path, x=np.full((1, 3, 8, 8), 0.01 * i, np.float32)) for i in range(9)]
    _, others = parts(tmp_path, 3, 8, 8)

    made = refit(whole, changed, layers, learning, held_out=others, tick=ignore_progress)

    reference = Reference(whole, others)
    assert reference.divergence(made) <= reference.divergence(changed)


def test_a_weight_that_two_layers_read_stays(tmp_path):
    text = "g (float[N,4] x) => (float[N,4] y) { a = MatMul (x, w) b = Tanh (a) y = MatMul (b, w) }"
    whole, changed = (proto(text, weights={"w": normal(4, 4, seed=i)}) for i in (0, 1))
    learning, others = parts(tmp_path, 4)

    made = refit(
        whole, changed, [RefitLayer(output="a")], learning, held_out=others, tick=ignore_progress
    )

    assert made == changed


def test_a_value_that_is_not_finite_is_named(tmp_path):
    text = "g (float[N,4] x) => (float[N,3] y) { h = Log (x) y = MatMul (h, w) }"
    whole, changed = (proto(text, weights={"w": normal(4, 3, seed=i)}) for i in (0, 1))
    learning = [samples(tmp_path, x=-np.ones((2, 4), np.float32))]
    others = [samples(tmp_path, x=np.ones((2, 4), np.float32))]

    with pytest.raises(FloatingPointError, match="h"):
        refit(
            whole,
            changed,
            [RefitLayer(output="y")],
            learning,
            held_out=others,
            tick=ignore_progress,
        )
