"""Spectrogram front-ends: pads, frames and filters of long signals stay small and exact."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.conversion.onnx_to_tflite.convert import convert_to_tflite
from tests.builders.both_runtimes import agree, in_litert, in_onnxruntime, noise, operators
from tests.builders.qdq_graphs import Qdq

LENGTH = 4000


def graph(nodes, weights, shape, outputs=("y",)):
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def size(proto):
    return len(convert_to_tflite(proto, {}))


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
@pytest.mark.parametrize("pads", [(200, 200), (7, 0), (0, 9), (-5, 30)])
def test_repeating_pads_store_no_index_for_each_entry(mode, pads):
    before, after = pads
    weights = {"pads": np.array([0, 0, before, 0, 0, after])}
    proto = graph([helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode)], weights, [1, 2, 4000])

    agree(proto, x=noise(1, 2, LENGTH))
    assert size(proto) < 8000


def test_repeating_pads_of_images_are_those_of_onnxruntime():
    weights = {"pads": np.array([0, 0, 2, 1, 0, 0, 3, 2])}
    pad = helper.make_node("Pad", ["x", "pads"], ["y"], mode="reflect")
    agree(graph([pad], weights, [2, 3, 6, 5]), x=noise(2, 3, 6, 5))


def test_repeating_pads_of_integers_stay_integers():
    wiring = Qdq()
    x = wiring.fed("x", [1, 4, 300])
    pads = wiring.constant("pads", np.array([0, 0, 20, 0, 0, 20]))
    proto = wiring.finished(wiring.add("Pad", [x, pads], 0.05, mode="reflect"))

    assert "DEQUANTIZE" not in {k for k in operators(proto) if k != "DEQUANTIZE"}
    found = operators(proto)
    assert found["QUANTIZE"] == found["DEQUANTIZE"] == 1
    agree(proto, atol=1e-6, x=noise(1, 4, 300))


@pytest.mark.parametrize(
    ("length", "hop"), [(512, 160), (400, 160), (256, 256), (200, 300), (25, 10), (8, 1)]
)
def test_frames_are_cut_without_stored_indices(length, hop):
    count = (LENGTH - length) // hop + 1
    indices = hop * np.arange(count)[:, None] + np.arange(length)
    proto = graph(
        [helper.make_node("Gather", ["x", "i"], ["y"], axis=1)], {"i": indices}, [2, LENGTH]
    )

    agree(proto, x=noise(2, LENGTH))
    assert "GATHER" not in operators(proto)
    assert size(proto) < 12000


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_frames_along_any_axis_keep_the_others(axis):
    indices = 3 + 2 * np.arange(4)[:, None] + np.arange(5)
    proto = graph(
        [helper.make_node("Gather", ["x", "i"], ["y"], axis=axis)], {"i": indices}, [20] * 3
    )
    agree(proto, x=noise(20, 20, 20))


def test_frames_of_images_behind_a_convolution_keep_their_axes():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Gather", ["c", "i"], ["y"], axis=3),
    ]
    weights = {"w": noise(4, 3, 3, 3), "i": 4 * np.arange(3)[:, None] + np.arange(6)}
    agree(graph(nodes, weights, [1, 3, 8, 16]), x=noise(1, 3, 8, 16))


@pytest.mark.parametrize(
    "indices", [[[0, 2, 4], [1, 3, 5]], [[3, 2, 1], [4, 3, 2]], [[0, 1], [0, 1]]]
)
def test_indices_that_are_not_frames_are_gathered(indices):
    proto = graph([helper.make_node("Gather", ["x", "i"], ["y"], axis=1)], {"i": indices}, [2, 9])
    agree(proto, x=noise(2, 9))


def test_frames_by_index_tuples_are_also_sliced():
    indices = (160 * np.arange(20)[:, None] + np.arange(400))[..., None]
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
        helper.make_node("GatherND", ["t", "i"], ["f"]),
        helper.make_node("Transpose", ["f"], ["y"], perm=[2, 0, 1]),
    ]
    proto = graph(nodes, {"i": indices}, [2, LENGTH])

    agree(proto, x=noise(2, LENGTH))
    assert size(proto) < 12000


@pytest.mark.parametrize(
    ("results", "taps", "stride", "length"),
    [(1, 256, 2, LENGTH), (1, 255, 3, 3001), (2, 64, 1, 999), (4, 16, 5, 2003), (3, 40, 7, 2500)],
)
@pytest.mark.parametrize("relu", [False, True])
def test_long_filters_of_few_results_give_the_same_by_blocks(results, taps, stride, length, relu):
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[stride])]
    nodes.append(helper.make_node("Relu" if relu else "Neg", ["c"], ["y"]))
    weights = {"w": noise(results, 1, taps, seed=1), "b": noise(results, seed=2)}
    proto = graph(nodes, weights, [2, 1, length])
    x = noise(2, 1, length)

    (want,), (got,) = in_onnxruntime(proto, x=x), in_litert(proto, x=x)

    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("how", [{"pads": [100, 100]}, {"dilations": [2]}, {"group": 1}])
def test_filters_with_pads_and_dilations_are_those_of_onnxruntime(how):
    conv = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2], **how)
    proto = graph([conv], {"w": noise(1, 1, 128)}, [1, 1, LENGTH])
    x = noise(1, 1, LENGTH)

    (want,), (got,) = in_onnxruntime(proto, x=x), in_litert(proto, x=x)

    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("shape", [[1, 50, 60, 1], [3, 7, 1, 1], [1, 1, 9, 1]])
def test_pads_in_front_of_axes_of_size_one_are_those_of_onnxruntime(shape):
    weights = {"pads": np.array([0, 0, 2, 0, 0, 0, 5, 0])}
    nodes = [helper.make_node("Pad", ["x", "pads"], ["p"]), helper.make_node("Neg", ["p"], ["y"])]
    agree(graph(nodes, weights, shape), x=noise(*shape))


def test_a_front_end_of_filters_and_mirrored_ends_stores_no_indices_of_the_signal():
    """A constant-Q front-end: halved again and again, ends mirrored, filtered by one bank."""
    nodes, weights = [], {"bank": noise(12, 1, 256), "half": noise(1, 1, 64, seed=1)}
    weights |= {"ends": np.array([0, 0, 128, 0, 0, 128])}
    signal = "x"
    for octave in range(4):
        nodes += [
            helper.make_node("Pad", [signal, "ends"], [f"p{octave}"], mode="reflect"),
            helper.make_node("Conv", [f"p{octave}", "bank"], [f"y{octave}"], strides=[256]),
            helper.make_node("Conv", [signal, "half"], [f"s{octave}"], strides=[2]),
        ]
        signal = f"s{octave}"
    proto = graph(nodes, weights, [1, 1, 20000], [f"y{n}" for n in range(4)])

    agree(proto, atol=1e-2, x=noise(1, 1, 20000))
    assert size(proto) < proto.ByteSize() + 20000  # the signal alone has 80,000 bytes
