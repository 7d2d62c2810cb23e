"""Fusion of operators into layers."""

import numpy as np
import pytest

from edgekit.tflite.ir import count_op_types
from edgekit.tflite.rewrites.fusion import compute_same_padding
from tests.builders.qdq_graphs import both, lite_graph, make_feed, model
from tests.builders.tiny import normal, proto


def activation_of(op):
    return op.options.get("fused_activation_function", "NONE")


def agrees(made, tolerance=1e-5, **how):
    for want, found in both(made, make_feed(made), **how):
        scale = np.abs(want).max()
        assert np.abs(want - found).max() <= tolerance * scale


def convolve(rest, *, output="float[1,4,8,8] y", weights=None, attributes="pads = [1,1,1,1]"):
    text = f"g (float[1,3,8,8] x) => ({output}) {{ c = Conv <{attributes}> (x, w) {rest} }}"
    return proto(text, weights={"w": normal(4, 3, 3, 3), **(weights or {})})


@pytest.mark.parametrize(
    ("rest", "name"),
    [
        ("y = Relu (c)", "RELU"),
        ("lo = Constant <value_float = 0.0> () hi = Constant <value_float = 6.0> () "
         "y = Clip (c, lo, hi)", "RELU6"),
        ("lo = Constant <value_float = -1.0> () hi = Constant <value_float = 1.0> () "
         "y = Clip (c, lo, hi)", "RELU_N1_TO_1"),
    ],
)  # fmt: skip
def test_an_activation_is_fused_into_its_layer(rest, name):
    made = convolve(rest)

    ops = lite_graph(made).ops

    assert [op.op_type for op in ops if op.op_type != "TRANSPOSE"] == ["CONV_2D"]
    assert name in [activation_of(op) for op in ops]
    agrees(made)


def test_scales_after_a_layer_are_folded_into_weights_and_bias():
    made = convolve(
        "m = Mul (c, s) y = Add (m, b)",
        weights={"s": normal(4, 1, 1, seed=1), "b": normal(1, 4, 1, 1, seed=2)},
    )

    ops = lite_graph(made).ops

    assert count_op_types(ops).keys() == {"TRANSPOSE", "CONV_2D"}
    agrees(made)


def test_factors_that_vary_over_the_image_are_not_folded():
    made = convolve("y = Add (c, b)", weights={"b": normal(8, 8, seed=1)})

    assert count_op_types(lite_graph(made).ops)["ADD"] == 1
    agrees(made)


def test_a_pad_that_is_what_same_pads_needs_no_operator_and_another_one_does():
    even = convolve("y = Relu (c)")
    strided = convolve(
        "y = Relu (c)",
        output="float[1,4,4,4] y",
        attributes="pads = [1,1,1,1], strides = [2,2]",
    )

    assert "PAD" not in count_op_types(lite_graph(even).ops)
    assert count_op_types(lite_graph(strided).ops)["PAD"] == 1
    agrees(even)
    agrees(strided)


def test_same_pads_more_behind_than_before():
    assert compute_same_padding(224, 3, 2) == (0, 1)
    assert compute_same_padding(9, 3, 2) == (1, 1)


HARD_SWISHES = {
    "by hard sigmoid": (14, "h = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x) y = Mul (x, h)"),
    "as one operator": (14, "y = HardSwish (x)"),
    "by clip, divided last": (
        14,
        "s = Add (x, three) c = Clip (s, zero, six) m = Mul (x, c) y = Div (m, six)",
    ),
    "by clip, divided first": (
        14,
        "s = Add (x, three) c = Clip (s, zero, six) d = Div (c, six) y = Mul (d, x)",
    ),
}
NUMBERS = {"zero": np.float32(0), "three": np.float32(3), "six": np.float32(6)}


@pytest.mark.parametrize("name", HARD_SWISHES)
def test_hard_swish_is_one_operator_however_it_is_spelled(name):
    opset, text = HARD_SWISHES[name]
    made = proto(f"g (float[2,16] x) => (float[2,16] y) {{ {text} }}", weights=NUMBERS, opset=opset)

    assert count_op_types(lite_graph(made).ops) == {"HARD_SWISH": 1}
    agrees(made)


GELUS = {
    "none": "d = Div (x, r) e = Erf (d) a = Add (e, one) m = Mul (x, a) y = Mul (m, half)",
    "halved first": "h = Mul (x, half) d = Div (x, r) e = Erf (d) a = Add (one, e) y = Mul (h, a)",
    "tanh": "p = Pow (x, three) q = Mul (p, k) s = Add (x, q) t = Mul (s, c) u = Tanh (t) "
    "a = Add (u, one) h = Mul (x, half) y = Mul (h, a)",
}
GELU_NUMBERS = {
    "r": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5),
    "three": np.float32(3), "k": np.float32(0.044715), "c": np.float32((2 / np.pi) ** 0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", GELUS)
def test_gelu_is_one_operator_however_it_is_spelled(name):
    made = proto(f"g (float[2,16] x) => (float[2,16] y) {{ {GELUS[name]} }}", weights=GELU_NUMBERS)

    assert count_op_types(lite_graph(made).ops) == {"GELU": 1}
    agrees(made)


def test_operators_that_only_resemble_gelu_are_not_fused():
    text = GELUS["none"].replace("Mul (x, a)", "Mul (e, a)")
    made = proto(f"g (float[2,16] x) => (float[2,16] y) {{ {text} }}", weights=GELU_NUMBERS)

    assert "GELU" not in count_op_types(lite_graph(made).ops)
    agrees(made)


def test_a_product_with_a_stored_matrix_and_its_bias_are_one_layer():
    made = proto(
        "g (float[1,5,16] x) => (float[1,5,8] y) { m = MatMul (x, w) y = Add (m, b) }",
        weights={"w": normal(16, 8), "b": normal(8, seed=1)},
    )

    assert count_op_types(lite_graph(made).ops) == {"FULLY_CONNECTED": 1}
    agrees(made)


def test_convolutions_in_a_row_move_data_at_the_entrance_and_the_exit_only():
    layers = "".join(f"c{n} = Conv (r{n - 1}, w) r{n} = Relu (c{n}) " for n in range(1, 5))
    made = proto(
        f"g (float[1,3,8,8] r0) => (float[1,3,8,8] y) {{ {layers} y = Add (r4, r0) }}",
        weights={"w": normal(3, 3, 1, 1)},
    )

    assert count_op_types(lite_graph(made).ops)["TRANSPOSE"] == 2
    agrees(made)


def test_a_layer_that_two_others_read_keeps_its_own_output():
    made = convolve("r = Relu (c) y = Add (c, r)")

    assert count_op_types(lite_graph(made).ops)["RELU"] == 1
    agrees(made)


def test_an_intermediate_output_is_kept():
    nodes = convolve("r = Relu (c) y = Relu (r)").graph.node
    made = model(list(nodes), {"x": [1, 3, 8, 8]}, ["c", "y"], {"w": normal(4, 3, 3, 3)})

    assert set(lite_graph(made).outputs) == {"c", "y"}
    agrees(made)
