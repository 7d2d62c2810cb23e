"""The first axis is a free batch if that is safe, and 1 otherwise."""

import numpy as np
import pytest

from edgekit.conversion.tflite_to_onnx.convert import convert_to_onnx
from edgekit.errors import PassRefused
from edgekit.tflite.ir import LiteGraph, Op, constant
from tests.builders.handmade_tflite import (
    assert_alike,
    batch_of,
    by_onnxruntime,
    convert,
    one,
    op_types_of,
    tensor,
)
from tests.builders.tiny import normal

CONV = {
    "stride_h": 1, "stride_w": 1, "dilation_h_factor": 1, "dilation_w_factor": 1,
}  # fmt: skip


def chain(*steps):
    """Operators one after the other: (kind, further inputs, shape, options)."""
    x = tensor("x", (1, 8, 8, 3))
    ops, last = [], x
    for i, (kind, further, shape, options) in enumerate(steps):
        made = tensor(f"t{i}", shape)
        read = [last, *(constant(f"c{i}_{k}", c) for k, c in enumerate(further))]
        ops.append(Op(op_type=kind, inputs=read, outputs=[made], options=options))
        last = made
    return LiteGraph(ops=ops, inputs={"x": x}, outputs={"y": last})


def test_a_classifier_of_one_image_takes_batches_and_gives_the_same_for_each():
    made = convert(
        chain(
            ("CONV_2D", [normal(4, 3, 3, 3), normal(4)], (1, 8, 8, 4), CONV | {"padding": "SAME"}),
            ("RESHAPE", [np.asarray([1, 256], np.int32)], (1, 256), {"new_shape": [1, 256]}),
            ("FULLY_CONNECTED", [normal(5, 256)], (1, 5), {}),
        )
    )
    assert batch_of(made) == "N"
    images = normal(3, 8, 8, 3)
    together = by_onnxruntime(made, {"x": images})["y"]
    alone = [by_onnxruntime(made, {"x": image[None]})["y"][0] for image in images]
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "step",
    [
        ("SOFTMAX", [], (1, 8, 8, 3), {"beta": 1.0}),
        ("SUM", [np.asarray([0, 1, 2], np.int32)], (3,), {}),
        ("CUMSUM", [np.asarray(0, np.int32)], (1, 8, 8, 3), {}),
        ("TRANSPOSE", [np.asarray([3, 0, 1, 2], np.int32)], (3, 1, 8, 8), {}),
    ],
    ids=["each alone", "summed over samples", "run through samples", "samples moved"],
)
def test_a_graph_that_mixes_samples_keeps_its_batch_of_one(step):
    assert batch_of(convert(chain(step))) == ("N" if step[0] == "SOFTMAX" else 1)


def test_images_are_transposed_once_at_the_input_and_once_at_the_output():
    conv = ("CONV_2D", [normal(3, 3, 3, 3), normal(3)], (1, 8, 8, 3), CONV | {"padding": "SAME"})
    bias = ("ADD", [normal(3)], (1, 8, 8, 3), {})
    made = convert(chain(conv, bias, conv, ("RELU", [], (1, 8, 8, 3), {}), conv))
    assert op_types_of(made).count("Transpose") == 2
    assert op_types_of(made)[0] == op_types_of(made)[-1] == "Transpose"


def test_pads_before_a_convolution_become_its_own():
    graph = chain(
        ("PAD", [np.asarray([[0, 0], [1, 2], [0, 1], [0, 0]], np.int32)], (1, 11, 9, 3), {}),
        ("CONV_2D", [normal(4, 3, 3, 3), normal(4)], (1, 9, 7, 4), CONV | {"padding": "VALID"}),
    )
    assert op_types_of(convert(graph)) == ["Transpose", "Conv", "Transpose"]
    assert_alike(graph, {"x": normal(1, 8, 8, 3)}, tolerance=1e-4)


def test_space_to_batch_around_a_convolution_becomes_its_dilation():
    graph = chain(
        ("SPACE_TO_BATCH_ND", [np.asarray([2, 2], np.int32), np.asarray([[2, 2]] * 2, np.int32)],
         (4, 6, 6, 3), {}),
        ("CONV_2D", [normal(4, 3, 3, 3), normal(4)], (4, 4, 4, 4), CONV | {"padding": "VALID"}),
        ("BATCH_TO_SPACE_ND", [np.asarray([2, 2], np.int32), np.zeros((2, 2), np.int32)],
         (1, 8, 8, 4), {}),
    )  # fmt: skip
    made = convert(graph)
    assert op_types_of(made) == ["Transpose", "Conv", "Transpose"]
    assert batch_of(made) == "N"
    assert_alike(graph, {"x": normal(1, 8, 8, 3)}, tolerance=1e-4)


def test_an_operator_without_a_counterpart_is_named_with_its_output():
    graph = one(
        "ATAN2", {0: tensor("a", (1, 2)), 1: tensor("b", (1, 2))}, {}, [tensor("y", (1, 2))]
    )
    with pytest.raises(PassRefused, match="ATAN2 with output y has no ONNX counterpart") as refused:
        convert_to_onnx(graph)
    assert refused.value.hint


def test_a_state_that_is_kept_between_runs_is_refused():
    state = tensor("state", (1, 2))
    state.is_variable = True
    graph = LiteGraph(
        ops=[Op(op_type="ADD", inputs=[tensor("a", (1, 2)), state], outputs=[tensor("y", (1, 2))])],
        inputs={},
        outputs={},
    )
    graph.inputs["a"], graph.outputs["y"] = graph.ops[0].inputs[0], graph.ops[0].outputs[0]
    with pytest.raises(PassRefused, match="state: a state that is kept"):
        convert_to_onnx(graph)


def test_the_conversion_does_not_change_the_given_graph():
    graph = chain(
        ("PAD", [np.asarray([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)], (1, 10, 10, 3), {}),
        ("CONV_2D", [normal(4, 3, 3, 3)], (1, 8, 8, 4), CONV | {"padding": "VALID"}),
    )
    before = [(op.op_type, list(op.inputs), dict(op.options)) for op in graph.ops]
    convert_to_onnx(graph)
    assert [(op.op_type, op.inputs, op.options) for op in graph.ops] == before


def test_outputs_that_are_inputs_or_the_same_value_have_names_of_their_own():
    x = tensor("x", (1, 3))
    y = tensor("t", (1, 3))
    op = Op(op_type="RELU", inputs=[x], outputs=[y])
    graph = LiteGraph(ops=[op], inputs={"x": x}, outputs={"b": y, "a": y, "c": x})
    made = convert_to_onnx(graph)
    found = by_onnxruntime(made, {"x": np.float32([[-1, 0, 2]])})
    assert list(found) == ["b", "a", "c"]
    assert found["a"].tolist() == found["b"].tolist() == [[0, 0, 2]]
    assert found["c"].tolist() == [[-1, 0, 2]]
