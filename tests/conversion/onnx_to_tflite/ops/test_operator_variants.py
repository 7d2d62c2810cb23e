"""Every variant of an operator, as one line of ONNX, in both runtimes."""

import math

import numpy as np
import pytest

from edgekit.errors import PassRefused
from tests.builders import tiny
from tests.builders.qdq_graphs import both, lite_graph, make_feed

IMAGE = "float[2, 6, 7, 8] x"
ROWS = "float[2, 3, 4] x"
SPACE = "float[1, 2, 4, 5, 6] x"

# Operator, its input, opsets. What is computed along a channel axis comes after a convolution or a
# pooling too, where channels are stored last.
LINES = [
    # pooling
    ("MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)", IMAGE, 17),
    ("MaxPool <kernel_shape = [2, 3], strides = [2, 2], ceil_mode = 1> (x)", IMAGE, 17),
    ("MaxPool <kernel_shape = [3, 2], dilations = [2, 3]> (x)", IMAGE, 17),
    ("MaxPool <kernel_shape = [3], strides = [2], pads = [1, 0]> (x)", ROWS, 17),
    ("MaxPool <kernel_shape = [2, 2, 2], pads = [1, 0, 1, 0, 1, 1]> (x)", SPACE, 17),
    ("AveragePool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)", IMAGE, 17),
    (
        "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (x)",
        IMAGE,
        17,
    ),
    (
        "AveragePool <kernel_shape = [3, 3], strides = [2, 3], ceil_mode = 1,"
        " count_include_pad = 1, pads = [1, 0, 1, 0]> (x)",
        IMAGE,
        19,
    ),
    ("AveragePool <kernel_shape = [2, 2], dilations = [2, 2], pads = [1, 1, 0, 0]> (x)", IMAGE, 19),
    ("AveragePool <kernel_shape = [2, 3, 2], pads = [0, 1, 0, 1, 0, 1]> (x)", SPACE, 17),
    ("LpPool <kernel_shape = [3, 3], p = 3> (x)", IMAGE, 17),
    ("GlobalAveragePool (x)", IMAGE, 11),
    ("GlobalMaxPool (x)", ROWS, 11),
    ("GlobalLpPool <p = 2> (x)", IMAGE, 11),
    # activations
    ("Relu (x)", IMAGE, 11),
    ("LeakyRelu <alpha = 0.2> (x)", IMAGE, 11),
    ("PRelu (x, channels)", IMAGE, 11),
    ("Elu <alpha = 0.7> (x)", IMAGE, 11),
    ("Selu (x)", IMAGE, 11),
    ("Celu <alpha = 1.5> (x)", IMAGE, 12),
    ("HardSigmoid <alpha = 0.3> (x)", IMAGE, 11),
    ("HardSwish (x)", IMAGE, 14),
    ("Mish (x)", IMAGE, 18),
    ("Gelu (x)", IMAGE, 20),
    ('Gelu <approximate = "tanh"> (x)', IMAGE, 20),
    ("Softplus (x)", IMAGE, 11),
    ("Softsign (x)", IMAGE, 11),
    ("ThresholdedRelu <alpha = 0.3> (x)", IMAGE, 11),
    ("Shrink <lambd = 0.3, bias = 0.1> (x)", IMAGE, 11),
    ("Clip (x, minus_one, one)", IMAGE, 13),
    ("Clip (x, , one)", IMAGE, 11),
    ("Softmax (x)", IMAGE, 11),
    ("Softmax <axis = 2> (x)", ROWS, 11),
    ("Softmax <axis = 1> (x)", IMAGE, 13),
    ("Softmax (x)", IMAGE, 13),
    ("LogSoftmax <axis = 1> (x)", IMAGE, 13),
    ("Hardmax <axis = 1> (x)", IMAGE, 13),
    # normalization
    ("BatchNormalization (x, six, six, six, positive)", IMAGE, 11),
    ("BatchNormalization (x, six, six, six, positive)", IMAGE, 15),
    ("InstanceNormalization (x, six, six)", IMAGE, 11),
    ("LayerNormalization <axis = 1> (x, per_entry)", IMAGE, 17),
    ("LayerNormalization (x, eight, eight)", IMAGE, 17),
    ("GroupNormalization <num_groups = 3> (x, six, six)", IMAGE, 21),
    ("LpNormalization <p = 1, axis = 1> (x)", IMAGE, 11),
    ("LpNormalization (x)", IMAGE, 11),
    ("MeanVarianceNormalization (x)", IMAGE, 13),
    ("LRN <size = 3> (x)", IMAGE, 11),
    # products
    ("MatMul (x, eight_by_five)", IMAGE, 11),
    ("MatMul (x, eight)", IMAGE, 11),
    ("MatMul (per_entry, x)", "float[2, 6, 8, 3] x", 11),
    ("Gemm <transA = 1, alpha = 0.5, beta = 2.0> (x, eight_by_five, five)", "float[8, 3] x", 11),
    ("Gemm <transB = 1> (x, eight_by_five)", "float[3, 5] x", 13),
    ("Gemm (x, eight_by_five, column)", "float[3, 8] x", 13),
    ('Einsum <equation = "bchw,wk->bkhc"> (x, eight_by_five)', IMAGE, 12),
    # reductions
    ("ReduceMean <axes = [1], keepdims = 0> (x)", IMAGE, 11),
    ("ReduceMean (x, axis_one)", IMAGE, 18),
    ("ReduceSum <axes = [-1, 1]> (x)", IMAGE, 11),
    ("ReduceSum <keepdims = 0> (x, axis_one)", IMAGE, 13),
    ("ReduceSum (x)", ROWS, 13),
    ("ReduceSum <noop_with_empty_axes = 1> (x)", ROWS, 13),
    ("ReduceMax <axes = [2, 3]> (x)", IMAGE, 11),
    ("ReduceMin <keepdims = 0> (x)", ROWS, 11),
    ("ReduceProd <axes = [1]> (x)", ROWS, 11),
    ("ReduceL1 <axes = [1]> (x)", IMAGE, 11),
    ("ReduceL2 <axes = [1], keepdims = 0> (x)", IMAGE, 11),
    ("ReduceLogSumExp <axes = [1], keepdims = 0> (x)", IMAGE, 11),
    ("ReduceSumSquare <axes = [1]> (x)", IMAGE, 11),
    # entries
    ("Add (x, eight)", IMAGE, 11),
    ("Sub (channels, x)", IMAGE, 11),
    ("Div (x, scalar)", IMAGE, 14),
    ("Pow (x, two)", IMAGE, 13),
    ("Pow (x, three_times)", IMAGE, 13),
    ("Mod <fmod = 1> (x, scalar)", IMAGE, 13),
    ("Max (x, channels, eight)", IMAGE, 13),
    ("Mean (x, channels, eight)", IMAGE, 13),
    ("Round (x)", ROWS, 11),
    ("Sign (x)", ROWS, 11),
    ("Atan (x)", ROWS, 11),
    ("Asin (small)", ROWS, 11),
    ("Acos (small)", ROWS, 11),
    ("Tan (x)", ROWS, 11),
    ("Sinh (x)", ROWS, 11),
    ("Cosh (x)", ROWS, 11),
    ("Asinh (x)", ROWS, 11),
    ("Atanh (small)", ROWS, 11),
    ("Reciprocal (x)", ROWS, 11),
    ("Erf (x)", IMAGE, 11),
]  # fmt: skip

WEIGHTS = {
    "channels": tiny.uniform(6, 1, 1, seed=1),
    "six": tiny.uniform(6, seed=2),
    "positive": tiny.uniform(6, seed=3) + 2,
    "five": tiny.uniform(5, seed=5),
    "column": tiny.uniform(3, 1, seed=5),
    "eight": tiny.uniform(8, seed=6),
    "per_entry": tiny.uniform(6, 7, 8, seed=7),
    "eight_by_five": tiny.normal(8, 5, seed=8),
    "scalar": np.float32(0.7),
    "two": np.float32(2),
    "three_times": np.float32(3),
    "minus_one": np.float32(-1),
    "one": np.float32(1),
    "axis_one": np.asarray([1]),
}


def written(line, given, opset, *, before=""):
    used = {n: a for n, a in WEIGHTS.items() if n in line.replace("(", " ").replace(")", " ")}
    if "small" in line:
        before = "small = Sin (x)"
    text = f"g ({given}) => (float[] y) {{ {before} y = {line} }}"
    proto = tiny.proto(text, weights=used, opset=opset)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


def agree(proto):
    feed = make_feed(proto)
    for want, got in both(proto, feed):
        assert got.shape == want.shape
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize(("line", "given", "opset"), LINES)
def test_an_operator_gives_what_onnxruntime_gives(line, given, opset):
    agree(written(line, given, opset))


@pytest.mark.parametrize(
    ("line", "given", "opset"), [case for case in LINES if case[1] == IMAGE and "(x" in case[0]]
)
def test_an_operator_after_a_pooling_gives_what_onnxruntime_gives(line, given, opset):
    before = "last = MaxPool <kernel_shape = [1, 1]> (x)"
    line = line.replace("(x", "(last")
    agree(written(line, given, opset, before=before))


def test_an_old_clip_has_its_bounds_as_attributes():
    agree(written("Clip <min = 0.0, max = 6.0> (x)", ROWS, 10))
    (op,) = lite_graph(written("Clip <min = 0.0, max = 6.0> (x)", ROWS, 10)).ops
    assert op.op_type == "RELU6"


def test_the_error_function_is_a_millionth_off_at_most():
    proto = written("Erf (x)", "float[4001] x", 13)
    x = np.linspace(-6, 6, 4001, dtype=np.float32)
    ((_, got),) = both(proto, {"x": x})
    exact = np.asarray([math.erf(float(each)) for each in x])
    assert np.abs(got - exact).max() <= 1e-6


def test_a_softplus_of_large_numbers_does_not_overflow():
    proto = written("Softplus (x)", "float[4] x", 13)
    ((_, got),) = both(proto, {"x": np.float32([-100, 0, 50, 100])})
    np.testing.assert_allclose(got, [0, np.log(2), 50, 100], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["Add", "Mul", "Max", "Less", "Pow", "Mod"])
def test_six_axes_broadcast(kind):
    dtype = "bool" if kind == "Less" else "float"
    fmod = "<fmod = 1>" if kind == "Mod" else ""
    proto = tiny.proto(
        f"g (float[2, 1, 2, 1, 3, 1] a, float[1, 3, 1, 2, 1, 2] b) =>"
        f" ({dtype}[2, 3, 2, 2, 3, 2] y) {{ p = Abs (a)  y = {kind} {fmod} (p, b) }}"
    )
    ((want, got),) = both(proto, make_feed(proto))
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("filling", ["", ", two"])
def test_six_axes_are_padded_though_the_kernel_takes_five(filling):
    weights = {"p": np.int64([1, 0, 1, 0, 2, 1, 0, 1, 0, 2, 0, 1]), "two": np.float32(2)}
    proto = tiny.proto(
        f"g (float[2, 3, 2, 1, 2, 4] x) => (y) {{ y = Pad (x, p{filling}) }}", weights=weights
    )
    ((want, got),) = both(proto, make_feed(proto))
    np.testing.assert_array_equal(got, want)


def integers(dtype, shape, *, least, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(least, 100, shape).astype(dtype)


WIDE = ["Add", "Sub", "Mul", "Div", "Mod", "Max", "Equal", "Greater"]
WIDTHS = [(k, t) for k in WIDE for t in ("int32", "int64")]
WIDTHS += [(k, t) for k in ("Mod", "Max") for t in ("int8", "uint8")]


@pytest.mark.parametrize(("kind", "dtype"), WIDTHS)
def test_integers_are_computed_as_integers(kind, dtype):
    made = "bool" if kind in ("Equal", "Greater") else dtype
    proto = tiny.proto(
        f"g ({dtype}[2, 3] a, {dtype}[3] b) => ({made}[2, 3] y) {{ y = {kind} (a, b) }}"
    )
    least = 0 if dtype == "uint8" else -99
    b = integers(dtype, 3, least=1, seed=1) * np.asarray([1, 1 if least == 0 else -1, 1], dtype)
    ((want, got),) = both(proto, {"a": integers(dtype, (2, 3), least=least, seed=0), "b": b})
    np.testing.assert_array_equal(got, want)
    assert got.dtype == want.dtype


def test_halves_and_doubles_are_computed_in_32_bits_and_keep_their_type_outside():
    proto = tiny.proto("""g (float16[3] h, double[3] d) => (float16[3] y, double[3] z)
        { y = Exp (h)  z = Add (d, d) }""")
    feed = {"h": np.float16([0, 1, -1]), "d": np.float64([0.5, 1, 2])}
    (half, double) = both(proto, feed)
    np.testing.assert_allclose(half[1], half[0], rtol=1e-3)
    np.testing.assert_allclose(double[1], double[0], rtol=1e-6)
    assert (half[1].dtype, double[1].dtype) == (np.float16, np.float64)


def test_an_output_that_is_an_input_is_a_copy():
    proto = tiny.proto(
        "g (float[2] x) => (float[2] y, float[2] z) { y = Identity (x)  z = Dropout (x) }"
    )
    for want, got in both(proto, make_feed(proto)):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "g (float[1, 1, 4, 4] x) => (float[1, 1, 2, 2] y, int64[1, 1, 2, 2] i)"
            " { y, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x) }",
            "outputs the indices of the maxima",
        ),
        ('g (float[3, 3] x) => (float[3] y) { y = Einsum <equation = "ii->i"> (x) }', "diagonal"),
        ("g (uint64[3] x) => (uint64[3] y) { y = Add (x, x) }", "uint64"),
    ],
)
def test_operators_without_a_counterpart_are_refused_in_one_line(text, why):
    proto = tiny.proto(text)
    with pytest.raises(PassRefused, match=why):
        lite_graph(proto)
