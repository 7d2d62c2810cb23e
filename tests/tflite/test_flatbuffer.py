"""Written .tflite files are small, read back unchanged, and run in LiteRT."""

from itertools import pairwise

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import UserError
from edgekit.tflite.flatbuffer import read_lite, write_lite
from edgekit.tflite.ir import LiteGraph, Op, constant
from edgekit.tflite.schema import OP_CODES, find_options_table
from edgekit_agent.runtimes import import_runtime
from tests.builders.lite_graphs import dense, run, scales, single, tensor

FILES = (
    "ic-resnet8/model.tflite",
    "ic-resnet8/reference_int8.tflite",
    "kws-dscnn/model.tflite",
    "kws-dscnn/reference_int8.tflite",
    "kws-dscnn/reference_dynrange.tflite",
    "tab-breastcancer/model.tflite",
)


def unpack(data):
    return schema.ModelT.InitFromPackedBuf(data, 0)


def pack(model):
    builder = Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def names_reported(data, folder):
    path = folder / "m.tflite"
    path.write_bytes(data)
    loaded = import_runtime("litert")(str(path), 1)
    return [t.name for t in loaded.inputs], [t.name for t in loaded.outputs]


@pytest.mark.zoo
@pytest.mark.parametrize("name", FILES)
def test_a_real_model_read_and_written_gives_the_same_bits_and_is_no_larger(zoo, name, tmp_path):
    original = (zoo / name).read_bytes()
    graph = read_lite(original)
    written = write_lite(graph)
    for ours, theirs in zip(run(written), run(original), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(written) <= len(original)
    names = names_reported(original, tmp_path)
    assert (list(graph.inputs), list(graph.outputs)) == names
    assert names_reported(written, tmp_path) == names


def test_a_written_graph_computes_what_its_constants_say():
    graph = dense()
    x = np.array([[1, -2, 3, 0.5]], np.float32)
    (y,) = run(write_lite(graph), [x])
    weights, bias = (t.data for t in graph.ops[0].inputs[1:])
    np.testing.assert_allclose(y, x @ weights.T + bias, rtol=1e-6)


def test_the_same_graph_is_the_same_bytes():
    assert write_lite(dense()) == write_lite(dense())


def test_inputs_have_the_names_and_order_that_the_agent_reports(tmp_path):
    b, a, y = (tensor(n, (2,)) for n in ("b", "a", "sum"))
    op = Op(op_type="SUB", inputs=[b, a], outputs=[y])
    data = write_lite(LiteGraph(ops=[op], inputs={"b": b, "a": a}, outputs={"sum": y}))
    read = read_lite(data)
    assert (list(read.inputs), list(read.outputs)) == names_reported(data, tmp_path)
    assert [t is read.inputs[n] for t, n in zip(read.ops[0].inputs, ("b", "a"), strict=True)] == [
        True,
        True,
    ]


def test_without_a_signature_names_are_those_of_the_tensors_made_plain(tmp_path):
    model = unpack(write_lite(dense()))
    model.signatureDefs = None
    model.subgraphs[0].tensors[0].name = "serving_default_image:0"
    data = pack(model)
    read = read_lite(data)
    assert list(read.inputs) == ["image"]
    assert (list(read.inputs), list(read.outputs)) == names_reported(data, tmp_path)


def test_constants_are_aligned_and_equal_ones_stored_once():
    twice = [constant(n, np.arange(37, dtype=np.float32)) for n in ("first", "second")]
    odd = constant("odd", np.arange(37, dtype=np.float32)[::-1])
    x, *mid = (tensor(n, (37,)) for n in ("x", "p", "q", "y"))
    ops = [
        Op(op_type="ADD", inputs=[s, c], outputs=[t])
        for s, c, t in zip([x, *mid], [*twice, odd], mid, strict=False)
    ]
    data = write_lite(LiteGraph(ops=ops, inputs={"x": x}, outputs={"y": mid[-1]}))
    model = schema.Model.GetRootAs(data)
    found = [model.Buffers(i) for i in range(model.BuffersLength())]
    starts = [b._tab.Vector(b._tab.Offset(4)) for b in found if b.DataLength()]
    assert len(starts) == 2
    assert [s % 16 for s in starts] == [0, 0]


def chain(length):
    """Build a graph of equal operators, one after the other, that add 0.5 each."""
    half = constant("half", np.full((1, 4), 0.5, np.float32))
    values = [tensor(f"t{number}", (1, 4)) for number in range(length + 1)]
    ops = [
        Op(
            op_type="ADD",
            inputs=[value, half],
            outputs=[after],
            options={"fused_activation_function": "RELU"},
        )
        for value, after in pairwise(values)
    ]
    return LiteGraph(ops=ops, inputs={"x": values[0]}, outputs={"y": values[-1]})


def test_operators_that_repeat_cost_few_bytes():
    short, long = write_lite(chain(10)), write_lite(chain(110))
    assert len(long) - len(short) < 100 * 60
    np.testing.assert_array_equal(run(long, [np.zeros((1, 4), np.float32)])[0], np.full((1, 4), 55))
    again = read_lite(long)
    assert {repr(op.options) for op in again.ops} == {repr(read_lite(short).ops[0].options)}
    assert len({id(op.outputs[0]) for op in again.ops}) == 110


def test_constants_of_a_file_are_views_of_it():
    read = read_lite(write_lite(dense()))
    assert not read.ops[0].inputs[1].data.flags.owndata


@pytest.mark.parametrize(("dtype", "low", "high"), [("int4", -8, 7), ("int2", -2, 1)])
def test_few_bit_integers_are_packed_and_read_back(dtype, low, high):
    values = np.array([low, high, 0, -1, low + 1], np.int8)
    stored = tensor("w", (5,), dtype, data=values, quantization=scales(0.5))
    data = write_lite(single("DEQUANTIZE", [stored], tensor("y", (5,))))
    model = schema.Model.GetRootAs(data)
    assert model.Buffers(1).DataLength() == (3 if dtype == "int4" else 2)
    read = read_lite(data).ops[0].inputs[0]
    assert (read.dtype, read.data.dtype) == (dtype, np.int8)
    np.testing.assert_array_equal(read.data, values)


def test_int4_weights_mean_in_litert_what_they_mean_here():
    values = np.array([-8, 7, 0, -1, 3], np.int8)
    stored = tensor("w", (5,), "int4", data=values, quantization=scales(0.5))
    (y,) = run(write_lite(single("DEQUANTIZE", [stored], tensor("y", (5,)))))
    np.testing.assert_array_equal(y, values * np.float32(0.5))


def test_scales_zero_points_and_axis_are_kept():
    parameters = scales(0.5, 0.25, zeros=[3, -4], axis=1)
    stored = tensor("w", (3, 2), "int8", data=np.ones((3, 2), np.int8), quantization=parameters)
    read = read_lite(write_lite(single("DEQUANTIZE", [stored], tensor("y", (3, 2)))))
    found = read.ops[0].inputs[0].quantization
    assert (found.scales.tolist(), found.zero_points.tolist(), found.axis) == (
        [0.5, 0.25],
        [3, -4],
        1,
    )


def test_an_absent_input_and_an_unknown_size_are_kept():
    x, y = tensor("x", (-1, 4)), tensor("y", (-1, 3))
    weights = constant("w", np.ones((3, 4), np.float32))
    read = read_lite(write_lite(single("FULLY_CONNECTED", [x, weights, None], y)))
    assert read.ops[0].inputs[2] is None
    assert read.inputs["x"].shape == (-1, 4)


def counting():
    """A loop that adds 2 until 10 is passed, its parts inner graphs."""
    x, y = tensor("x", (), "int32"), tensor("y", (), "int32")
    a, b, c, d = (
        tensor(n, (), t) for n, t in zip("abcd", ("int32", "bool", "int32", "int32"), strict=True)
    )
    two, ten = (constant(str(n), np.array(n, np.int32)) for n in (2, 10))
    less = Op(op_type="LESS", inputs=[a, ten], outputs=[b])
    add = Op(op_type="ADD", inputs=[c, two], outputs=[d])
    inner = [
        LiteGraph(ops=[less], inputs={"a": a}, outputs={"b": b}),
        LiteGraph(ops=[add], inputs={"c": c}, outputs={"d": d}),
    ]
    options = {"cond_subgraph_index": 1, "body_subgraph_index": 2}
    loop = Op(op_type="WHILE", inputs=[x], outputs=[y], options=options)
    return LiteGraph(ops=[loop], inputs={"x": x}, outputs={"y": y}, inner=inner)


def test_inner_graphs_are_written_and_read():
    once = write_lite(counting())
    again = write_lite(read_lite(once))
    for data in (once, again):
        assert run(data, [np.array(3, np.int32)])[0] == 11


def test_a_custom_operator_keeps_its_name_and_options():
    graph = single(
        "CUSTOM:Mine", [tensor("x", (2,))], tensor("y", (2,)), custom_options=b"\x01\x02"
    )
    (op,) = read_lite(write_lite(graph)).ops
    assert (op.op_type, op.options) == ("CUSTOM:Mine", {"custom_options": b"\x01\x02"})


def test_constants_behind_the_flatbuffer_are_read():
    data = write_lite(dense())
    model = unpack(data)
    place = model.subgraphs[0].tensors[1].buffer
    raw = bytes(model.buffers[place].data)
    model.buffers[place] = schema.BufferT(offset=2**20, size=len(raw))
    moved = pack(model).ljust(2**20, b"\0") + raw
    expected = read_lite(data).ops[0].inputs[1].data
    np.testing.assert_array_equal(read_lite(moved).ops[0].inputs[1].data, expected)
    with pytest.raises(UserError, match="outside the file"):
        read_lite(moved[:-1])


ACTIVATIONS, PADDINGS = ("NONE", "RELU", "RELU6", "TANH"), ("SAME", "VALID")


def draw(value):
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, float):
        return st.floats(width=32, allow_nan=False, allow_infinity=False)
    if value in ACTIVATIONS or value in PADDINGS:
        return st.sampled_from(ACTIVATIONS if value in ACTIVATIONS else PADDINGS)
    if isinstance(value, str):
        return st.just(value)
    return st.integers(0, 7)


def defaults(kind):
    graph = single(kind, [tensor("x", (1, 2, 2, 1))] * 3, tensor("y", (1, 2, 2, 1)))
    return read_lite(write_lite(graph)).ops[0].options


WITH_OPTIONS = sorted(
    k for k in OP_CODES if find_options_table(k) and not k.startswith("STABLEHLO")
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_options_are_read_as_they_were_written(data):
    kind = data.draw(st.sampled_from(WITH_OPTIONS))
    options = {key: data.draw(draw(value), key) for key, value in defaults(kind).items()}
    graph = single(kind, [tensor("x", (1, 2, 2, 1))] * 3, tensor("y", (1, 2, 2, 1)), **options)
    (op,) = read_lite(write_lite(graph)).ops
    assert op.options == options


@pytest.mark.parametrize(
    ("key", "word"),
    [("padding", "VALID"), ("fused_activation_function", "RELU6"), ("stride_w", 3)],
)
def test_options_with_names_keep_them(key, word):
    graph = single(
        "MAX_POOL_2D", [tensor("x", (1, 4, 4, 1))], tensor("y", (1, 2, 2, 1)), **{key: word}
    )
    assert read_lite(write_lite(graph)).ops[0].options[key] == word


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (lambda: single("CONV_9D", [tensor("x", (1,))], tensor("y", (1,))), "no operator CONV_9D"),
        (lambda: single("ADD", [tensor("x", (1,))], tensor("y", (1,)), pad=1), "no option pad"),
        (
            lambda: single(
                "MUL", [tensor("x", (1,))], tensor("y", (1,)), fused_activation_function="GELU"
            ),
            "cannot be GELU",
        ),
        (lambda: single("ADD", [tensor("x", (1,), "float4")], tensor("y", (1,))), "no type float4"),
        (lambda: dense(weights=tensor("w", (3, 4), data=np.ones(4, np.float32))), r"\[4\] is not"),
        (
            lambda: dense(weights=tensor("w", (2,), "int4", data=np.array([8, 0], np.int8))),
            "outside int4",
        ),
    ],
)
def test_unsupported_graphs_are_refused_with_the_reason(graph, words):
    with pytest.raises(UserError, match=words):
        write_lite(graph())


def test_more_than_two_gibibytes_are_refused_before_they_are_copied():
    huge = np.broadcast_to(np.int8(0), (2**16, 2**15))
    with pytest.raises(UserError, match="larger than 2 GiB"):
        write_lite(dense(weights=tensor("w", huge.shape, "int8", data=huge)))
