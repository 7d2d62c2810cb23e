"""Scales of biases are computed if that gives the same number, and stored again on demand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekit.onnx_graph.io import open_session
from edgekit.onnx_graph.rewrites.bias_scales import (
    compute_bias_scales,
    computes_bias_scales,
    store_bias_scales,
)
from tests.builders.tiny import normal, proto, uniform, write

LAYERS = {
    "Conv": ("float[N,4,6,6]", "Conv(c, v, k)", (32, 4, 3, 3), 0),
    "Gemm": ("float[N,4]", "Gemm(c, v, k)", (4, 32), 1),
    "Gemm of rows": ("float[N,4]", "Gemm<transB = 1>(c, v, k)", (32, 4), 0),
    "ConvTranspose": ("float[N,4,6,6]", "ConvTranspose(c, v, k)", (4, 32, 3, 3), 1),
}
INPUT = np.float32(0.0123)
SCALES = np.abs(normal(32, seed=3, scale=0.01)) + np.float32(1e-3)


def layer(kind="Conv", *, bias_scales=INPUT * SCALES, more="", outputs="y", **weights):
    """One int8 layer with a bias."""
    x, made, shape, axis = LAYERS[kind]
    zeros = ", vz" if "Gemm" in kind else ""
    text = (
        f"g ({x} x) => ({outputs}) {{ a = QuantizeLinear(x, xs, xz) "
        f"c = DequantizeLinear(a, xs, xz) v = DequantizeLinear<axis = {axis}>(w, ws{zeros}) "
        f"k = DequantizeLinear<axis = 0>(b, bs) y0 = {made} q = QuantizeLinear(y0, ys, xz) "
        f"y = DequantizeLinear(q, ys, xz) {more} }}"
    )
    channels = len(bias_scales)
    sizes = tuple(channels if size == 32 else size for size in shape)
    rng = np.random.default_rng(0)
    held = {
        "xs": INPUT, "xz": np.uint8(128), "ys": np.float32(0.02),
        "w": rng.integers(-127, 128, sizes).astype(np.int8), "ws": SCALES[:channels],
        "vz": np.zeros(channels, np.int8), "bs": bias_scales,
        "b": rng.integers(-5000, 5000, channels).astype(np.int32),
    }  # fmt: skip
    return proto(text, weights=held | weights)


def run_with_computed_scales(given):
    made = onnx.ModelProto()
    made.CopyFrom(given)
    compute_bias_scales(made)
    return made


def names(made):
    return [tensor.name for tensor in made.graph.initializer]


@pytest.mark.parametrize("kind", LAYERS)
def test_a_computed_scale_changes_no_output_and_is_stored_again_as_it_was(tmp_path, kind):
    given = layer(kind)
    made = run_with_computed_scales(given)
    feed = uniform(3, *((4, 6, 6) if "Conv" in kind else (4,)))
    before, after = (open_session(write(tmp_path, p).path).run(None, {"x": feed})[0]
                     for p in (given, made))  # fmt: skip

    assert [node.op_type for node in made.graph.node].count("Mul") == 1
    assert "bs" not in names(made)
    assert made.ByteSize() < given.ByteSize() - 80
    np.testing.assert_array_equal(after, before)
    assert computes_bias_scales(made)
    store_bias_scales(made)
    assert not computes_bias_scales(made)
    assert sorted(map(str, made.graph.node)) == sorted(map(str, given.graph.node))
    again = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    assert again["bs"].tobytes() == (INPUT * SCALES).tobytes()


def test_one_product_serves_layers_that_share_it(tmp_path):
    more = "k2 = DequantizeLinear<axis = 0>(b, bs) z = Conv(c, v, k2)"
    made = run_with_computed_scales(layer(outputs="y, z", more=more))

    assert [node.op_type for node in made.graph.node].count("Mul") == 1
    assert write(tmp_path, made).signature.outputs[1].name == "z"


KEPT = {
    "another number": {"bias_scales": np.nextafter(INPUT * SCALES, np.float32(1))},
    "few channels": {"bias_scales": (INPUT * SCALES)[:8]},
    "an output": {"outputs": "y, bs"},
    "read as numbers": {"outputs": "y, z", "more": "z = Neg(bs)"},
    "the scale of a weight": {
        "outputs": "y, z",
        "more": "v2 = DequantizeLinear<axis = 0>(w, bs) z = Conv(c, v2)",
    },
    "denormal": {"xs": np.float32(1e-38), "bias_scales": np.float32(1e-38) * SCALES},
}


@pytest.mark.parametrize("kind", KEPT)
def test_other_scales_stay_stored(kind):
    given = layer(**KEPT[kind])

    assert run_with_computed_scales(given) == given


def test_biases_whose_scales_an_operator_computes_stay_behind_it(tmp_path):
    more = "e = Abs(bs2) k2 = DequantizeLinear<axis = 0>(b, e) z = Conv(c, v, k2)"
    given = layer(outputs="y, z", more=more, bs2=INPUT * SCALES)
    made = run_with_computed_scales(given)

    assert [node.op_type for node in made.graph.node][:2] == ["Mul", "DequantizeLinear"]
    assert write(tmp_path, made).signature.outputs[1].name == "z"


def test_a_factor_that_callers_can_replace_is_not_multiplied_beforehand():
    given = layer()
    kind = helper.make_tensor_type_proto(1, [])
    given.graph.input.add(name="xs", type=kind)

    assert run_with_computed_scales(given) == given


@pytest.mark.parametrize(
    "factors", [(normal(3), normal(4)), (normal(3, 1), normal(1, 4)), (normal(2, 4), normal(1))]
)
def test_factors_that_are_not_scales_are_not_folded(factors):
    text = (
        "g (float[4] x) => (float[4] y) { s = Mul(p, q) k = DequantizeLinear(b, s) y = Add(x, k) }"
    )
    held = {"p": factors[0], "q": factors[1], "b": np.ones(4, np.int32)}
    made = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    made.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in held.items())

    assert not computes_bias_scales(made)


def test_products_of_activations_stay_products():
    made = proto("g (float[N,4] x) => (float[N,4] y) { y = Mul(x, s) }", weights={"s": normal(4)})
    before = made.SerializeToString()
    store_bias_scales(made)

    assert made.SerializeToString() == before
