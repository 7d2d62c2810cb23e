"""Convolutions and transposed convolutions in LiteRT."""

import numpy as np
import pytest

from edgekit.errors import PassRefused
from edgekit.tflite.ir import count_op_types
from tests.builders import tiny
from tests.builders.qdq_graphs import both, lite_graph, make_feed


def layer(op, image, weight, *, stored=True, opset=17, **attributes):
    """One layer with a bias, its weight stored or fed."""
    words = ", ".join(f"{k} = {_word(v)}" for k, v in attributes.items())
    call = f"{op} <{words}>" if words else op
    dims = [",".join(map(str, shape)) for shape in (image, weight)]
    channels = weight[1] * attributes.get("group", 1) if op == "ConvTranspose" else weight[0]
    given = f"float[{dims[0]}] x" + ("" if stored else f", float[{dims[1]}] w")
    made = ",".join("?" * len(image))
    text = f"g ({given}) => (float[{made}] y) {{ y = {call} (x, w, b) }}"
    weights = {"b": tiny.normal(channels, seed=1)}
    if stored:
        weights["w"] = tiny.normal(*weight, seed=2)
    return tiny.proto(text, weights=weights, opset=opset)


def _word(value):
    return f'"{value}"' if isinstance(value, str) else value


def agree(proto, **how):
    for want, got in both(proto, make_feed(proto), **how):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


CONVOLUTIONS = {
    "of one axis": ((1, 4, 12), (5, 4, 3), {"pads": [2, 0], "strides": [2]}),
    "of one axis, each channel alone": ((1, 4, 12), (4, 1, 3), {"group": 4, "pads": [1, 1]}),
    "of three axes": ((1, 4, 5, 6, 7), (3, 4, 2, 3, 2), {"pads": [1, 1, 0, 0, 1, 1]}),
    "of three axes in groups": ((1, 4, 5, 6, 7), (6, 2, 2, 2, 2), {"group": 2}),
    "in groups": ((1, 4, 9, 9), (6, 2, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "dilated in groups": ((1, 4, 9, 9), (6, 2, 3, 3), {"group": 2, "dilations": [2, 2]}),
    "depthwise, three for one": ((1, 4, 9, 9), (12, 1, 3, 3), {"group": 4, "strides": [2, 1]}),
    "depthwise, dilated": ((1, 4, 9, 9), (4, 1, 3, 3), {"group": 4, "dilations": [2, 3]}),
    "same, upper": ((1, 3, 8, 9), (4, 3, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same, lower": ((1, 3, 8, 9), (4, 3, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "padded on one side": ((1, 3, 8, 9), (4, 3, 3, 3), {"pads": [0, 1, 2, 0]}),
    "of many samples": ((3, 3, 8, 9), (4, 3, 3, 3), {}),
}


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "computed"])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_gives_what_onnxruntime_gives(case, stored):
    image, weight, attributes = CONVOLUTIONS[case]
    agree(layer("Conv", image, weight, stored=stored, **attributes))


TRANSPOSED = {
    "twice as large": ((1, 4, 5, 6), (4, 3, 4, 4), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "with more output": (
        (1, 4, 5, 6),
        (4, 3, 3, 3),
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    ),
    "past its full output": (
        (1, 4, 5, 6),
        (4, 3, 2, 2),
        {"strides": [3, 3], "output_padding": [2, 2]},
    ),
    "of a given size": ((1, 4, 5, 6), (4, 3, 3, 3), {"strides": [3, 2], "output_shape": [14, 12]}),
    "same, lower": ((1, 4, 5, 6), (4, 3, 3, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    "dilated": ((1, 4, 5, 6), (4, 3, 3, 3), {"strides": [2, 1], "dilations": [2, 2]}),
    "in groups": ((1, 4, 5, 6), (4, 3, 3, 3), {"strides": [2, 2], "group": 2}),
    "depthwise": ((1, 4, 5, 6), (4, 1, 4, 4), {"strides": [2, 2], "pads": [1] * 4, "group": 4}),
    "of one axis": ((1, 4, 7), (4, 3, 4), {"strides": [2], "pads": [1, 1]}),
    "of three axes": ((1, 4, 3, 4, 5), (4, 3, 3, 2, 2), {"strides": [1, 2, 2]}),
}


@pytest.mark.parametrize("case", TRANSPOSED)
def test_a_transposed_convolution_gives_what_onnxruntime_gives(case):
    image, weight, attributes = TRANSPOSED[case]
    agree(layer("ConvTranspose", image, weight, **attributes))


@pytest.mark.parametrize(
    ("size", "pads", "padding"),
    [
        (9, [1, 1, 1, 1], "SAME"),  # both sides alike: what TFLite pads too
        (8, [0, 0, 1, 1], "SAME"),
        (8, [0, 0, 0, 0], "VALID"),
    ],
)
def test_padding_that_tflite_knows_is_left_to_it(size, pads, padding):
    proto = layer("Conv", (1, 3, size, size), (4, 3, 3, 3), strides=[2, 2], pads=pads)
    (conv,) = (op for op in lite_graph(proto).ops if op.op_type == "CONV_2D")
    assert conv.options["padding"] == padding
    assert "PAD" not in count_op_types(lite_graph(proto).ops)


def test_padding_that_tflite_would_place_differently_is_explicit():
    proto = layer("Conv", (1, 3, 8, 8), (4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    graph = lite_graph(proto)
    (conv,) = (op for op in graph.ops if op.op_type == "CONV_2D")
    assert conv.options["padding"] == "VALID"
    assert count_op_types(graph.ops)["PAD"] == 1
    agree(proto)


def test_four_spatial_axes_are_refused_by_name():
    with pytest.raises(PassRefused, match="Conv y has 4 spatial axes"):
        lite_graph(layer("Conv", (1, 1, 3, 3, 3, 3), (1, 1, 2, 2, 2, 2)))
