"""Weights in float16, int8 and 4 bits."""

import numpy as np
import pytest

from edgekit.conversion.onnx_to_tflite.convert import convert_to_tflite
from edgekit.errors import PassRefused
from edgekit.tflite.ir import count_op_types
from tests.builders.qdq_graphs import Qdq, both, by_litert, by_onnxruntime, lite_graph, make_feed
from tests.builders.tiny import normal, proto, sqnr_db
from tests.tflite.rewrites.test_quantize import int8, scales

TEXT = """g (float[1,32,12,12] x) => (float[1,10] y) {
    c = Conv <pads = [1,1,1,1]> (x, w1) r = Relu (c)
    d = Conv <pads = [1,1,1,1], group = 64> (r, w2) p = GlobalAveragePool (d)
    f = Flatten (p) y = MatMul (f, w3) }"""


def network():
    return proto(
        TEXT,
        weights={
            "w1": normal(64, 32, 3, 3, scale=0.1),
            "w2": normal(64, 1, 3, 3, seed=1),
            "w3": normal(64, 10, seed=2),
        },
    )


def error_db(made, **how):
    feed = make_feed(made)
    [want] = by_onnxruntime(made, feed)
    return sqnr_db(want, by_litert(convert_to_tflite(made, {}, **how), feed)["y"])


def test_float16_halves_the_file_and_dynamic_quarters_it():
    made = network()
    size = {
        how: len(convert_to_tflite(made, {}, precision=how))
        for how in ("same", "float16", "dynamic")
    }

    assert size["float16"] < 0.55 * size["same"]
    assert size["dynamic"] < 0.35 * size["same"]
    assert error_db(made, precision="float16") > 50
    assert error_db(made, precision="dynamic") > 30


def test_dynamic_layers_read_integers_but_depthwise_ones_which_would_be_slow():
    ops = lite_graph(network(), precision="dynamic").ops

    read = {op.op_type: op.inputs[1].dtype for op in ops if len(op.inputs) > 2}
    assert read["CONV_2D"] == "int8"
    assert read["DEPTHWISE_CONV_2D"] == "float32"


def test_a_float_that_sixteen_bits_cannot_hold_is_stored_as_it_is():
    weight = normal(16, 16)
    weight[0, 0] = 1e6
    made = proto(
        "g (float[1,16] x) => (float[1,16] y) { y = MatMul (x, w) }", weights={"w": weight}
    )

    assert "DEQUANTIZE" not in count_op_types(lite_graph(made, precision="float16").ops)


def test_rows_of_a_table_are_gathered_as_integers_with_the_scale_of_each():
    made = proto(
        "g (int64[1,5] x) => (float[1,5,16] y) { y = Gather (t, x) }",
        weights={"t": normal(100, 16) * np.logspace(-2, 2, 100, dtype=np.float32)[:, None]},
    )
    feed = {"x": np.asarray([[0, 3, 50, 98, 99]])}

    [want] = by_onnxruntime(made, feed)
    found = by_litert(convert_to_tflite(made, {}, precision="dynamic"), feed)["y"]

    assert (np.abs(want - found).max(-1) <= np.abs(want).max(-1) / 250).all()
    assert len(convert_to_tflite(made, {}, precision="dynamic")) < 0.6 * len(
        convert_to_tflite(made, {})
    )


def test_stored_integers_under_float_activations_stay_as_small_and_exact():
    q = Qdq()
    q.inputs["x"] = [1, 4, 64]
    weight = q.stored("w", int8(64, 64), scales(64), 1)
    made = q.finished(q.plain("MatMul", ["x", weight]))

    assert len(convert_to_tflite(made, {})) < 8000
    [(want, found)] = both(made, make_feed(made))
    assert np.abs(want - found).max() <= 1e-5 * np.abs(want).max()


def test_the_old_runtime_gets_products_with_many_scales_as_convolutions():
    q = Qdq()
    image = q.fed("x", [1, 4, 16])
    weight = q.stored("w", int8(16, 8), scales(8), 1)
    made = q.finished(q.add("MatMul", [image, weight], 0.05))

    assert "FULLY_CONNECTED" in count_op_types(lite_graph(made).ops)
    assert "FULLY_CONNECTED" not in count_op_types(lite_graph(made, target="tflite-runtime").ops)
    [(want, found)] = both(made, make_feed(made), target="tflite-runtime")
    assert np.abs(want - found).max() <= 0.0501


def test_dynamic_of_a_model_whose_weights_are_all_small_is_refused():
    made = proto(
        "g (float[1,16] x) => (float[1,8] y) { y = MatMul (x, w) }", weights={"w": normal(16, 8)}
    )

    with pytest.raises(PassRefused, match="1024 weights"):
        convert_to_tflite(made, {}, precision="dynamic")


def test_dynamic_of_a_model_that_runs_on_integers_is_refused():
    q = Qdq()
    weight = q.stored("w", np.ones((4, 3, 3, 3), np.int8), np.full(4, 0.01, np.float32))
    made = q.finished(q.add("Conv", [q.fed("x", [1, 3, 8, 8]), weight], 0.05))

    with pytest.raises(PassRefused, match="already quantized, including its activations"):
        convert_to_tflite(made, {}, precision="dynamic")


def test_sixteen_bits_of_a_model_without_ranges_are_refused():
    with pytest.raises(PassRefused, match="no activation ranges"):
        convert_to_tflite(network(), {}, precision="int16x8")
