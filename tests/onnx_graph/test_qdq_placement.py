"""Tensors become 8-bit if an integer kernel reads or writes them, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.qdq_placement import plan_placement
from tests.builders.tiny import normal, proto

W = {
    "w": normal(4, 3, 3, 3),
    "v": normal(4, 4, 1, 1),
    "six": np.float32(6),
    "k": normal(4, 1, 1),
    "axes": np.array([0, -1]),
    "u": normal(4, 2, 1, 1),
    "d": normal(4, 8, 1, 1),
    "half": normal(2, 1, 1),
}


def place(body, outputs="y"):
    typed = ", ".join(f"float[N,C,H,L] {name}" for name in outputs.split())
    text = f"g (float[N,3,8,8] x) => ({typed}) {{ {body} }}"
    weights = {name: array for name, array in W.items() if name in body.replace(")", ",")}
    return plan_placement(GraphIndex(proto(text, weights=weights)))


def test_an_activation_is_absorbed_by_the_convolution_before_it():
    assert place("c = Conv(x, w) y = Relu(c)").values == ["x", "y"]


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("c = Conv(x, w) y = Relu(c) z = Neg(c)", "y z"),
        ("c = Conv(x, w) y = Relu(c)", "c y"),
        ("c = Conv(x, w) m = Neg(k) y = Clip(c, m)", "y"),
    ],
    ids=["read elsewhere", "an output itself", "bounds that are computed"],
)
def test_an_activation_is_not_absorbed_where_its_input_is_needed_or_its_bounds_unknown(
    body, outputs
):
    assert place(body, outputs).values == ["x", "c"]


def test_a_bound_that_is_stored_or_missing_is_known():
    assert place("c = Conv(x, w) y = Clip(c, , six)").values == ["x", "y"]


def test_moved_values_share_the_parameters_of_what_they_move():
    placement = place("c = Conv(x, w) m = MaxPool<kernel_shape = [2,2]>(c) y = Conv(m, v)")

    assert placement.values == ["x", "c", "m", "y"]
    assert placement.root("m") == "c"


def test_values_after_the_last_integer_kernel_stay_float():
    placement = place("c = Conv(x, w) m = MaxPool<kernel_shape = [2,2]>(c) y = Neg(m)")

    assert placement.values == ["x", "c"]
    assert placement.parameter_source == {}


def test_a_sum_is_8_bit_only_where_all_of_its_inputs_are():
    both = place("c = Conv(x, w) d = Conv(c, v) s = Add(c, d) y = Conv(s, v)")
    one = place("c = Conv(x, w) s = Add(c, k) y = Conv(s, v)")

    assert both.values == ["x", "c", "d", "s", "y"]
    assert one.values == ["x", "c", "s", "y"]  # s as the input of a kernel, not as an 8-bit sum
    assert len(one.weighted) == 2


def test_operators_of_other_domains_are_not_taken_for_the_standard_ones():
    text = "g (float[N,6] x) => (float[N,4] y) { y = acme.MatMul(x, w) }"
    made = proto(text, weights={"w": normal(6, 4)}, imports=', "acme" : 1')

    assert plan_placement(GraphIndex(made)).weighted == []


def test_all_parts_of_a_split_share_the_parameters_of_the_whole():
    placement = place("c = Conv(x, w) p, q = Split<axis = 1>(c) s = Add(p, q) y = Conv(s, u)")

    assert placement.root("p") == placement.root("q") == "c"
    assert {"p", "q", "s"} <= set(placement.values)


def test_nothing_of_a_split_is_8_bit_where_no_integer_kernel_reads_a_part():
    placement = place("c = Conv(x, w) p, q = Split<axis = 1>(c) y = Add(p, half)")

    assert placement.values == ["x", "c"]


def test_an_operator_without_a_kernel_passes_8_bits_on_to_one_that_takes_nothing_else():
    joined = place("c = Conv(x, w) t = Tanh(c) s = Concat<axis = 1>(t, c) y = Conv(s, d)")
    alone = place("c = Conv(x, w) t = Tanh(c) y = Neg(t)")

    assert "t" in joined.values
    assert joined.root("t") == "t"
    assert "t" not in alone.values
