"""Prunable parts of a model, counted by hand, and the reasons for the rest."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.cli.render.model import format_inspection
from edgekit.inspection.prunable import find_prunable
from edgekit.inspection.summary import inspect
from tests.builders.tiny import apply, model, normal

NET = (
    "g (float[N,3,8,8] x) => (float[N,10] y) { c = Conv<pads = [1,1,1,1]>(x, w, b) r = Relu(c) "
    "d = Conv<pads = [1,1,1,1]>(r, u) p = GlobalAveragePool(d) f = Flatten(p) y = Gemm(f, v, k) }"
)
WEIGHTS = {
    "w": normal(4, 3, 3, 3),
    "b": normal(4),
    "u": normal(6, 4, 3, 3),
    "v": normal(6, 10),
    "k": normal(10),
}


def inspect_structure(folder, text=NET, weights=WEIGHTS, **dims):
    return find_prunable(model(folder, text, weights=weights), dims)


def test_removable_macs_and_parameters_match_a_count_by_hand(tmp_path):
    found = inspect_structure(tmp_path)

    first, second = found.parts
    assert [(p.name, p.kind, p.groups, p.width) for p in found.parts] == [
        ("c", "channels", 4, 1),
        ("d", "channels", 6, 1),
    ]
    assert found.macs == 64 * 4 * 27 + 64 * 6 * 36 + 60
    assert first.macs == 64 * 3 * 27 + 64 * 6 * 27
    assert first.parameters == 3 * 27 + 3 + 6 * 27
    assert second.macs == 64 * 5 * 36 + 50
    assert second.parameters == 5 * 36 + 50
    assert [p.layers for p in found.parts] == [2, 2]
    assert found.least_macs == 64 * 27 + 64 * 9 + 10
    assert found.sizes == {"x": (1, 3, 8, 8)}


def test_layers_that_keep_their_channels_have_a_reason(tmp_path):
    (kept,) = inspect_structure(tmp_path).fixed

    assert (kept.layers, kept.example) == (1, "y")
    assert "the output y" in kept.reason


def test_heads_are_whole_and_counted_at_the_sizes_that_are_given(tmp_path):
    text = (
        "g (float[N,L,8] x) => (float[N,L,8] y) { q = MatMul(x, a) k = MatMul(x, b) "
        "v = MatMul(x, c) qs = Reshape(q, s) ks = Reshape(k, s) vs = Reshape(v, s) "
        "qh = Transpose<perm = [0,2,1,3]>(qs) kh = Transpose<perm = [0,2,3,1]>(ks) "
        "vh = Transpose<perm = [0,2,1,3]>(vs) m = MatMul(qh, kh) p = Softmax(m) "
        "o = MatMul(p, vh) t = Transpose<perm = [0,2,1,3]>(o) h = Reshape(t, z) y = MatMul(h, d) }"
    )
    weights = {n: normal(8, 8) for n in "abcd"}
    weights |= {"s": np.array([0, 0, 2, 4]), "z": np.array([0, 0, 8])}

    found = inspect_structure(tmp_path, text, weights, L=5)

    heads = next(p for p in found.parts if p.kind == "heads")
    assert (heads.groups, heads.width, heads.layers) == (2, 4, 4)
    assert heads.macs == found.macs // 2
    assert found.sizes == {"x": (1, 5, 8)}


@pytest.mark.parametrize(
    ("text", "weights", "why"),
    [
        ("g (float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }", {"w": normal(4, 3)}, "y"),
        ("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }", {}, "no layer has stored weights"),
        (
            "g (float[N,4] x, bool c) => (float[N,3] y) { y = If(c)"
            " <then_branch = t () => (float[N,3] p) { p = MatMul(x, w) },"
            " else_branch = e () => (float[N,3] q) { r = MatMul(x, w) q = Neg(r) }> }",
            {"w": normal(4, 3)},
            "MatMul p and 1 more (inside If, Loop or Scan",
        ),
    ],
    ids=["all of it is the output", "no weights", "layers of branches"],
)
def test_a_model_that_cannot_be_pruned_has_a_reason_in_one_line(tmp_path, text, weights, why):
    source = model(tmp_path, text, weights=weights)

    found = inspect(source.path, device=None, folder=tmp_path, structure=True)

    assert found.prunable is not None
    assert found.prunable.parts == ()
    *_, last = format_inspection(found).splitlines()
    assert last.startswith("nothing can be pruned: ")
    assert why in last


def test_a_quantized_model_is_refused_as_quantized(tmp_path):
    text = (
        "g (float[N,4] x) => (float[N,3] y) "
        "{ q, s, z = DynamicQuantizeLinear(x) i = MatMulInteger(q, w, z) f = Cast<to = 1>(i) "
        "y = Mul(f, s) }"
    )

    found = inspect_structure(tmp_path, text, {"w": np.ones((4, 3), np.int8)})

    assert found.parts == ()
    assert found.refused.startswith("the model is already quantized")


@pytest.mark.parametrize(
    "restored", ["a = DequantizeLinear(w, s)", "c = Cast<to = 1>(w) a = Mul(c, s)"]
)
def test_a_model_of_integer_weights_is_refused_as_quantized(tmp_path, restored):
    text = (
        f"g (float[N,4] x) => (float[N,3] y) {{ {restored} "
        "h = MatMul(x, a) r = Relu(h) y = MatMul(r, v) }"
    )
    weights = {"w": np.ones((4, 6), np.int8), "s": np.float32(0.1), "v": normal(6, 3)}

    found = inspect_structure(tmp_path, text, weights)

    assert found.parts == ()
    assert "weights are stored as integers" in found.refused


def test_a_depthwise_layer_is_one_that_channels_run_through(tmp_path):
    text = (
        "g (float[1,3,8,8] x) => (float[1,5,8,8] y) { a = Conv(x, w) "
        "d = Conv<group = 4, pads = [1,1,1,1]>(a, u) n = Conv(d, v) y = Relu(n) }"
    )
    weights = {"w": normal(4, 3, 1, 1), "u": normal(4, 1, 3, 3), "v": normal(5, 4, 1, 1)}

    (part,) = inspect_structure(tmp_path, text, weights).parts

    assert (part.groups, part.layers) == (4, 3)
    assert part.macs == 3 * 64 * (3 + 9 + 5)


def test_a_residual_layer_can_be_removed_as_a_whole(tmp_path):
    text = (
        "g (float[N,8] x) => (float[N,4] y) { a = MatMul(x, w) b = MatMul(a, u) c = Relu(b) "
        "d = MatMul(c, v) s = Add(a, d) y = MatMul(s, k) }"
    )
    weights = {
        "w": normal(8, 16),
        "u": normal(16, 32, seed=1),
        "v": normal(32, 16, seed=2),
        "k": normal(16, 4, seed=3),
    }

    found = inspect_structure(tmp_path, text, weights)

    (layer,) = [p for p in found.parts if p.kind == "layers"]
    assert (layer.name, layer.groups, layer.layers) == ("s", 1, 2)
    assert layer.macs == layer.parameters == 2 * 16 * 32
    assert found.least_macs == 8 + 4


def test_layers_that_differ_by_a_number_are_one_row_and_reasons_alike_one_line(tmp_path):
    layers = [f"c{i} = Conv<pads = [1,1,1,1]>(r{i}, w{i}) r{i + 1} = Relu(c{i})" for i in range(5)]
    ends = [f"s{i} = Sin(r5) y{i} = Conv(s{i}, v{i})" for i in range(2)]
    text = (
        "g (float[1,4,8,8] r0) => (float[1,4,8,8] y0, float[1,4,8,8] y1) { "
        + " ".join([*layers, *ends])
        + " }"
    )
    weights = {f"w{i}": normal(4, 4, 3, 3) for i in range(5)}
    weights |= {f"v{i}": normal(4, 4, 1, 1) for i in range(2)}
    source = model(tmp_path, text, weights=weights)

    shown = format_inspection(inspect(source.path, device=None, folder=tmp_path, structure=True))

    assert "c0 and 3 similar" in shown
    kept = [line for line in shown.splitlines() if "keeps its channels" in line]
    assert len(kept) == 1
    assert kept[0].endswith(", and so does 1 more layer.")


def test_a_tflite_file_is_inspected_as_its_converted_graph(tmp_path):
    source = model(tmp_path, NET, weights=WEIGHTS)
    lite = apply("to-tflite", source, tmp_path)

    here, there = find_prunable(source, {}), find_prunable(lite, {})

    assert [(p.kind, p.groups, p.macs) for p in there.parts] == [
        (p.kind, p.groups, p.macs) for p in here.parts
    ]
    assert there.least_macs == here.least_macs
