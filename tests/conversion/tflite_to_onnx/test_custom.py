"""Custom operators that have a counterpart in ONNX."""

import struct

import numpy as np
import pytest

from edgekit.cli.render.model import format_inspection
from edgekit.conversion.tflite_to_onnx.convert import convert_to_onnx
from edgekit.errors import PassRefused
from edgekit.inspection.summary import inspect
from edgekit.tflite.flatbuffer import read_lite, write_lite
from tests.builders.handmade_tflite import assert_alike, convert, one, op_types_of, tensor
from tests.builders.tiny import normal

SAME, VALID = 1, 2


def make_transposed(weights, made, *, padding=SAME, strides=(2, 2), options=None):
    """MediaPipe's Convolution2DTransposeBias on [1, 6, 5, in]."""
    height, width = strides
    raw = struct.pack("<iii", padding, width, height) if options is None else options
    return one(
        "CUSTOM:Convolution2DTransposeBias",
        {0: tensor("x", (1, 6, 5, weights[-1]))},
        {1: normal(*weights), 2: normal(weights[0], seed=1)},
        [tensor("y", made)],
        custom_options=raw,
    )


@pytest.mark.parametrize(
    ("weights", "strides", "made"),
    [
        ((1, 2, 2, 4), (2, 2), (1, 12, 10, 1)),
        ((3, 3, 3, 4), (2, 2), (1, 12, 10, 3)),
        ((3, 4, 4, 2), (2, 2), (1, 12, 10, 3)),
        ((2, 3, 3, 4), (1, 1), (1, 6, 5, 2)),
    ],
)
def test_a_transposed_convolution_with_a_bias_has_the_same_outputs(weights, strides, made):
    graph = make_transposed(weights, made, strides=strides)

    assert_alike(graph, {"x": normal(1, 6, 5, weights[-1], seed=2)})
    assert "ConvTranspose" in op_types_of(convert(graph))


@pytest.mark.parametrize("raw", [b"", b"\x01\x00", struct.pack("<iii", 0, 2, 2)])
def test_options_in_an_unknown_format_are_refused(raw):
    graph = make_transposed((1, 2, 2, 4), (1, 12, 10, 1), options=raw)

    with pytest.raises(PassRefused, match="options in an unknown format"):
        convert_to_onnx(read_lite(write_lite(graph)))


def test_a_file_with_a_custom_operator_gets_a_caveat(tmp_path):
    path = tmp_path / "custom.tflite"
    path.write_bytes(write_lite(make_transposed((1, 2, 2, 4), (1, 12, 10, 1))))

    found = inspect(path, device="raspberry-pi-5", folder=tmp_path)

    assert found.custom == ("Convolution2DTransposeBias",)
    shown = format_inspection(found)
    assert "every operator can run there" not in shown
    assert "Convolution2DTransposeBias must be built into the runtime there" in shown


def test_the_old_runtime_is_said_to_lack_a_custom_operator_by_its_own_name(tmp_path):
    path = tmp_path / "custom.tflite"
    path.write_bytes(write_lite(make_transposed((1, 2, 2, 4), (1, 12, 10, 1))))

    found = inspect(path, device="beaglebone-black", folder=tmp_path)

    (line,) = [o.what for o in found.obstacles]
    assert line == "Convolution2DTransposeBias: tflite-runtime 2.14 has no such operator"


def test_weights_are_used_without_a_transpose():
    graph = make_transposed((1, 2, 2, 1), (1, 12, 10, 1))
    x = np.zeros((1, 6, 5, 1), np.float32)
    x[0, 2, 3, 0] = 1.0
    assert_alike(graph, {"x": x})
