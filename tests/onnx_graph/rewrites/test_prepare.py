"""Preparation of a graph before it is edited, and refusals in one line."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.errors import PassRefused
from edgekit.onnx_graph.io import get_opset
from edgekit.onnx_graph.rewrites.prepare import prepare
from tests.builders.tiny import normal, proto, run, uniform, write

NET = (
    "g (float[N,3,8,8] x) => (float[N,3] y) { h = Conv(x, w, b) r = Relu(h) "
    "p = GlobalAveragePool(r) f = Flatten(p) z = Gemm(f, v, c) y = Softmax(z) }"
)
NET_WEIGHTS = {"w": normal(4, 3, 3, 3), "b": normal(4), "v": normal(4, 3), "c": normal(3)}


@pytest.mark.parametrize(("version", "ir"), [(9, 4), (10, 5), (11, 6), (12, 7)])
def test_an_old_model_is_raised_and_computes_the_same(tmp_path, version, ir):
    old = proto(NET, weights=NET_WEIGHTS, opset=version, ir=ir)
    new = prepare(old, 13)

    assert get_opset(new) == 13
    x = uniform(2, 3, 8, 8)
    expected, got = run(write(tmp_path, old), x=x), run(write(tmp_path, new), x=x)
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-6)


def test_a_softmax_over_several_axes_keeps_its_old_meaning(tmp_path):
    text = "g (float[2,3,4] x) => (float[2,3,4] y) { y = Softmax<axis = 1>(x) }"
    old = proto(text, opset=11, ir=6)

    got = run(write(tmp_path, prepare(old, 13)), x=uniform(2, 3, 4))[0]

    np.testing.assert_allclose(got.sum(axis=(1, 2)), [1, 1], rtol=1e-5)


def test_a_model_that_cannot_be_raised_is_refused_with_both_versions():
    made = onnx.parser.parse_model(
        '<ir_version: 4, opset_import: ["" : 9]> '
        "g (float[2] x) => (float[2] y) { y = ThresholdedRelu(x) }"
    )
    with pytest.raises(PassRefused, match=r"raised from 9 to 13: \S") as refused:
        prepare(made, 13)
    assert "\n" not in refused.value.message


def test_local_functions_are_inlined_before_the_opset_is_raised(tmp_path):
    made = proto(
        "g (float[N,4] x) => (float[N,4] y) { y = local.twice(x) }",
        opset=12,
        imports=', "local" : 1',
        functions=' <domain: "local", opset_import: ["" : 12]> twice (a) => (b) { b = Add(a, a) }',
    )
    new = prepare(made, 13)

    assert not new.functions
    assert [node.op_type for node in new.graph.node] == ["Add"]
    assert run(write(tmp_path, new), x=np.ones((1, 4), np.float32))[0].tolist() == [[2] * 4]


@pytest.mark.parametrize(
    ("line", "op"),
    [
        ("q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)", "DequantizeLinear"),
        ("q, t, u = DynamicQuantizeLinear(x) y = DequantizeLinear(q, t, u)", "DynamicQuantize"),
        ("y = com.microsoft.QLinearSigmoid(x, s, z, s, z)", "QLinearSigmoid"),
    ],
)
def test_a_quantized_model_is_refused_and_the_operators_are_named(line, op):
    made = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> '
        f"g (float[N,3] x) => (float[N,3] y) {{ {line} }}"
    )
    with pytest.raises(PassRefused, match=f"already quantized .*{op}"):
        prepare(made, 13)


def test_sparse_weights_are_refused():
    made = proto("g (float[2,2] x) => (float[2,2] y) { y = MatMul(x, w) }")
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [2.0])
    places = helper.make_tensor("w_at", TensorProto.INT64, [1], [3])
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [2, 2]))

    with pytest.raises(PassRefused, match="sparse"):
        prepare(made, 13)


def test_weights_that_are_inputs_as_well_become_plain_constants(tmp_path):
    text = "g (float[N,6] x, float[6,4] w, float[4] b) => (float[N,4] y) { y = Gemm(x, w, b) }"
    old = proto(text, weights={"w": normal(6, 4), "b": normal(4)}, opset=13, ir=3)
    expected = run(write(tmp_path, old), x=uniform(2, 6))

    new = prepare(old, 13)

    assert [v.name for v in new.graph.input] == ["x"]
    np.testing.assert_array_equal(run(write(tmp_path, new), x=uniform(2, 6)), expected)


def test_constant_nodes_become_initializers_even_where_they_are_outputs(tmp_path):
    text = (
        "g (float[2] x) => (float[2] k, float[2] y) "
        "{ k = Constant<value = float[2] {1.0, 2.0}>() y = Add(x, k) }"
    )
    new = prepare(proto(text), 13)

    assert [node.op_type for node in new.graph.node] == ["Add"]
    k, y = run(write(tmp_path, new), x=np.array([10, 20], np.float32))
    assert (k.tolist(), y.tolist()) == ([1, 2], [11, 22])
