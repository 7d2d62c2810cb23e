"""Quantized graphs become QDQ with the same scales and float inputs and outputs."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.tflite.ir import LiteGraph, Op, constant
from tests.builders.handmade_tflite import (
    assert_alike,
    by_onnxruntime,
    convert,
    one,
    op_types_of,
    set_scale,
    tensor,
)
from tests.builders.tiny import normal, uniform

CONV = {
    "stride_h": 1, "stride_w": 1, "dilation_h_factor": 1, "dilation_w_factor": 1,
    "padding": "SAME", "fused_activation_function": "RELU",
}  # fmt: skip


def convolution(dtype="int8", zero=3, made_zero=-128, activation="RELU"):
    """Pixels and weights as integers, a bias in 32 bits."""
    rng = np.random.default_rng(0)
    scales = np.float32([0.01, 0.02, 0.005, 0.03])
    if dtype == "uint8":
        weights = constant(
            "w",
            rng.integers(0, 256, (4, 3, 3, 2)).astype(np.uint8),
            quantization=set_scale(0.02, 131),
        )
        scales = np.float32([0.02])
    else:
        weights = constant(
            "w",
            rng.integers(-127, 128, (4, 3, 3, 2)).astype(np.int8),
            quantization=set_scale(scales),
        )
    kind = np.int64 if dtype == "int16" else np.int32
    bias = constant(
        "b", rng.integers(-900, 900, 4).astype(kind), quantization=set_scale(scales * 0.05)
    )
    x = tensor("x", (1, 6, 5, 2), dtype, set_scale(0.05, zero))
    y = tensor("y", (1, 6, 5, 4), dtype, set_scale(0.1, made_zero))
    options = CONV | {"fused_activation_function": activation}
    return one("CONV_2D", {0: x}, {1: weights, 2: bias}, [y], **options)


@pytest.mark.parametrize(
    "graph",
    [
        convolution(),
        convolution(made_zero=5),
        convolution(activation="RELU6", made_zero=-100),
        convolution(dtype="uint8", zero=120, made_zero=0),
        convolution(dtype="int16", zero=0, made_zero=0),
    ],
    ids=["int8", "a zero inside", "a limit inside", "uint8 of old converters", "int16"],
)
def test_an_integer_convolution_is_the_same_to_one_quantum(graph):
    assert_alike(graph, {"x": normal(1, 6, 5, 2, scale=2.0)}, quanta=1)


def test_activations_become_unsigned_and_weights_stay_as_they_are_stored():
    made = convert(convolution())
    stored = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    conv = next(node for node in made.graph.node if node.op_type == "Conv")
    maker = {name: node for node in made.graph.node for name in node.output}
    pixels, weights, bias = (maker[name] for name in conv.input)
    assert stored[pixels.input[1]] == np.float32(0.05)
    assert stored[pixels.input[2]] == np.uint8(3 + 128)
    assert stored[weights.input[0]].dtype == np.int8
    assert stored[weights.input[1]].tolist() == np.float32([0.01, 0.02, 0.005, 0.03]).tolist()
    assert stored[bias.input[0]].dtype == np.int32
    # The lower limit of the integers is the activation's own.
    assert "Relu" not in op_types_of(made)


def test_integer_inputs_and_outputs_are_floats_to_the_outside():
    made = convert(convolution())
    for value in (*made.graph.input, *made.graph.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert made.opset_import[0].version == 17
    assert convert(convolution(dtype="int16", zero=0, made_zero=0)).opset_import[0].version == 21


def test_rows_of_a_quantized_table_are_picked_before_they_become_floats():
    table = np.random.default_rng(0).integers(-127, 128, (50, 8)).astype(np.int8)
    graph = one(
        "GATHER",
        {1: tensor("i", (1, 4), "int32")},
        {0: constant("t", table, quantization=set_scale(0.02, 4))},
        [tensor("y", (1, 4, 8), "int8", set_scale(0.02, 4))],
        axis=0,
    )
    made = convert(graph)
    assert op_types_of(made)[0] == "Gather"
    picked = by_onnxruntime(made, {"i": np.asarray([[3, 9, 0, 49]], np.int32)})["y"]
    np.testing.assert_allclose(picked[0, 1], (table[9] - 4.0) * 0.02, rtol=1e-6)


def test_weights_in_16_bits_become_floats():
    half = constant("h", normal(5, 6).astype(np.float16))
    wide, x, y = tensor("w", (5, 6)), tensor("x", (1, 6)), tensor("y", (1, 5))
    graph = LiteGraph(
        ops=[
            Op(op_type="DEQUANTIZE", inputs=[half], outputs=[wide]),
            Op(op_type="FULLY_CONNECTED", inputs=[x, wide], outputs=[y]),
        ],
        inputs={"x": x},
        outputs={"y": y},
    )
    assert op_types_of(convert(graph)) == ["Gemm"]
    assert_alike(graph, {"x": normal(1, 6)}, tolerance=1e-5)


def test_hybrid_weights_stay_integers_under_a_scale():
    weights = np.random.default_rng(0).integers(-127, 128, (5, 6)).astype(np.int8)
    graph = one(
        "FULLY_CONNECTED",
        {0: tensor("x", (1, 6))},
        {1: constant("w", weights, quantization=set_scale(0.02))},
        [tensor("y", (1, 5))],
    )
    made = convert(graph)
    assert op_types_of(made) == ["DequantizeLinear", "Gemm"]
    x = normal(1, 6)
    found = by_onnxruntime(made, {"x": x})["y"]
    np.testing.assert_allclose(found, x @ (weights.T * 0.02), rtol=1e-4, atol=1e-5)


def test_concatenated_and_added_integers_agree_to_one_quantum():
    a, b = (tensor(n, (1, 4, 4, 3), "int8", set_scale(0.03, z)) for n, z in (("a", 1), ("b", -7)))
    total = tensor("y", (1, 4, 4, 3), "int8", set_scale(0.05, 2))
    graph = one("ADD", {0: a, 1: b}, {}, [total])
    feeds = {"a": uniform(1, 4, 4, 3, scale=3), "b": uniform(1, 4, 4, 3, seed=1, scale=3)}
    assert_alike(graph, feeds, quanta=1)
