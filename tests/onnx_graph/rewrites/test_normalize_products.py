"""Matrix products get one standard layout with the same outputs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgekit.compression.quantization.conv_transpose import replace_conv_transposes
from edgekit.onnx_graph.rewrites.normalize_products import normalize_products
from tests.builders.tiny import normal, proto, run, uniform, write


def normalize_and_compare(folder, text, weights, x):
    """The operators after the rewrite; the outputs must not have changed."""
    made = proto(text, weights=weights)
    expected = run(write(folder, made), x=x)[0]
    normalize_products(made)
    np.testing.assert_allclose(run(write(folder, made), x=x)[0], expected, rtol=1e-4, atol=1e-4)
    return [node.op_type for node in made.graph.node]


@pytest.mark.parametrize(
    ("product", "bias", "ops"),
    [
        ("Gemm<alpha = 0.5, beta = 2.0>(x, w, b)", normal(4), ["Gemm"]),
        ("Gemm(x, w, b)", normal(1, 4), ["Gemm"]),
        ("Gemm(x, w, b)", np.float32(3), ["Gemm"]),
        ("Gemm(x, w, b)", normal(6, 1), ["Gemm", "Add"]),
        ("Gemm<beta = 0.5>(x, w, b)", normal(6, 4), ["Gemm", "Mul", "Add"]),
        ("Gemm<transA = 1>(x, w, b)", normal(4), ["Transpose", "Gemm"]),
        ("Gemm<transA = 1, alpha = 2.0>(x, w)", None, ["Transpose", "Gemm"]),
    ],
)
def test_a_gemm_becomes_a_plain_gemm_and_additional_operators(tmp_path, product, bias, ops):
    weights = {"w": normal(6, 4)} | ({} if bias is None else {"b": bias})
    text = f"g (float[6,6] x) => (float[6,4] y) {{ y = {product} }}"

    assert normalize_and_compare(tmp_path, text, weights, uniform(6, 6)) == ops


@pytest.mark.parametrize(
    ("shape", "line", "weight", "ops"),
    [
        ("N,5,6", "MatMul(x, w)", (1, 6, 4), ["MatMul"]),
        ("5,6", "MatMul(x, w)", (1, 6, 4), ["MatMul"]),
        ("N,20,3", "MatMul(w, x)", (16, 20), ["Transpose", "MatMul", "Transpose"]),
        ("N,6,3", "MatMul(w, x)", (4, 6), ["MatMul"]),
        ("20,6", "Gemm<transA = 1, alpha = 2.0>(w, x)", (20, 17),
         ["Transpose", "MatMul", "Transpose"]),
    ],
)  # fmt: skip
def test_a_constant_of_a_matmul_is_moved_to_the_right_if_that_pays(
    tmp_path, shape, line, weight, ops
):
    text = f"g (float[{shape}] x) => (y) {{ y = {line} }}"
    x = uniform(*(2 if d == "N" else int(d) for d in shape.split(",")))

    assert normalize_and_compare(tmp_path, text, {"w": normal(*weight)}, x) == ops


KERNELS = ([2, 2], [3, 3], [4, 4], [5, 2])


@pytest.mark.parametrize(
    ("kernel", "stride", "pads", "more", "group"),
    [
        case
        for case in itertools.product(
            KERNELS, (1, 2, 3), ([0, 0, 0, 0], [0, 1, 1, 2]), ([0, 0], [1, 0]), (1, 2)
        )
        if max(case[3]) < case[1]
    ],
)
def test_a_transposed_convolution_is_a_convolution_of_phases(
    tmp_path, kernel, stride, pads, more, group
):
    text = (
        f"g (float[N,4,H,W] x) => (float[N,6,K,L] y) {{ y = ConvTranspose<strides = [{stride},"
        f"{stride}], pads = {pads}, output_padding = {more}, group = {group}>(x, w, b) }}"
    )
    made = proto(text, weights={"w": normal(4, 6 // group, *kernel), "b": normal(6)})
    x = uniform(2, 4, 5, 6)
    expected = run(write(tmp_path, made), x=x)[0]
    replace_conv_transposes(made)

    beyond = [
        stride * -(-k // stride) - k + a - m for k, a, m in zip(kernel, pads[2:], more, strict=True)
    ]
    left = [node.op_type for node in made.graph.node]
    assert ("ConvTranspose" in left) == (min(beyond) < 0)
    np.testing.assert_allclose(run(write(tmp_path, made), x=x)[0], expected, atol=1e-5)
