"""Operators that stay float beside integer kernels, and 16-bit activations."""

import numpy as np

from edgekit.conversion.onnx_to_tflite.convert import convert_to_tflite
from tests.builders.qdq_graphs import (
    Qdq,
    both,
    by_litert,
    by_onnxruntime,
    is_integer,
    lite_graph,
    make_feed,
)
from tests.builders.quantized_layers import (
    convolution,
    int8,
    scales,
)


def test_sixteen_bit_activations_are_nearer_to_unquantized_ones_than_eight_bit_ones():
    q = Qdq(dtype=np.int8)
    proto = q.finished(q.add("Relu", [convolution(q)], 0.06))
    feed = make_feed(proto, scale=1.0)
    [want] = by_onnxruntime(without_quantized_activations(proto), feed)

    errors = {
        how: np.abs(
            by_litert(convert_to_tflite(proto, {}, precision=how), feed)[proto.graph.output[0].name]
            - want
        ).max()
        for how in ("same", "int16x8")
    }

    assert errors["int16x8"] < errors["same"] / 50
    graph = lite_graph(proto, precision="int16x8")
    conv = next(op for op in graph.ops if op.op_type == "CONV_2D")
    assert [t.dtype for t in conv.inputs] == ["int16", "int8", "int64"]


def without_quantized_activations(proto):
    made = type(proto)()
    made.CopyFrom(proto)
    same = {}
    for node in proto.graph.node:
        if node.op_type == "QuantizeLinear":
            same[node.output[0]] = node.input[0]
    for node in made.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in same:
            name = same[node.input[0]]
            node.CopyFrom(type(node)(op_type="Identity", input=[name], output=node.output))
    return made


def test_scales_beyond_the_reach_of_integer_kernels_stay_in_floats():
    q = Qdq()
    mask = q.fed("mask", [1, 8], scale=1.3e36, zero=255)
    proto = q.finished(q.add("Add", [q.fed("x", [4, 8]), mask], 1.3e36, 255))
    feed = make_feed(proto) | {"mask": np.float32([[0, 0, 0, -3e38, 0, 0, -3e38, 0]])}

    [(want, made)] = both(proto, feed)

    assert np.array_equal(want, made)


def test_channels_too_faint_to_be_heard_do_not_keep_a_layer_from_integers():
    q = Qdq()
    image = q.fed("x", [1, 3, 8, 8])
    per_channel = scales(8)
    per_channel[3] = 1.2e-38
    weight = q.stored("w", int8(8, 3, 3, 3), per_channel)
    bias = q.stored("b", np.full(8, 1000, np.int32), np.maximum(per_channel * 0.05, 1.2e-38))
    proto = q.finished(q.add("Conv", [image, weight, bias], 0.06))

    assert all(is_integer(op) for op in lite_graph(proto).ops if op.op_type == "CONV_2D")
    [(want, made)] = both(proto, make_feed(proto))
    assert np.abs(want - made).max() <= 0.0601


def test_a_softmax_whose_scale_is_finer_than_the_kernels_stays_in_floats():
    q = Qdq()
    proto = q.finished(q.add("Softmax", [q.fed("x", [3, 64])], 1 / 2550, 0))

    softmax = next(op for op in lite_graph(proto).ops if op.op_type == "SOFTMAX")

    assert not is_integer(softmax)
    [(want, made)] = both(proto, make_feed(proto))
    assert np.abs(want - made).max() <= 1.01 / 2550


def test_logarithms_of_probabilities_below_what_the_kernel_has_are_kept():
    q = Qdq()
    proto = q.finished(q.add("LogSoftmax", [q.fed("x", [1, 4], 0.2)], 0.137, 255))

    [(want, made)] = both(proto, {"x": np.asarray([[20, 0, -10, -15]], np.float32)})

    assert want.min() < -30
    assert np.abs(want - made).max() <= 0.138


def test_rows_of_a_quantized_table_are_gathered_before_they_are_dequantized():
    q = Qdq()
    table = q.stored("t", int8(50, 8), np.float32(0.02))
    rows = q.constant("rows", np.asarray([3, 1, 4, 1]))
    picked = q.plain("Gather", [table, rows])
    proto = q.finished(q.plain("Add", [q.fed("x", [4, 8]), picked]))

    graph = lite_graph(proto)

    assert all(
        max(t.shape) <= 8 for op in graph.ops if op.op_type == "DEQUANTIZE" for t in op.outputs
    )
    [(want, made)] = both(proto, make_feed(proto))
    assert np.allclose(want, made, atol=1e-5)


def test_large_products_of_quantized_values_read_their_weights_as_integers():
    q = Qdq()
    weight = q.stored("w", int8(256, 256), scales(256), 1)
    proto = q.finished(q.plain("MatMul", [q.fed("x", [1, 4, 256]), weight]))

    layer_op = next(op for op in lite_graph(proto).ops if op.op_type == "FULLY_CONNECTED")

    assert [t.dtype for t in layer_op.inputs[:2]] == ["float32", "int8"]
    [(want, made)] = both(proto, make_feed(proto))
    assert np.abs(want - made).max() <= 0.02 * np.abs(want).max()
