"""Quantized operators in LiteRT."""

import numpy as np
import pytest

from tests.builders import tiny
from tests.builders.qdq_graphs import both, lite_graph, make_feed


def pair(scale, zero, *, attributes=""):
    """QuantizeLinear and DequantizeLinear of what is fed."""
    text = f"""g (float[2, 3, 4] x) => (float[2, 3, 4] y)
    {{ q = QuantizeLinear <{attributes}> (x, s, z)
       y = DequantizeLinear <{attributes}> (q, s, z) }}"""
    text = text.replace(" <>", "")
    return tiny.proto(text, weights={"s": scale, "z": zero}, opset=21)


def agree(proto):
    feed = make_feed(proto)
    for want, got in both(proto, feed):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_integers_of_one_scale_are_those_of_onnxruntime(dtype):
    agree(pair(np.float32(0.02), np.asarray(7, dtype)))


def test_integers_of_a_scale_for_each_channel_are_those_of_onnxruntime():
    scales, zeros = np.float32([0.02, 0.1, 0.3]), np.int8([0, 3, -5])
    agree(pair(scales, zeros, attributes="axis = 1"))


def test_unsigned_integers_between_reals_are_stored_signed():
    graph = lite_graph(pair(np.float32(0.02), np.uint8(130)))
    (quantize,) = (op for op in graph.ops if op.op_type == "QUANTIZE")
    (made,) = quantize.outputs
    assert made.dtype == "int8"
    assert made.quantization.zero_points.tolist() == [2]


def test_unsigned_integers_that_leave_the_graph_stay_unsigned():
    proto = tiny.proto(
        "g (float[4] x) => (uint8[4] q, float[4] y)"
        " { q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z) }",
        weights={"s": np.float32(0.02), "z": np.uint8(130)},
    )
    for want, got in both(proto, make_feed(proto)):
        np.testing.assert_allclose(got, want, rtol=1e-6)
        assert got.dtype == want.dtype


@pytest.mark.parametrize("block", [0, 2])
def test_stored_integers_are_dequantized_by_axis_and_by_block(block):
    stored = np.arange(-12, 12, dtype=np.int8).reshape(4, 6)
    scales = tiny.uniform(2, 6, seed=1) + 2 if block else tiny.uniform(6, seed=1) + 2
    words = "axis = 0, block_size = 2" if block else "axis = 1"
    proto = tiny.proto(
        f"g (float[3, 4] x) => (float[3, 6] y) {{ w = DequantizeLinear <{words}> (k, s)"
        "  y = MatMul (x, w) }",
        weights={"k": stored, "s": scales},
        opset=21,
    )
    ((want, got),) = both(proto, make_feed(proto))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_a_scale_that_is_computed_from_the_data_is_followed():
    proto = tiny.proto("""g (float[3, 4] x) => (uint8[3, 4] q, float s, uint8 z)
        { q, s, z = DynamicQuantizeLinear (x) }""")
    for want, got in both(proto, make_feed(proto)):
        np.testing.assert_allclose(got.astype(np.float32), want, rtol=1e-6, atol=0)


def _integers(*shape, seed, dtype=np.uint8):
    bounds = np.iinfo(dtype)
    return np.random.default_rng(seed).integers(bounds.min, bounds.max, shape).astype(dtype)


def test_a_convolution_of_integers_is_one_on_the_device():
    proto = tiny.proto(
        """g (float[1, 3, 8, 8] x) => (float[1, 4, 6, 6] y)
        { q = QuantizeLinear (x, xs, xz)
          c = QLinearConv (q, xs, xz, w, ws, wz, ys, yz, b)
          y = DequantizeLinear (c, ys, yz) }""",
        weights={
            "xs": np.float32(0.02),
            "xz": np.uint8(128),
            "w": _integers(4, 3, 3, 3, seed=1, dtype=np.int8),
            "ws": np.float32([0.01, 0.02, 0.01, 0.03]),
            "wz": np.zeros(4, np.int8),
            "ys": np.float32(0.5),
            "yz": np.uint8(120),
            "b": np.int32([100, -200, 300, 0]),
        },
    )
    ((want, got),) = both(proto, make_feed(proto))
    assert np.abs(got - want).max() <= 0.5 + 1e-5
    assert np.mean(got != want) < 0.02
    (conv,) = (op for op in lite_graph(proto).ops if op.op_type == "CONV_2D")
    assert conv.outputs[0].dtype == "int8"


def test_products_of_integers_are_exact():
    proto = tiny.proto(
        """g (uint8[3, 40] a) => (int32[3, 5] y)
        { y = MatMulInteger (a, b, az, bz) }""",
        weights={
            "b": _integers(40, 5, seed=1),
            "az": np.uint8(12),
            "bz": np.uint8(130),
        },
    )
    ((want, got),) = both(proto, {"a": _integers(3, 40, seed=2)})
    np.testing.assert_array_equal(got, want)
