"""Damaged or unsupported .tflite files are refused in one line."""

import random

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder

from edgekit.errors import UserError
from edgekit.tflite.flatbuffer import read_lite, write_lite
from edgekit.tflite.ir import LiteGraph, Op, constant
from tests.builders.lite_graphs import dense, scales, tensor


def small():
    """Two operators with 8-bit weights, scales per channel and options."""
    weights = np.arange(72, dtype=np.int8).reshape(8, 3, 3, 1)
    x, c, y = tensor("x", (1, 4, 4, 1)), tensor("c", (1, 4, 4, 8)), tensor("y", (1, 2, 2, 8))
    w = constant("w", weights, quantization=scales(*[0.5] * 8))
    conv = Op(
        op_type="CONV_2D",
        inputs=[x, w, constant("b", np.zeros(8, np.float32))],
        outputs=[c],
        options={"stride_w": 1, "stride_h": 1},
    )
    size = {"stride_w": 2, "stride_h": 2, "filter_width": 2, "filter_height": 2}
    pool = Op(op_type="MAX_POOL_2D", inputs=[c], outputs=[y], options=size)
    return LiteGraph(ops=[conv, pool], inputs={"x": x}, outputs={"y": y})


def read_or_refused(data):
    """Whether a file was refused in one line; any other failure is one of the test."""
    try:
        read_lite(data)
    except UserError as error:
        return "\n" not in error.message
    return False


def test_a_file_cut_anywhere_is_refused():
    # A flatbuffer ends in what was written first: an input's name, then padding.
    data = write_lite(small())
    assert all(read_or_refused(data[:length]) for length in range(len(data) // 2))
    for length in range(len(data) // 2, len(data)):
        read_or_refused(data[:length])


def test_changed_bytes_never_cause_a_crash():
    data, draw = write_lite(small()), random.Random(0)
    refused = 0
    for _ in range(1500):
        changed = bytearray(data)
        for _ in range(draw.choice((1, 1, 3, 20))):
            changed[draw.randrange(len(data))] = draw.randrange(256)
        refused += read_or_refused(bytes(changed))
    assert 200 < refused < 1500


@pytest.mark.parametrize(
    "data", [b"", b"TFL3", b"PK\x03\x04 a zip file", b"\x08\0\0\0ONNX" + bytes(99)]
)
def test_a_file_that_is_not_tflite_is_named_as_such(data):
    with pytest.raises(UserError, match="not a TFLite file"):
        read_lite(data)


def changed(change):
    model = schema.ModelT.InitFromPackedBuf(write_lite(dense()), 0)
    change(model, model.subgraphs[0])
    builder = Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def sparse(_model, graph):
    graph.tensors[1].sparsity = schema.SparsityParametersT()


def words(_model, graph):
    graph.tensors[1].type = schema.TensorType.STRING


def short(model, graph):
    model.buffers[graph.tensors[1].buffer].data = np.zeros(5, np.uint8)


def no_tensor(_model, graph):
    graph.operators[0].inputs = [0, 99, 2]


def make_uncomputed(_model, graph):
    graph.inputs = [1]


def too_many_scales(_model, graph):
    graph.tensors[1].quantization = schema.QuantizationParametersT(
        scale=np.ones(7, np.float32), zeroPoint=np.zeros(7, np.int64)
    )


def blocks(_model, graph):
    graph.tensors[1].quantization = schema.QuantizationParametersT(
        detailsType=schema.QuantizationDetails.BlockwiseQuantization,
        details=schema.BlockwiseQuantizationT(),
    )


def make_unknown(model, _graph):
    model.operatorCodes[0].builtinCode = 5000


def old(model, _graph):
    model.version = 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (sparse, "is sparse"),
        (words, "constants of type string are not supported"),
        (short, r"5 bytes stored, but float32\[3, 4\] needs 48"),
        (no_tensor, "there is no tensor 99"),
        (make_uncomputed, "before it is computed"),
        (too_many_scales, "do not match its shape"),
        (blocks, "not supported"),
        (make_unknown, "unknown operator 5000"),
        (old, "schema version 2"),
    ],
)
def test_unsupported_or_impossible_content_is_named(change, said):
    with pytest.raises(UserError, match=said):
        read_lite(changed(change))
