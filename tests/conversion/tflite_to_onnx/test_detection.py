"""Detectors and loops, which TFLite computes in one operator and ONNX in several."""

import numpy as np
import pytest
from flatbuffers import flexbuffers

from edgekit.conversion.tflite_to_onnx.convert import convert_to_onnx
from edgekit.errors import PassRefused
from edgekit.tflite.flatbuffer import write_lite
from edgekit.tflite.ir import LiteGraph, Op, constant
from tests.builders.handmade_tflite import (
    assert_alike,
    by_litert,
    by_onnxruntime,
    convert,
    one,
    tensor,
)
from tests.builders.tiny import normal, uniform

BOXES = 40


def detector(**changed):
    """Encoded boxes and scores of three classes and of none, with anchors all over the image."""
    options = {
        "max_detections": 6, "max_classes_per_detection": 1, "num_classes": 3,
        "nms_score_threshold": 0.3, "nms_iou_threshold": 0.5, "detections_per_class": 4,
        "use_regular_nms": False, "y_scale": 10.0, "x_scale": 10.0, "h_scale": 5.0,
        "w_scale": 5.0,
    } | changed  # fmt: skip
    anchors = np.concatenate(
        [uniform(BOXES, 2, seed=5) / 2 + 0.5, np.full((BOXES, 2), 0.3, np.float32)], axis=1
    )
    inputs = {0: tensor("boxes", (1, BOXES, 4)), 1: tensor("scores", (1, BOXES, 4))}
    outputs = [
        tensor("corners", (1, 6, 4)),
        tensor("classes", (1, 6)),
        tensor("best", (1, 6)),
        tensor("count", (1,)),
    ]
    graph = one("CUSTOM:TFLite_Detection_PostProcess", inputs, {2: anchors}, outputs)
    graph.ops[0].options["custom_options"] = bytes(flexbuffers.Dumps(options))
    return graph


def encode():
    scores = np.random.default_rng(1).uniform(size=(1, BOXES, 4)).astype(np.float32)
    return {"boxes": normal(1, BOXES, 4), "scores": scores}


@pytest.mark.parametrize("is_regular", [False, True])
def test_a_detector_ends_with_the_same_boxes(is_regular):
    assert_alike(detector(use_regular_nms=is_regular), encode())


def test_entries_without_a_detection_are_zero():
    graph = detector(nms_score_threshold=0.97)
    expected = by_litert(write_lite(graph), encode())
    found = by_onnxruntime(convert(graph), encode())
    count = int(found["count"][0])
    assert 0 < count == expected["count"][0] < 6
    for name in ("best", "classes", "corners"):  # litert leaves the rest as it happens to be
        np.testing.assert_allclose(found[name][0, :count], expected[name][0, :count], rtol=1e-5)
        assert not found[name][0, count:].any()


def test_several_classes_for_one_box_are_refused_by_name():
    with pytest.raises(PassRefused, match=r"TFLite_Detection_PostProcess .* several classes"):
        convert_to_onnx(detector(max_classes_per_detection=2))


def lstm(units=3, steps=5, depth=4, **options):
    def weights(rows, columns, seed):
        return constant(f"w{seed}", normal(rows, columns, seed=seed))

    x = tensor("x", (1, steps, depth))
    y = tensor("y", (1, steps, units))
    states = [tensor(name, (1, units)) for name in ("output", "cell")]
    for state in states:
        state.is_variable = True
    read = [x, *(weights(units, depth, i) for i in range(4))]
    read += [weights(units, units, 4 + i) for i in range(4)] + [None] * 3
    read += [constant(f"b{i}", normal(units, seed=8 + i)) for i in range(4)]
    read += [None, None, *states, None, None, None, None]
    options = {
        "fused_activation_function": "TANH",
        "cell_clip": 10.0,
        "time_major": False,
    } | options
    op = Op(op_type="UNIDIRECTIONAL_SEQUENCE_LSTM", inputs=read, outputs=[y], options=options)
    return LiteGraph(ops=[op], inputs={"x": x}, outputs={"y": y})


def test_an_lstm_layer_starts_from_zeros_and_computes_the_same():
    assert_alike(lstm(), {"x": normal(1, 5, 4)})


def test_an_lstm_with_a_tight_limit_is_refused():
    with pytest.raises(
        PassRefused, match="UNIDIRECTIONAL_SEQUENCE_LSTM with output y has a clipped"
    ):
        convert_to_onnx(lstm(cell_clip=1.0))


def counting():
    """Doubles ``x`` until it has been done four times."""
    times, x = tensor("i", (1,), "int32"), tensor("x", (1, 3))
    limit, step = constant("n", np.asarray([4], np.int32)), constant("k", np.asarray([1], np.int32))
    goes_on = tensor("on", (1,), "bool")
    condition = LiteGraph(
        ops=[Op(op_type="LESS", inputs=[times, limit], outputs=[goes_on])],
        inputs={"i": times, "x": x},
        outputs={"on": goes_on},
    )
    again, value = tensor("i", (1,), "int32"), tensor("x", (1, 3))
    after, doubled = tensor("j", (1,), "int32"), tensor("z", (1, 3))
    body = LiteGraph(
        ops=[
            Op(op_type="ADD", inputs=[again, step], outputs=[after]),
            Op(op_type="ADD", inputs=[value, value], outputs=[doubled]),
        ],
        inputs={"i": again, "x": value},
        outputs={"j": after, "z": doubled},
    )
    start, fed = constant("zero", np.asarray([0], np.int32)), tensor("x", (1, 3))
    made = [tensor("count", (1,), "int32"), tensor("y", (1, 3))]
    loop = Op(
        op_type="WHILE",
        inputs=[start, fed],
        outputs=made,
        options={"cond_subgraph_index": 1, "body_subgraph_index": 2},
    )
    return LiteGraph(ops=[loop], inputs={"x": fed}, outputs={"y": made[1]}, inner=[condition, body])


def test_a_loop_runs_as_often_as_its_condition_holds():
    graph = counting()
    assert [node.op_type for node in convert(graph).graph.node].count("Loop") == 1
    assert_alike(graph, {"x": np.float32([[1, -2, 0.5]])})
