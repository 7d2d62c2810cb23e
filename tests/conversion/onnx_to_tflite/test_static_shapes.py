"""Dynamic shapes of exported graphs become fixed shapes with the same outputs."""

import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.conversion.onnx_to_tflite.convert import convert_to_tflite
from edgekit.conversion.onnx_to_tflite.static_shapes import fix_shapes
from edgekit.errors import PassRefused
from tests.builders.both_runtimes import agree, noise
from tests.builders.tiny import proto


def kinds(made):
    return [node.op_type for node in made.graph.node]


def sizes(made, name):
    values = [*made.graph.value_info, *made.graph.output]
    dims = next(v for v in values if v.name == name).type.tensor_type.shape.dim
    return [dim.dim_value for dim in dims]


COMPUTED = """agraph (float[N, L, 8] x) => (y) {
    s = Shape(x) zero = Constant<value = int64 {0}>() one = Constant<value = int64 {1}>()
    n = Gather(s, zero) l = Gather(s, one)
    axes = Constant<value_ints = [0]>() nn = Unsqueeze(n, axes) ll = Unsqueeze(l, axes)
    heads = Constant<value_ints = [2, 4]>() target = Concat<axis = 0>(nn, ll, heads)
    parts = Reshape(x, target) turned = Transpose<perm = [0, 2, 1, 3]>(parts)
    step = Constant<value = int64 {1}>() places = Range(zero, l, step)
    real = Cast<to = 1>(places) column = Unsqueeze(real, axes2) y = Add(turned, column)
}"""


def test_computed_shapes_are_constants_once_inputs_have_sizes():
    made = proto(COMPUTED, weights={"axes2": np.array([1])})
    fixed = fix_shapes(made, {"L": 6})
    assert kinds(fixed) == ["Reshape", "Transpose", "Add"]
    assert sizes(fixed, "y") == [1, 2, 6, 4]
    agree(made, dims={"L": 6}, x=noise(1, 6, 8))


def test_wrong_shapes_in_the_file_are_ignored():
    made = proto("agraph (float[N, 4] x) => (float[7, 9] y) { a = Relu(x) y = Neg(a) }")
    made.graph.value_info.add(
        name="a", type=helper.make_tensor_type_proto(TensorProto.FLOAT, [3, 3])
    )
    fixed = fix_shapes(made, {}, batch=2)
    assert sizes(fixed, "a") == sizes(fixed, "y") == [2, 4]


def test_local_functions_are_inlined():
    functions = """
        <opset_import: ["" : 17], domain: "own">
        twice (a) => (b) { b = Add(a, a) }"""
    text = "agraph (float[1, 4] x) => (float[1, 4] y) { h = own.twice(x) y = own.twice(h) }"
    made = proto(text, imports=', "own" : 1', functions=functions)
    assert kinds(fix_shapes(made, {})) == ["Add", "Add"]


def test_operators_without_a_rule_are_written_as_onnx_defines_them():
    text = "agraph (float[1, 2, 6, 8] q, float[1, 2, 6, 8] k) => (y) { y = Attention(q, k, k) }"
    made = proto(text, opset=23, ir=11)
    assert "Attention" not in kinds(fix_shapes(made, {}))


def test_stored_inputs_are_weights():
    made = proto("agraph (float[1, 4] x, float[4] w) => (y) { y = Mul(x, w) }")
    made.graph.initializer.append(numpy_helper.from_array(noise(4), "w"))
    assert [value.name for value in fix_shapes(made, {}).graph.input] == ["x"]


def test_weights_stay_constants_for_training():
    text = "agraph (float[1, 4] x) => (y) { t = Transpose(w) u = Mul(t, t) y = MatMul(x, u) }"
    made = proto(text, weights={"w": noise(6, 4)})
    assert kinds(fix_shapes(made, {})) == ["MatMul"]
    kept = fix_shapes(made, {}, fold_weights=False)
    assert kinds(kept) == ["Transpose", "Mul", "MatMul"]
    assert [t.name for t in kept.graph.initializer] == ["w"]


def test_the_branch_of_a_known_condition_is_taken():
    text = """agraph (float[N, 4] x) => (float[N, 4] y) {
        s = Size(x) four = Constant<value = int64 {4}>() c = Equal(s, four)
        y = If(c) <then_branch = a () => (float[N, 4] p) { p = Relu(x) },
                   else_branch = b () => (float[N, 4] q) { q = Neg(x) }>
    }"""
    made = proto(text)
    assert kinds(fix_shapes(made, {})) == ["Relu", "Identity"]
    agree(made, x=noise(1, 4))


LOOP = """agraph (float[2, 3] x) => (float[2, 3] y, float[K, 2, 3] z) {
    n = Constant<value = int64 {3}>() c = Constant<value = bool {1}>()
    y, z = Loop(n, c, x) <body = step (int64 i, bool going, float[2, 3] s)
        => (bool more, float[2, 3] t, float[2, 3] u) {
            r = Cast<to = 1>(i) t = Add(s, r) u = Mul(t, x) more = Identity(going) }>
}"""


def test_a_loop_of_known_length_is_unrolled():
    made = proto(LOOP)
    assert "Loop" not in kinds(fix_shapes(made, {}))
    agree(made, x=noise(2, 3))


def test_a_reverse_scan_is_unrolled():
    text = """agraph (float[3] s, float[5, 3] x) => (float[3] y, float[5, 3] z) {
        y, z = Scan<num_scan_inputs = 1, scan_input_directions = [1],
                    scan_output_directions = [1], body = step (float[3] a, float[3] b)
            => (float[3] c, float[3] d) { c = Add(a, b) d = Neg(c) }>(s, x)
    }"""
    agree(proto(text), s=noise(3), x=noise(5, 3))


def test_a_loop_whose_end_depends_on_the_data_is_refused():
    text = LOOP.replace(
        "more = Identity(going)",
        "v = ReduceSum<keepdims = 0>(t) w = Constant<value = float {9}>() more = Less(v, w)",
    )
    with pytest.raises(PassRefused, match="has an exit condition that depends on the data"):
        convert_to_tflite(proto(text), {})


def test_a_sequence_of_known_length_leaves_tensors():
    text = """agraph (float[2, 6] x) => (y) {
        p = SplitToSequence<axis = 1>(x, w) i = Constant<value = int64 {1}>()
        m = SequenceAt(p, i) e = SequenceInsert(p, m)
        y = ConcatFromSequence<axis = 1>(e)
    }"""
    made = proto(text, weights={"w": np.array([2, 3, 1])})
    agree(made, x=noise(2, 6))


def test_inputs_that_are_not_tensors_are_refused():
    made = proto("agraph (seq(float[2]) x) => (float[2] y) { y = ConcatFromSequence<axis = 0>(x) }")
    with pytest.raises(PassRefused, match="input x is a sequence"):
        fix_shapes(made, {})


def test_a_graph_of_two_thousand_nodes_is_processed_in_seconds():
    nodes, name = [], "x"
    for at in range(400):
        parts = [f"{kind}{at}" for kind in "sgrtu"]
        nodes += [
            helper.make_node("Shape", [name], [parts[0]]),
            helper.make_node("Gather", [parts[0], "places"], [parts[1]]),
            helper.make_node("Reshape", [name, parts[1]], [parts[2]]),
            helper.make_node("Relu", [parts[2]], [parts[3]]),
            helper.make_node("Add", [parts[3], "one"], [parts[4]]),
        ]
        name = parts[4]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.array([0, 1]), "places"),
            numpy_helper.from_array(np.float32([1.0]), "one"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    start = time.process_time()
    assert len(fix_shapes(made, {}).graph.node) == 1200
    assert time.process_time() - start < 20


def test_a_model_with_a_damaged_node_is_refused_by_name():
    made = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> '
        "agraph (float[2, 3] x) => (float[2, 3] y) { a = Reshape(x, s) y = Relu(a) }"
    )
    with pytest.raises(PassRefused, match=r"a: its shape|s: no node"):
        convert_to_tflite(made, {})
