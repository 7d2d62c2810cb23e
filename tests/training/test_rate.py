"""The bits of few-bit weights as a loss: estimate, gradient and price."""

import numpy as np
import pytest

from edgekit.bundle.packing.slices import estimate_packed_bits
from tests.builders import tiny


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


def few_bit_model(integers):
    text = """
    g (float[N,64] x) => (float[N,32] y) {
        d = DequantizeLinear <axis=1> (q, s)
        h = MatMul (x, d)
        y = Add (h, b)
    }"""
    scales = 0.1 + np.abs(tiny.normal(32, seed=3, scale=0.1))
    weights = {"q": integers.astype(np.int8), "s": scales, "b": tiny.normal(32)}
    return tiny.proto(text, weights=weights)


def make_rate(integers):
    from edgekit.training.learning.rate import Rate
    from edgekit.training.tf_function.onnx_function import GraphFunction

    function = GraphFunction(few_bit_model(integers))
    return Rate(function.parameters), function.variables_by_name["q"]


def draw_integers(spread, highest):
    drawn = np.random.default_rng(0).normal(0, spread, (64, 32))
    return np.clip(np.rint(drawn), -highest, highest)


def test_the_bits_are_about_those_of_the_packed_file(tf):
    integers = draw_integers(1.0, 3)
    rate, _ = make_rate(integers)
    packed = estimate_packed_bits(integers.astype(np.int8))
    assert rate.names == ("q",)
    assert rate.measure() == round(packed)
    assert float(rate.bits()) == pytest.approx(packed, rel=0.05)


def test_steps_down_the_gradient_make_the_packed_weights_smaller(tf):
    rate, variable = make_rate(draw_integers(1.0, 3))
    before = rate.measure()
    for _ in range(30):
        with tf.GradientTape() as tape:
            bits = rate.bits()
        variable.assign_sub(2e-3 * tape.gradient(bits, variable))
        rate.update()
    assert rate.measure() < 0.8 * before


def test_the_gradient_is_the_difference_in_bits_between_neighboring_levels(tf):
    integers = draw_integers(1.0, 3)
    rate, variable = make_rate(integers)
    steps = 0.1 + np.abs(tiny.normal(32, seed=3, scale=0.1))
    place = tuple(np.argwhere(integers == 1)[0])
    between = variable.numpy()
    between[place] += 0.25 * steps[place[1]]  # between the levels 1 and 2
    variable.assign(between)
    with tf.GradientTape() as tape:
        bits = rate.bits()
    counts = [(integers == level).sum() + 0.5 for level in (1, 2)]
    wanted = np.log2(counts[0] / counts[1]) / steps[place[1]]
    assert tape.gradient(bits, variable).numpy()[place] == pytest.approx(wanted, rel=1e-3)


def test_weights_of_eight_bits_and_floats_have_no_rate(tf):
    rate, _ = make_rate(draw_integers(45.0, 127))
    assert rate.names == ()
    assert rate.measure() == 0
    assert float(rate.bits()) == 0


def test_the_price_rises_above_the_budget_and_falls_below_it_within_its_bounds(tf):
    from edgekit.training.learning.rate import Price

    price = Price(budget=100, value=1.0, least=0.5, most=2.0)
    assert price.update(101) > 1
    assert [price.update(101) for _ in range(9)][-1] == 2
    assert price.update(100) < 2
    assert [price.update(1) for _ in range(9)][-1] == 0.5


def test_zeros_of_pruned_float_weights_stay(tf):
    from edgekit.training.learning.rate import find_zero_masks
    from edgekit.training.tf_function.onnx_function import GraphFunction

    pruned = tiny.normal(6, 4) * (tiny.normal(6, 4, seed=1) > 0)
    text = (
        "g (float[N,6] x) => (float[N,2] y) { h = MatMul (x, w) a = Add (h, b) y = MatMul (a, v) }"
    )
    weights = {"w": pruned, "b": np.zeros(4, np.float32), "v": tiny.normal(4, 2)}
    masks = find_zero_masks(GraphFunction(tiny.proto(text, weights=weights)).parameters)
    assert masks.keys() == {"w"}
    np.testing.assert_array_equal(masks["w"], pruned == 0)
