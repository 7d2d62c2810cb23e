"""Operators get the lowest version that supports their options."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgekit.tflite.flatbuffer import write_lite
from edgekit.tflite.ir import LiteGraph, Op, constant
from edgekit.tflite.op_versions import get_version
from edgekit.tflite.runtime_support import list_version_conflicts
from tests.builders.lite_graphs import dense, run, scales, single, tensor


def product(source="float32", weight="float32", *, count=0, bias=True, **options):
    """A fully connected operator of given types and number of weight scales."""
    held = np.ones((2, 4), np.float32 if weight == "float32" else np.int8)
    parameters = scales(*[0.5] * count) if count else None
    w = tensor("w", (2, 4), weight, data=held, quantization=parameters)
    ends = scales(0.5) if source != "float32" else None
    x, y = (tensor(n, s, source, quantization=ends) for n, s in (("x", (1, 4)), ("y", (1, 2))))
    kinds = {"int8": np.int32, "int16": np.int64}
    b = constant("b", np.zeros(2, kinds.get(source, np.float32)))
    if ends is not None:
        b.quantization = scales(0.25)
    return single("FULLY_CONNECTED", [x, w, b][: 3 if bias else 2], y, **options)


@pytest.mark.parametrize(
    ("graph", "version"),
    [
        (product(), 1),
        (product(bias=False), 6),
        (product(keep_num_dims=True), 5),
        (product(weight="int8", count=1), 3),
        (product(weight="int8", count=1, asymmetric_quantize_inputs=True), 9),
        (product(weight="int8", count=2), 12),
        (product("int8", "int8", count=1), 4),
        (product("int8", "int4", count=1), 10),
        (product("int16", "int8", count=1), 7),
        (product("int16", "int8", count=1, quantized_bias_type="int64"), 7),
        (single("TRANSPOSE", [tensor("x", (1,) * 5), constant("p", np.arange(5, dtype=np.int32))],
                tensor("y", (1,) * 5)), 4),
        (single("DEQUANTIZE", [tensor("x", (2,), "float16")], tensor("y", (2,))), 3),
        (single("LOGISTIC", [tensor("x", (2,), "int8", quantization=scales(0.1))],
                tensor("y", (2,), "int8", quantization=scales(1 / 256, zeros=[-128]))), 2),
        (single("CAST", [tensor("x", (2,), "int8")], tensor("y", (2,), "int32"),
                in_data_type="int8", out_data_type="int32"), 3),
    ],
)  # fmt: skip
def test_a_use_gets_the_version_it_needs_and_litert_runs_it(graph, version):
    data = write_lite(graph)
    assert schema.Model.GetRootAs(data).OperatorCodes(0).Version() == version
    assert all(np.isfinite(y).all() for y in run(data))


def test_a_narrow_bias_of_wide_activations_needs_a_newer_version():
    (op,) = product("int16", "int8", count=1, quantized_bias_type="int32").ops
    assert get_version(op) == 11


def test_a_bias_left_out_in_its_place_needs_no_newer_version():
    (op,) = product().ops
    assert (
        get_version(Op(op_type=op.op_type, inputs=[*op.inputs[:2], None], outputs=op.outputs)) == 1
    )


def test_two_uses_of_an_operator_have_a_version_each():
    x, y, z = (tensor(n, (1,) * 6) for n in "xyz")
    low, flat = tensor("low", (1,)), constant("flat", np.array([1], np.int32))
    six, one = (constant(str(n), np.arange(n, dtype=np.int32)) for n in (6, 1))
    ops = [
        Op(op_type="TRANSPOSE", inputs=[x, six], outputs=[y]),
        Op(op_type="RESHAPE", inputs=[y, flat], outputs=[low]),
        Op(op_type="TRANSPOSE", inputs=[low, one], outputs=[z]),
    ]
    model = schema.Model.GetRootAs(
        write_lite(LiteGraph(ops=ops, inputs={"x": x}, outputs={"z": z}))
    )
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    assert [c.Version() for c in codes] == [6, 1, 1]


def test_a_product_with_scale_one_or_more_needs_a_newer_mul():
    ends = [tensor(n, (2,), "int8", quantization=scales(s)) for n, s in (("x", 1), ("y", 0.5))]
    small, large = (tensor("z", (2,), "int8", quantization=scales(s)) for s in (0.5, 1))
    assert get_version(Op(op_type="MUL", inputs=[*ends], outputs=[small])) == 3
    assert get_version(Op(op_type="MUL", inputs=[*ends], outputs=[large])) == 2


def test_grouped_convolutions_need_a_newer_version():
    x, y = tensor("x", (1, 4, 4, 4)), tensor("y", (1, 4, 4, 2))
    w = constant("w", np.ones((2, 1, 1, 2), np.float32))
    op = Op(op_type="CONV_2D", inputs=[x, w, None], outputs=[y])
    assert get_version(op) == 6


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (product(weight="int8", count=2), "version 12 is needed, tflite-runtime 2.14 has 10"),
        (product("int8", "int8", count=2), "one scale for the weights"),
        (single("DILATE", [tensor("x", (2,))], tensor("y", (2,))), "no such operator"),
        (single("CUSTOM:Mine", [tensor("x", (2,))], tensor("y", (2,))), "no such operator"),
        (single("DEQUANTIZE", [tensor("x", (2,), "int4")], tensor("y", (2,))), "version 6"),
        (
            single("RESHAPE", [tensor("x", (2,), "bfloat16")], tensor("y", (2,), "bfloat16")),
            "bfloat16",
        ),
    ],
)
def test_operators_that_the_old_runtime_lacks_are_reported_once(graph, said):
    (line,) = list_version_conflicts(graph)
    assert said in line


def test_plain_graphs_are_not_too_new():
    assert list_version_conflicts(dense()) == []
    assert list_version_conflicts(product("int8", "int8", count=1)) == []


def test_inner_graphs_are_checked_and_the_node_is_named():
    outer = dense()
    inner = single("DILATE", [tensor("x", (2,))], tensor("y", (2,)))
    inner.ops[0].origin = "Dilate_3"
    outer.inner = [inner]
    assert list_version_conflicts(outer)[0].startswith("DILATE (Dilate_3):")
