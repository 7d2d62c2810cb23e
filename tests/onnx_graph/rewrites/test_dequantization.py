"""Int8 weights without an integer kernel are dequantized at load, and restored on demand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.onnx_graph.graph_index import read_attribute
from edgekit.onnx_graph.io import read_onnx, save
from edgekit.onnx_graph.rewrites.dequantization import dequantize_at_load, dequantize_by_operator
from tests.builders.tiny import fused_ops, normal, proto, run, uniform

LAYERS = {
    "Conv": ("float[N,8,6,6]", "Conv(x, d)", 0, (16, 8, 3, 3)),
    "one channel": ("float[N,8,6,6]", "Conv(x, d)", 0, (1, 8, 3, 3)),
    "depthwise": ("float[N,8,6,6]", "Conv<group = 8>(x, d)", 0, (8, 1, 3, 3)),
    "Conv of a line": ("float[N,8,6]", "Conv(x, d)", 0, (16, 8, 3)),
    "Gemm": ("float[N,8]", "Gemm(x, d)", 1, (8, 16)),
    "Gemm of rows": ("float[N,8]", "Gemm<transB = 1>(x, d)", 0, (16, 8)),
    "MatMul": ("float[N,5,8]", "MatMul(x, d)", 1, (8, 16)),
    "few entries": ("float[N,4]", "MatMul(x, d)", 1, (4, 4)),
}


def layer(kind, axis, shape, x, made):
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.integers(-127, 128, shape).astype(np.int8),
        "s": rng.uniform(0.001, 0.01, shape[axis]).astype(np.float32),
    }
    text = f"g ({x} x) => (y) {{ d = DequantizeLinear<axis = {axis}>(w, s) y = {made} }}"
    return proto(text, weights=weights)


def real(given, axis, text):
    """The same layer with its weight stored in float."""
    integers, scales = map(numpy_helper.to_array, given.graph.initializer)
    shape = [1] * integers.ndim
    shape[axis] = -1
    return proto(text, weights={"d": integers * scales.reshape(shape)})


def saved(made, folder):
    save(made, folder / "made.onnx")
    return read_onnx(folder / "made.onnx")


def kinds(made):
    return [node.op_type for node in made.graph.node]


@pytest.mark.parametrize("kind", LAYERS)
def test_a_weight_is_dequantized_once_at_load_and_changes_back(tmp_path, kind):
    x, made, axis, shape = LAYERS[kind]
    given = layer(kind, axis, shape, x, made)
    feed = uniform(2, *(int(n) for n in x.partition("[")[2].rstrip("]").split(",")[1:]))
    changed = onnx.ModelProto()
    changed.CopyFrom(given)
    dequantize_at_load(changed)

    assert kinds(changed)[:2] == ["Cast", "Mul"]
    right = run(saved(real(given, axis, f"g ({x} x) => (y) {{ y = {made} }}"), tmp_path), x=feed)
    after = saved(changed, tmp_path)
    np.testing.assert_allclose(run(after, x=feed)[0], right[0], rtol=1e-5, atol=1e-5)
    assert not set(fused_ops(after, tmp_path)) & {"Cast", "Mul", "DequantizeLinear"}

    dequantize_by_operator(changed)

    assert kinds(changed) == kinds(given)
    assert read_attribute(changed.graph.node[0], "axis", 1) == axis
    stored = {t.data_type: numpy_helper.to_array(t) for t in changed.graph.initializer}
    for tensor in given.graph.initializer:
        np.testing.assert_array_equal(stored[tensor.data_type], numpy_helper.to_array(tensor))


UNCHANGED = {
    "zero points": "d = DequantizeLinear<axis = 1>(w, s, z) y = MatMul(x, d)",
    "computed scales": "t = Abs(s) d = DequantizeLinear<axis = 1>(w, t) y = MatMul(x, d)",
    "activations": "q = QuantizeLinear(x, one) d = DequantizeLinear(q, one) y = Relu(d)",
}


@pytest.mark.parametrize("kind", UNCHANGED)
def test_other_values_stay_with_dequantize_linear(kind):
    weights = {
        "w": np.ones((8, 16), np.int8),
        "s": np.full(16, 0.1, np.float32),
        "z": np.ones(16, np.int8),
        "one": np.float32(0.1),
    }
    made = proto(f"g (float[N,8] x) => (y) {{ {UNCHANGED[kind]} }}", weights=weights)
    before = kinds(made)
    dequantize_at_load(made)

    assert kinds(made) == before


READERS = {
    "a layer and another operator": "y = MatMul(x, d) z = Relu(d)",
    "the first factor": "y = MatMul(d, x) z = Relu(x)",
    "an output": "y = MatMul(x, d) z = Identity(x) u = Identity(d)",
}


def test_a_product_that_is_not_a_weight_stays_cast_and_mul():
    weights = {"w": np.ones((8, 8), np.int8), "s": np.full((1, 8), 0.1, np.float32)}
    for readers in READERS.values():
        text = f"g (float[8,8] x) => (y, z) {{ c = Cast<to = 1>(w) d = Mul(c, s) {readers} }}"
        made = proto(text, weights=weights)
        before = kinds(made)
        dequantize_by_operator(made)

        assert kinds(made) == before


def test_scales_of_inputs_rather_than_outputs_stay_cast_and_mul():
    weights = {"w": np.ones((8, 4), np.int8), "s": np.full((8, 1), 0.1, np.float32)}
    text = "g (float[N,8] x) => (y) { c = Cast<to = 1>(w) d = Mul(c, s) y = MatMul(x, d) }"
    made = proto(text, weights=weights)
    dequantize_by_operator(made)

    assert kinds(made) == ["Cast", "Mul", "MatMul"]


def test_a_weight_of_a_branch_changes_back():
    weights = {"w": np.ones((8, 4), np.int8), "s": np.full((1, 4), 0.1, np.float32)}
    text = (
        "g (bool b, float[N,8] x) => (y) { c = Cast<to = 1>(w) d = Mul(c, s) y = If(b) <"
        "then_branch = t () => (float[N,4] p) { p = MatMul(x, d) }, "
        "else_branch = e () => (float[N,4] q) { h = Abs(x) q = MatMul(h, d) }> }"
    )
    made = proto(text, weights=weights | {"unread": normal(1)})
    dequantize_by_operator(made)

    assert kinds(made) == ["DequantizeLinear", "If"]
