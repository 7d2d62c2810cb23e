"""Quantized operators run in integer kernels with the scales of the ONNX file."""

import numpy as np
import pytest

from edgekit.tflite.ir import count_op_types
from tests.builders.qdq_graphs import (
    Qdq,
    both,
    is_integer,
    lite_graph,
    make_feed,
)
from tests.builders.quantized_layers import (
    RNG,
    convolution,
    int8,
    layer,
    scales,
    softmax,
)


def stride(q):
    image = q.fed("x", [1, 3, 9, 8])
    return layer(q, "Conv", image, int8(4, 3, 3, 3), 0.06, pads=[1, 1, 1, 1], strides=[2, 2])


def without_bias(q):
    return layer(q, "Conv", q.fed("x", [1, 3, 8, 8]), int8(8, 3, 1, 1), 0.05, bias=False)


def depthwise(q):
    image = q.fed("x", [1, 6, 8, 8])
    return layer(q, "Conv", image, int8(6, 1, 3, 3), 0.05, pads=[1, 1, 1, 1], group=6)


def gemm(q):
    return layer(q, "Gemm", q.fed("x", [4, 16]), int8(8, 16), 0.05, transB=1)


def matmul(q):
    image = q.fed("x", [1, 4, 16])
    return layer(q, "MatMul", image, int8(16, 8), 0.05, bias=False, axis=1)


def addition(q):
    return q.add("Add", [q.fed("x", [1, 4, 6]), q.fed("y", [1, 4, 6], 0.03)], 0.06)


def multiplication(q):
    return q.add("Mul", [q.fed("x", [1, 4, 6]), q.fed("y", [1, 4, 6], 0.03)], 0.1)


def by_a_number(q):
    return q.add("Mul", [q.fed("x", [1, 4, 6]), q.constant("n", np.float32(0.7))], 0.04)


def subtraction(q):
    return q.add("Sub", [q.fed("x", [1, 4, 6]), q.fed("y", [4, 1], 0.03)], 0.06)


def two_products(q):
    return q.add("MatMul", [q.fed("x", [2, 4, 6]), q.fed("y", [2, 6, 5], 0.03)], 0.1)


def concatenation(q):
    parts = [q.fed("x", [1, 3, 4, 4]), q.fed("y", [1, 2, 4, 4], 0.03)]
    return q.add("Concat", parts, 0.06, axis=1)


def largest(q):
    return q.add("MaxPool", [q.fed("x", [1, 3, 8, 8])], 0.05, kernel_shape=[2, 2], strides=[2, 2])


def average(q):
    return q.add("GlobalAveragePool", [q.fed("x", [1, 3, 8, 8])], 0.02)


def local_average(q):
    image = q.fed("x", [1, 3, 8, 8])
    return q.add("AveragePool", [image], 0.05, kernel_shape=[2, 2], strides=[2, 2])


def sigmoid(q):
    return q.add("Sigmoid", [q.fed("x", [3, 10])], 1 / 256, 0)


def tanh(q):
    return q.add("Tanh", [q.fed("x", [3, 10])], 1 / 128)


def leaky(q):
    return q.add("LeakyRelu", [q.fed("x", [3, 10])], 0.04, alpha=0.1)


def reshape(q):
    return q.add("Reshape", [q.fed("x", [2, 6]), q.constant("to", np.asarray([3, 4]))], 0.05)


def transpose(q):
    return q.add("Transpose", [q.fed("x", [2, 3, 4])], 0.07, perm=[2, 0, 1])


def pad(q):
    pads = q.constant("p", np.asarray([0, 0, 1, 1, 0, 0, 1, 1]))
    return q.add("Pad", [q.fed("x", [1, 2, 4, 4]), pads], 0.05)


def transposed_convolution(q):
    weight = q.stored("w", int8(3, 5, 3, 3), scales(5), 1)
    return q.add("ConvTranspose", [q.fed("x", [1, 3, 4, 4]), weight], 0.1, strides=[2, 2])


def group(q):
    image = q.fed("x", [1, 4, 8, 8])
    return layer(q, "Conv", image, int8(6, 2, 3, 3), 0.06, bias=False, group=2)


def along_a_line(q):
    return layer(q, "Conv", q.fed("x", [1, 3, 9]), int8(5, 3, 3), 0.05, pads=[1, 1])


def over_a_number(q):
    return q.add("Div", [q.fed("x", [2, 30]), q.constant("n", np.float32(3))], 0.02)


def larger_of_two(q):
    return q.add("Max", [q.fed("x", [1, 4, 6]), q.fed("y", [1, 4, 6], 0.03)], 0.05)


def either(q):
    mask = q.constant("c", np.asarray([[True, False, True]]))
    return q.add("Where", [mask, q.fed("x", [2, 3]), q.fed("y", [2, 3], 0.03)], 0.05)


def cut(q):
    bounds = [q.constant(n, np.asarray([k])) for n, k in (("from", 1), ("to", 3), ("axis", 1))]
    return q.add("Slice", [q.fed("x", [4, 6]), *bounds], 0.07)


def filled(q):
    pads, fill = q.constant("p", np.asarray([1, 1, 1, 1])), q.constant("v", np.float32(1.5))
    return q.add("Pad", [q.fed("x", [2, 3]), pads, fill], 0.05)


def larger_image(q):
    sizes = q.constant("s", np.float32([1, 1, 2, 2]))
    return q.add("Resize", [q.fed("x", [1, 3, 4, 4]), "", sizes], 0.05, mode="linear")


def slopes(q):
    alpha = q.stored("a", int8(3, 1, 1), np.float32(0.004))
    return q.add("PRelu", [q.fed("x", [1, 3, 4, 4]), alpha], 0.05)


def bent(q):
    return q.add("Elu", [q.fed("x", [2, 30])], 0.05)


def rectify(q):
    return q.add("Relu", [q.fed("x", [2, 30])], 0.03)


def add_sum(q):
    return q.add("ReduceSum", [q.fed("x", [2, 3, 4]), q.constant("a", np.asarray([2]))], 0.1)


CASES = {
    transposed_convolution: {"TRANSPOSE_CONV"},
    group: {"CONV_2D"},
    along_a_line: {"CONV_2D"},
    over_a_number: {"MUL"},
    larger_of_two: {"MAXIMUM"},
    either: {"SELECT_V2"},
    cut: {"SLICE"},
    filled: {"PADV2"},
    larger_image: {"RESIZE_BILINEAR"},
    slopes: {"PRELU"},
    bent: {"ELU"},
    rectify: {"RELU"},
    add_sum: {"SUM"},
    convolution: {"CONV_2D"},
    stride: {"CONV_2D"},
    without_bias: {"CONV_2D"},
    depthwise: {"DEPTHWISE_CONV_2D"},
    gemm: {"FULLY_CONNECTED"},
    matmul: {"FULLY_CONNECTED"},
    addition: {"ADD"},
    multiplication: {"MUL"},
    by_a_number: {"MUL"},
    subtraction: {"SUB"},
    two_products: {"BATCH_MATMUL"},
    concatenation: {"CONCATENATION"},
    largest: {"MAX_POOL_2D"},
    average: {"MEAN"},
    local_average: {"AVERAGE_POOL_2D"},
    softmax: {"SOFTMAX"},
    sigmoid: {"LOGISTIC"},
    tanh: {"TANH"},
    leaky: {"LEAKY_RELU"},
    reshape: {"RESHAPE"},
    transpose: {"TRANSPOSE"},
    pad: {"PAD"},
}


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_an_integer_kernel_is_within_one_quantum_of_what_qdq_says(case, dtype):
    q = Qdq(dtype=dtype)
    output = case(q)
    proto = q.finished(output)

    wanted = CASES[case]
    ran = {op.op_type for op in lite_graph(proto).ops if is_integer(op)}
    assert wanted <= ran

    quantum = float(q.weights[output.removesuffix("_d") + "_s"])
    for seed in range(3):
        [(want, made)] = both(proto, make_feed(proto, seed=seed))
        assert np.ptp(want) > 3 * quantum  # not all the same, nor all cut off
        assert np.abs(want - made).max() <= 1.01 * quantum


def test_the_very_scales_of_the_onnx_file_are_in_the_lite_file():
    q = Qdq()
    proto = q.finished(convolution(q))

    conv = next(op for op in lite_graph(proto).ops if op.op_type == "CONV_2D")

    image, weight, bias = conv.inputs
    assert image.quantization.scales.tolist() == [np.float32(0.05)]
    assert image.quantization.zero_points.tolist() == [0]
    assert np.array_equal(weight.quantization.scales, q.weights["w_s"])
    assert np.array_equal(weight.data, q.weights["w"].transpose(0, 2, 3, 1))
    assert np.array_equal(bias.data, q.weights["b"])
    assert conv.outputs[0].quantization.scales.tolist() == [np.float32(0.06)]


def test_an_activation_between_layer_and_quantization_is_the_layers_own():
    q = Qdq()
    image = q.fed("x", [1, 3, 8, 8])
    weight = q.stored("w", int8(8, 3, 3, 3), scales(8))
    proto = q.finished(q.add("Relu", [q.plain("Conv", [image, weight])], 0.03, 0))

    graph = lite_graph(proto)

    assert count_op_types(graph.ops).keys() == {"TRANSPOSE", "QUANTIZE", "CONV_2D", "DEQUANTIZE"}
    [(want, made)] = both(proto, make_feed(proto))
    assert np.abs(want - made).max() <= 0.0301


def test_weights_about_another_zero_than_0_stay_under_float_kernels_and_exact():
    q = Qdq()
    image = q.fed("x", [1, 3, 8, 8])
    weight = q.stored("w", int8(8, 3, 3, 3), np.float32(0.004))
    q.weights["w_z"] = np.int8(5)
    proto = q.finished(q.add("Conv", [image, weight], 0.06))

    conv = next(op for op in lite_graph(proto).ops if op.op_type == "CONV_2D")

    assert not is_integer(conv)
    [(want, made)] = both(proto, make_feed(proto))
    assert np.abs(want - made).max() <= 0.0601  # a sum that lies on the border of two quanta


def test_a_move_without_a_quantized_output_is_done_on_the_integers():
    q = Qdq()
    image = q.fed("x", [1, 3, 4, 4])
    pooled = q.plain("MaxPool", [image], kernel_shape=[2, 2], strides=[2, 2])
    flat = q.plain("Flatten", [pooled])
    weight = q.stored("w", int8(5, 12), scales(5))
    proto = q.finished(q.add("Gemm", [flat, weight], 0.1, transB=1))

    graph = lite_graph(proto)

    assert all(is_integer(op) for op in graph.ops if op.op_type in ("MAX_POOL_2D", "RESHAPE"))
    assert [op.op_type for op in graph.ops][-1] == "DEQUANTIZE"
    assert count_op_types(graph.ops)["DEQUANTIZE"] == 1


def test_weights_that_training_left_as_quantized_floats_are_stored_as_integers():
    q = Qdq(dtype=np.int8)
    image = q.fed("x", [1, 3, 8, 8])
    q.constant("w", RNG.normal(size=(4, 3, 3, 3)).astype(np.float32))
    weight = q.real("w", 0.02, 0)
    proto = q.finished(q.add("Conv", [image, weight], 0.1))

    conv = next(op for op in lite_graph(proto).ops if op.op_type == "CONV_2D")

    assert conv.inputs[1].dtype == "int8"
    [(want, made)] = both(proto, make_feed(proto))
    assert np.abs(want - made).max() <= 0.101
