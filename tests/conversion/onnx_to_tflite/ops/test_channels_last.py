"""Images keep channels last through the whole network."""

import numpy as np

from edgekit.tflite.ir import count_op_types
from tests.builders import tiny
from tests.builders.qdq_graphs import both, lite_graph, make_feed

BLOCK = """
    stem = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (IMAGE, w0)
    normal = BatchNormalization (stem, scale, shift, mean, variance)
    active = Relu (normal)
    pooled = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (active)
    deep = Conv <group = 8, pads = [1, 1, 1, 1]> (pooled, w1)
    squeezed = GlobalAveragePool (deep)
    gate = Conv (squeezed, w2)
    open = HardSigmoid (gate)
    gated = Mul (deep, open)
    scaled = Mul (gated, factor)
    sum = Add (scaled, pooled)
    even = InstanceNormalization (sum, scale, shift)
    slope = PRelu (even, alpha)
    soft = Softmax <axis = 1> (slope)
    mean_of = ReduceMean <axes = [2, 3], keepdims = 0> (soft)
    y = Gemm <transB = 1> (mean_of, dense)
"""

WEIGHTS = {
    "w0": tiny.normal(8, 3, 3, 3, seed=1),
    "w1": tiny.normal(8, 1, 3, 3, seed=2),
    "w2": tiny.normal(8, 8, 1, 1, seed=3),
    "factor": tiny.normal(8, 1, 1, seed=4),
    "alpha": tiny.uniform(8, 1, 1, seed=5),
    "scale": tiny.uniform(8, seed=6) + 2,
    "shift": tiny.uniform(8, seed=7),
    "mean": tiny.uniform(8, seed=8),
    "variance": tiny.uniform(8, seed=9) + 2,
    "dense": tiny.normal(5, 8, seed=10),
}


def network(head, image):
    text = f"g ({head} x) => (float[1, 5] y) {{ {BLOCK.replace('IMAGE', image)} }}"
    if image != "x":
        turned = f"{{ {image} = Transpose <perm = [0, 3, 1, 2]> (x)"
        text = text.replace("{", turned, 1)
    return tiny.proto(text, weights=WEIGHTS)


def agree(proto):
    for want, got in both(proto, make_feed(proto)):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_network_fed_with_channels_first_is_transposed_once_at_its_entrance():
    proto = network("float[1, 3, 32, 32]", "x")
    ops = lite_graph(proto).ops
    assert count_op_types(ops)["TRANSPOSE"] == 1
    assert ops[0].op_type == "TRANSPOSE"
    agree(proto)


def test_a_network_of_keras_is_never_transposed():
    proto = network("float[1, 32, 32, 3]", "image")
    assert "TRANSPOSE" not in count_op_types(lite_graph(proto).ops)
    agree(proto)


def test_an_image_of_one_channel_is_reshaped():
    proto = tiny.proto(
        "g (float[1, 1, 8, 8] x) => (float[1, 4, 6, 6] y) { y = Conv (x, w) }",
        weights={"w": tiny.normal(4, 1, 3, 3)},
    )
    ops = lite_graph(proto).ops
    assert ops[0].op_type == "RESHAPE"
    agree(proto)


def test_seven_axes_are_transposed_as_the_few_that_part():
    proto = tiny.proto("""g (float[1, 2, 3, 2, 4, 1, 3] x) => (float[4, 1, 3, 1, 2, 3, 2] y)
        { y = Transpose <perm = [4, 5, 6, 0, 1, 2, 3]> (x) }""")
    (move,) = (op for op in lite_graph(proto).ops if op.op_type == "TRANSPOSE")
    assert len(move.inputs[0].shape) == 2
    agree(proto)


def test_heads_of_attention_are_moved_four_times_and_by_rows():
    proto = tiny.proto(
        """g (float[1, 6, 8] q, float[1, 6, 8] k, float[1, 6, 8] v) => (float[1, 6, 5] y)
        { q4 = Reshape (q, heads)  k4 = Reshape (k, heads)  v4 = Reshape (v, heads)
          qt = Transpose <perm = [0, 2, 1, 3]> (q4)
          kt = Transpose <perm = [0, 2, 3, 1]> (k4)
          vt = Transpose <perm = [0, 2, 1, 3]> (v4)
          match = MatMul (qt, kt)
          weight = Softmax <axis = -1> (match)
          mixed = MatMul (weight, vt)
          back = Transpose <perm = [0, 2, 1, 3]> (mixed)
          flat = Reshape (back, whole)
          y = MatMul (flat, dense) }""",
        weights={
            "heads": np.asarray([1, 6, 2, 4]),
            "whole": np.asarray([1, 6, 8]),
            "dense": tiny.normal(8, 5),
        },
    )
    moves = [op for op in lite_graph(proto).ops if op.op_type == "TRANSPOSE"]
    assert [op.inputs[1].data.tolist() for op in moves] == [[0, 2, 1, 3]] * 4
    agree(proto)


def test_keys_of_an_attention_layer_are_multiplied_as_they_are_stored():
    proto = tiny.proto("""g (float[1, 2, 5, 4] q, float[1, 2, 6, 4] k) => (float[1, 2, 5, 6] y)
        { turned = Transpose <perm = [0, 1, 3, 2]> (k)  y = MatMul (q, turned) }""")
    (product,) = lite_graph(proto).ops
    assert product.options["adj_y"]
    agree(proto)
