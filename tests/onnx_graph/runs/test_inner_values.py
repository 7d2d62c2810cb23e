"""Values of inner graphs can be observed in the main graph."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ValueInfoProto

from edgekit.onnx_graph.runs.inner_values import Exposure
from tests.builders.tiny import normal, proto, uniform


def observe(made, place, name, **feeds):
    """A value of an inner graph, and what the model says beside it."""
    exposure = Exposure(made)
    wanted = exposure.expose(place, name)
    exposure.proto.graph.output.append(ValueInfoProto(name=wanted))
    session = ort.InferenceSession(
        exposure.proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    *outputs, value = session.run(None, feeds)
    return outputs, value


BRANCHES = (
    "g (float[N,4] x, bool which) => (float[N,4] y) { y = If(which)<"
    "then_branch = t () => (float[N,4] a) { m = Add(x, x) a = Tanh(m) }, "
    "else_branch = e () => (float[N,4] b) { n = Neg(x) b = Tanh(n) }> }"
)


@pytest.mark.parametrize("taken", [True, False])
def test_a_value_of_a_branch_is_there_when_the_branch_is_taken(taken):
    x = uniform(3, 4)
    outputs, value = observe(proto(BRANCHES), 1, "m", x=x, which=np.array(taken))
    np.testing.assert_allclose(outputs[0], np.tanh(2 * x if taken else -x), rtol=1e-6)
    if taken:
        np.testing.assert_array_equal(value, 2 * x)
    else:
        assert value.size == 0


def test_a_value_of_a_loop_has_an_axis_of_the_rounds():
    text = (
        "g (float[1,4] x) => (float[1,4] y) { n = Constant<value = int64 {3}>() "
        "y = Loop(n, , x)<body = b (int64 i, bool go, float[1,4] a) => (bool on, float[1,4] o) "
        "{ on = Identity(go) m = MatMul(a, w) o = Tanh(m) }> }"
    )
    weight, x = normal(4, 4), uniform(1, 4)
    _, value = observe(proto(text, weights={"w": weight}), 1, "m", x=x)
    state, expected = x, []
    for _ in range(3):
        expected.append(state @ weight)
        state = np.tanh(expected[-1])
    np.testing.assert_allclose(value, np.stack(expected), rtol=1e-4, atol=1e-6)
    assert Exposure(proto(text, weights={"w": weight})).count_iteration_axes(1) == 1


def test_a_value_of_a_scan_whose_outputs_have_axes_of_their_own():
    text = (
        "g (float[1,4] s, float[5,4] x) => (float[1,4] last, float[4,5] all) "
        "{ last, all = Scan<num_scan_inputs = 1, scan_output_axes = [1], body = b "
        "(float[1,4] h, float[4] e) => (float[1,4] o, float[4] r) "
        "{ k = Add(h, e) o = Tanh(k) z = Constant<value = int64[1] {0}>() r = Squeeze(o, z) }>"
        "(s, x) }"
    )
    s, x = uniform(1, 4), uniform(5, 4, seed=1)
    outputs, value = observe(proto(text), 1, "k", s=s, x=x)
    state, expected = s, []
    for row in x:
        expected.append(state + row)
        state = np.tanh(expected[-1])
    np.testing.assert_allclose(value, np.stack(expected), rtol=1e-5)
    np.testing.assert_allclose(outputs[0], state, rtol=1e-5)


def test_a_value_of_a_branch_inside_a_branch():
    text = (
        "g (float[N,4] x, bool which) => (float[N,4] y) { y = If(which)<"
        "then_branch = t () => (float[N,4] a) { a = If(which)<"
        "then_branch = tt () => (float[N,4] c) { m = Add(x, x) c = Neg(m) }, "
        "else_branch = te () => (float[N,4] d) { d = Identity(x) }> }, "
        "else_branch = e () => (float[N,4] b) { b = Neg(x) }> }"
    )
    x = uniform(3, 4)
    _, value = observe(proto(text), 2, "m", x=x, which=np.array(True))
    np.testing.assert_array_equal(value, 2 * x)


def test_the_model_itself_is_not_changed():
    made = proto(BRANCHES)
    before = made.SerializeToString()
    Exposure(made).expose(1, "m")
    assert made.SerializeToString() == before
