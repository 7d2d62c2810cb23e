"""Weights that are computed from stored integers stay integers in the file."""

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.conversion.onnx_to_tflite.convert import convert_to_lite_graph, convert_to_tflite
from edgekit.errors import PassRefused
from tests.builders.both_runtimes import agree, in_litert, noise
from tests.builders.tiny import apply, write


def graph(nodes, weights, shape, *, opset=21):
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def integers(shape, dtype=np.int8, seed=0):
    bounds = (-7, 8) if dtype == ml_dtypes.int4 else (0, 255) if dtype == np.uint8 else (-127, 128)
    return np.random.default_rng(seed).integers(*bounds, shape).astype(dtype)


def scales(*shape, seed=1):
    return np.random.default_rng(seed).uniform(0.001, 0.01, shape).astype(np.float32)


def restore(name="w", *, zero=False):
    """What makes a weight of stored integers: Cast, Sub and Mul."""
    nodes = [helper.make_node("Cast", [f"{name}_q"], [f"{name}_c"], to=TensorProto.FLOAT)]
    if zero:
        nodes.append(helper.make_node("Sub", [f"{name}_c", f"{name}_z"], [f"{name}_m"]))
    middle = f"{name}_m" if zero else f"{name}_c"
    return [*nodes, helper.make_node("Mul", [middle, f"{name}_s"], [name])]


def stored_bytes(proto, *dtypes):
    read = {
        id(t): t for op in convert_to_lite_graph(proto, {}).ops for t in op.inputs if t is not None
    }
    return sum(t.data.nbytes for t in read.values() if t.data is not None and t.dtype in dtypes)


def holds_integers(proto, count):
    assert stored_bytes(proto, "int8") == count
    assert stored_bytes(proto, "float32") < count / 4


@pytest.mark.parametrize("along", [(3, 1, 64), (3, 24, 1), (3, 1, 1), (1, 1, 64), (1, 24, 64)])
@pytest.mark.parametrize("zero", [False, True])
def test_batched_weights_with_scales_along_any_axes_stay_integers(along, zero):
    nodes = [*restore(zero=zero), helper.make_node("MatMul", ["x", "w"], ["y"])]
    weights = {"w_q": integers((3, 24, 64)), "w_s": scales(*along)}
    if zero:
        weights["w_z"] = np.float32(3)
    proto = graph(nodes, weights, [2, 3, 5, 24])

    if np.prod(along) < 24 * 64:
        assert stored_bytes(proto, "int8") == 3 * 24 * 64
    agree(proto, x=noise(2, 3, 5, 24))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("left", [False, True])
def test_batched_weights_under_a_dequantizer_stay_integers(axis, left):
    names = ["w", "x"] if left else ["x", "w"]
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=axis),
        helper.make_node("MatMul", names, ["y"]),
    ]
    proto = graph(nodes, {"q": integers((3, 32, 32)), "s": scales((3, 32, 32)[axis])}, [3, 32, 32])

    holds_integers(proto, 3 * 32 * 32)
    agree(proto, x=noise(3, 32, 32))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, ml_dtypes.int4])
@pytest.mark.parametrize(("shape", "axis"), [((128, 48), 0), ((48, 128), 1), ((2, 128, 16), 1)])
@pytest.mark.parametrize("zero", [False, True])
def test_weights_with_scales_for_blocks_stay_integers(dtype, shape, axis, zero):
    blocks = tuple(size // 32 if n == axis else size for n, size in enumerate(shape))
    weights = {"q": integers(shape, dtype), "s": scales(*blocks)}
    if zero:
        weights["z"] = integers(blocks, dtype, seed=5)
    names = ["q", "s", "z"] if zero else ["q", "s"]
    nodes = [
        helper.make_node("DequantizeLinear", names, ["w"], axis=axis, block_size=32),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    proto = graph(nodes, weights, [*shape[:-2], 3, shape[-2]])

    holds_integers(proto, int(np.prod(shape)))
    wide = {n: np.repeat(w.astype(np.float32), 32, axis) for n, w in weights.items() if n != "q"}
    real = (weights["q"].astype(np.float32) - wide.get("z", 0)) * wide["s"]
    x = noise(*shape[:-2], 3, shape[-2])
    (got,) = in_litert(proto, x=x)  # onnxruntime rounds activations to 8 bits here
    np.testing.assert_allclose(got, x @ real, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kept", [True, False])
def test_weights_inside_a_branch_that_is_taken_stay_integers(kept):
    def branch(name, columns):
        nodes = [*restore(f"{name}w"), helper.make_node("MatMul", ["x", f"{name}w"], [name])]
        stored = {f"{name}w_q": integers((64, columns)), f"{name}w_s": scales(1, columns)}
        return helper.make_graph(
            nodes,
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(a, n) for n, a in stored.items()],
        )

    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"], start=0, end=1),
        helper.make_node("Equal", ["sizes", "one"], ["is_one"]),
        helper.make_node("Squeeze", ["is_one"], ["condition"]),
        helper.make_node(
            "If", ["condition"], ["h"], then_branch=branch("t", 32), else_branch=branch("e", 48)
        ),
        helper.make_node("Neg", ["h"], ["y"]),
    ]
    proto = graph(nodes, {"one": np.array([1])}, [1 if kept else 2, 64])

    holds_integers(proto, 64 * (32 if kept else 48))
    agree(proto, x=noise(1 if kept else 2, 64))


def test_integers_that_would_become_floats_are_refused_in_words(tmp_path):
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=0, block_size=64),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    weights = {"q": integers((200, 64)), "s": scales(4, 64)}  # the last block is a short one
    proto = graph(nodes, weights, [1, 200])
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64]))
    source = write(tmp_path, proto)

    with pytest.raises(PassRefused, match="integer weights cannot be stored in the other format"):
        apply("to-tflite", source, tmp_path)


def test_small_tables_are_folded_as_before():
    nodes = [*restore(), helper.make_node("MatMul", ["x", "w"], ["y"])]
    proto = graph(nodes, {"w_q": integers((4, 3, 5)), "w_s": scales(4, 1, 5)}, [4, 2, 3])

    assert "DEQUANTIZE" not in {op.op_type for op in convert_to_lite_graph(proto, {}).ops}
    assert len(convert_to_tflite(proto, {})) < 4000
    agree(proto, x=noise(4, 2, 3))
