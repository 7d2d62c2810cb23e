"""Reshapes and transposes are avoided where possible, and always correct."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.builders.both_runtimes import agree, noise, operators
from tests.builders.tiny import proto

CONV = "c = Conv<pads = [1, 1, 1, 1]>(x, w)"


def conv(tail, *, channels=4, size=6, opset=17, weights=None):
    """A convolution and what follows, channels last in TFLite."""
    text = f"agraph (float[1, 3, {size}, {size}] x) => (y) {{ {CONV} {tail} }}"
    kernels = {"w": noise(channels, 3, 3, 3), **(weights or {})}
    return proto(text, weights=kernels, opset=opset)


def test_a_flattened_image_meets_a_dense_layer_without_a_transpose():
    made = conv("f = Flatten(c) y = Gemm<transB = 1>(f, v)", weights={"v": noise(5, 144, seed=1)})
    agree(made, x=noise(1, 3, 6, 6), atol=1e-4)
    assert operators(made).get("TRANSPOSE", 0) == 1  # of the input


def test_a_flattened_image_that_nothing_multiplies_has_its_columns_in_order():
    agree(conv("f = Flatten(c) y = Softmax(f)"), x=noise(1, 3, 6, 6))


def test_patches_of_an_image_become_tokens_without_a_transpose():
    tail = "r = Reshape(c, s) y = Transpose<perm = [0, 2, 1]>(r)"
    made = conv(tail, weights={"s": np.array([1, 4, 36])})
    agree(made, x=noise(1, 3, 6, 6))
    assert operators(made).get("TRANSPOSE", 0) == 1


def test_shuffled_channels_take_one_transpose():
    tail = (
        "a = Reshape(c, s) b = Transpose<perm = [0, 2, 1, 3, 4]>(a) d = Reshape(b, t)y = Conv(d, v)"
    )
    sizes = {"s": np.array([1, 2, 4, 6, 6]), "t": np.array([1, 8, 6, 6])}
    made = conv(tail, channels=8, weights={**sizes, "v": noise(2, 8, 1, 1, seed=2)})
    agree(made, x=noise(1, 3, 6, 6), atol=1e-4)
    assert operators(made).get("TRANSPOSE", 0) <= 3


def test_an_upscaled_image_by_reshapes_and_a_transpose_is_right():
    tail = "a = Reshape(c, s) b = Transpose<perm = [0, 1, 4, 2, 5, 3]>(a) y = Reshape(b, t)"
    sizes = {"s": np.array([1, 2, 2, 2, 6, 6]), "t": np.array([1, 2, 12, 12])}
    agree(conv(tail, channels=8, weights=sizes), x=noise(1, 3, 6, 6))


def test_concatenated_split_and_sliced_images_stay_channels_last():
    tail = (
        "j = Concat<axis = 1>(c, c) p, q = Split<axis = 1>(j, s) "
        "l = Slice(p, b, e, a, t) y = Conv(l, v)"
    )
    weights = {
        "s": np.array([3, 5]), "b": np.array([4, 5]), "e": np.array([-7, 1]),
        "a": np.array([3, 2]), "t": np.array([-1, -2]), "v": noise(2, 3, 1, 1, seed=3),
    }  # fmt: skip
    made = conv(tail, weights=weights)
    agree(made, x=noise(1, 3, 6, 6))
    assert operators(made)["TRANSPOSE"] == 2  # of the input and of the output


@st.composite
def chains(draw):
    """Reshapes and transposes of an image of sizes with few divisors, one after the other."""
    shape, nodes, weights, name = [1, 4, 6, 6], [], {}, "c"
    for at in range(draw(st.integers(1, 5))):
        made = f"n{at}"
        if draw(st.booleans()):
            perm = draw(st.permutations(range(len(shape))))
            nodes.append(helper.make_node("Transpose", [name], [made], perm=perm))
            shape = [shape[axis] for axis in perm]
        else:
            shape = _other(draw, shape)
            weights[f"s{at}"] = np.array(shape)
            nodes.append(helper.make_node("Reshape", [name, f"s{at}"], [made]))
        name = made
    return nodes, weights, name


def _other(draw, shape):
    whole = [2, 2, 2, 3, 2, 3]
    order = draw(st.permutations(whole))
    cuts = sorted(draw(st.sets(st.integers(1, 5), max_size=4)))
    parts = [int(np.prod(order[a:b])) for a, b in zip([0, *cuts], [*cuts, 6], strict=True)]
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), 1)
    return parts


@given(chains())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_chain_of_reshapes_and_transposes_of_an_image_is_right(chain):
    nodes, weights, last = chain
    weights["w"] = noise(4, 3, 3, 3)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), *nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 6])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    agree(made, x=noise(1, 3, 6, 6))
