"""Folding and deduplication of constants."""

import numpy as np

from edgekit.tflite.ir import LiteGraph, Op, Quantization, Tensor, constant, count_op_types
from edgekit.tflite.rewrites.constant_folding import fold


def computed_tensor(*shape, dtype="float32", quantization=None):
    return Tensor(name="t", dtype=dtype, shape=shape, quantization=quantization)


def ints(*numbers):
    return constant("ints", np.asarray(numbers, np.int32))


def transpose(source, perm, shape):
    made = computed_tensor(*shape, dtype=source.dtype)
    return Op(op_type="TRANSPOSE", inputs=[source, ints(*perm)], outputs=[made])


def reshape(source, shape):
    made = computed_tensor(*shape, dtype=source.dtype)
    return Op(op_type="RESHAPE", inputs=[source, ints(*shape)], outputs=[made])


def relu(source):
    return Op(op_type="RELU", inputs=[source], outputs=[computed_tensor(*source.shape)])


def graph(ops, fed):
    made = LiteGraph(ops=ops, inputs={"x": fed}, outputs={"y": ops[-1].outputs[0]})
    fold(made)
    return made


def test_a_transposed_quantized_constant_is_stored_transposed_and_its_scales_follow_the_axis():
    scales = Quantization(
        scales=np.arange(1, 5, dtype=np.float32), zero_points=np.zeros(4, np.int64), axis=0
    )
    integers = np.arange(24, dtype=np.int8).reshape(4, 2, 3)
    stored = constant("w", integers, quantization=scales)
    weight = Op(op_type="DEQUANTIZE", inputs=[stored], outputs=[computed_tensor(4, 2, 3)])
    moved = transpose(weight.outputs[0], (1, 2, 0), (2, 3, 4))
    fed = computed_tensor(2, 3, 4)
    add = Op(op_type="ADD", inputs=[fed, moved.outputs[0]], outputs=[computed_tensor(2, 3, 4)])

    made = graph([weight, moved, add], fed)

    assert count_op_types(made.ops) == {"DEQUANTIZE": 1, "ADD": 1}
    constant_now = made.ops[0].inputs[0]
    assert np.array_equal(constant_now.data, integers.transpose(1, 2, 0))
    assert constant_now.quantization.axis == 2
    assert np.array_equal(constant_now.quantization.scales, scales.scales)


def test_a_reshape_that_takes_the_axis_of_the_scales_apart_stays_in_the_graph():
    scales = Quantization(scales=np.ones(4, np.float32), zero_points=np.zeros(4, np.int64), axis=0)
    stored = constant("w", np.zeros((4, 3), np.int8), quantization=scales)
    weight = Op(op_type="DEQUANTIZE", inputs=[stored], outputs=[computed_tensor(4, 3)])
    moved = reshape(weight.outputs[0], (2, 6))
    fed = computed_tensor(2, 6)
    add = Op(op_type="ADD", inputs=[fed, moved.outputs[0]], outputs=[computed_tensor(2, 6)])

    assert count_op_types(graph([weight, moved, add], fed).ops) == {
        "DEQUANTIZE": 1,
        "RESHAPE": 1,
        "ADD": 1,
    }


def test_transposes_that_undo_each_other_and_chains_of_reshapes_go():
    fed = computed_tensor(2, 3, 4)
    there = transpose(fed, (0, 2, 1), (2, 4, 3))
    back = transpose(there.outputs[0], (0, 2, 1), (2, 3, 4))
    flat = reshape(back.outputs[0], (24,))
    wide = reshape(flat.outputs[0], (4, 6))
    last = relu(wide.outputs[0])

    made = graph([there, back, flat, wide, last], fed)

    assert count_op_types(made.ops) == {"RESHAPE": 1, "RELU": 1}
    assert made.ops[0].inputs[0] is fed


def test_a_transpose_of_axes_of_size_one_is_a_reshape():
    fed = computed_tensor(1, 3, 1)
    made = graph(
        [
            transpose(fed, (0, 2, 1), (1, 1, 3)),
        ],
        fed,
    )

    assert count_op_types(made.ops) == {"RESHAPE": 1}


def test_an_output_is_made_by_an_operator_even_where_it_is_what_was_fed():
    fed = computed_tensor(2, 3)
    made = graph([reshape(fed, (2, 3))], fed)

    assert made.outputs["y"] is not fed
    assert len(made.ops) == 1


def test_equal_constants_are_stored_once_and_equal_operators_run_once():
    fed = computed_tensor(2, 3)
    halves = [
        Op(
            op_type="MUL",
            inputs=[fed, constant(name, np.full((2, 3), 0.5, np.float32))],
            outputs=[computed_tensor(2, 3)],
        )
        for name in "ab"
    ]
    total = Op(
        op_type="ADD", inputs=[h.outputs[0] for h in halves], outputs=[computed_tensor(2, 3)]
    )

    made = graph([*halves, total], fed)

    assert count_op_types(made.ops) == {"MUL": 1, "ADD": 1}
    assert made.ops[1].inputs[0] is made.ops[1].inputs[1]


def test_operators_on_constants_are_folded_with_their_activation():
    left, right = (constant(n, np.asarray([-3.0, 4.0], np.float32)) for n in "lr")
    both = Op(
        op_type="ADD",
        inputs=[left, right],
        outputs=[computed_tensor(2)],
        options={"fused_activation_function": "RELU6"},
    )
    fed = computed_tensor(2)
    last = Op(op_type="MUL", inputs=[fed, both.outputs[0]], outputs=[computed_tensor(2)])

    made = graph([both, last], fed)

    assert count_op_types(made.ops) == {"MUL": 1}
    assert made.ops[0].inputs[1].data.tolist() == [0.0, 6.0]
