"""Cross-layer equalization balances channel ranges where that lowers the error."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compression.quantization.cross_layer_equalization import (
    find_pairs,
    measure_channel_ranges,
)
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import load
from edgekit.onnx_graph.qdq_placement import plan_placement
from tests.builders.tiny import apply, model, normal, run, samples, sqnr_db, uniform

WIDE = np.logspace(-1.2, 1.2, 16).astype(np.float32)

GRAPHS = {
    "conv, relu, depthwise conv": (
        "g (float[N,4,8,8] x) => (float[N,16,6,6] y) "
        "{ c = Conv(x, w, b) r = Relu(c) d = Conv<group = 16>(r, v) y = Neg(d) }",
        normal(16, 1, 3, 3, seed=1) / WIDE[:, None, None, None],
    ),
    "conv, relu, pool, conv": (
        "g (float[N,4,8,8] x) => (float[N,8,4,4] y) { c = Conv(x, w, b) r = Relu(c) "
        "p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(r) d = Conv(p, v) y = Neg(d) }",
        normal(8, 16, 1, 1, seed=1) / WIDE[None, :, None, None],
    ),
}


def source_of(folder, kind):
    text, second = GRAPHS[kind]
    first = normal(16, 4, 1, 1) * WIDE[:, None, None, None]
    return model(folder, text, weights={"w": first, "b": normal(16, seed=2) * WIDE, "v": second})


@pytest.mark.parametrize("kind", GRAPHS)
def test_unequal_channels_keep_their_precision(tmp_path, kind):
    source = source_of(tmp_path, kind)
    data = samples(tmp_path, x=uniform(72, 4, 8, 8))
    x = uniform(32, 4, 8, 8, seed=3)
    before = run(source, x=x)[0]

    def channels_db(equal):
        made = apply("quantize-static", source, tmp_path, data, equalize=equal)
        after = run(made, x=x)[0]
        return np.mean([sqnr_db(before[:, c], after[:, c]) for c in range(before.shape[1])])

    assert channels_db(equal=True) > channels_db(equal=False) + 3


def test_channels_are_not_scaled_through_other_activation_functions(tmp_path):
    text, second = GRAPHS["conv, relu, depthwise conv"]
    first = normal(16, 4, 1, 1) * WIDE[:, None, None, None]
    weights = {"w": first, "b": normal(16), "v": second, "low": np.float32(0), "six": np.float32(6)}
    clipped = text.replace("Relu(c)", "Clip(c, low, six)")
    source = model(tmp_path, clipped, weights=weights)
    data = samples(tmp_path, x=uniform(72, 4, 8, 8))
    x = uniform(32, 4, 8, 8, seed=3)

    made = [apply("quantize-static", source, tmp_path, data, equalize=e) for e in (True, False)]

    np.testing.assert_array_equal(run(made[0], x=x)[0], run(made[1], x=x)[0])


PRODUCTS = {
    "rank 2": ((8,), "MatMul(x, w) r = Relu(h)", 32),
    "rank 3": ((6, 8), "MatMul(x, w) r = Relu(h)", 32),
    "rank 3, nothing between": ((6, 8), "MatMul(x, w) r = Identity(h)", 32),
    "rank 4": ((2, 3, 8), "MatMul(x, w) r = LeakyRelu(h)", 32),
    "rank 5": ((2, 2, 3, 8), "MatMul(x, w) r = Relu(h)", 32),
    "rank 3, one hidden channel": ((6, 8), "MatMul(x, w) r = Relu(h)", 1),
    "rank 3, pools of other channels": (
        (3, 6, 8),
        "MatMul(x, w) r = MaxPool<kernel_shape = [1, 3], pads = [0, 1, 0, 1]>(h)",
        32,
    ),
}


def products(folder, kind, *, opset=17, free=False):
    """Two products in a row whose hidden channels differ widely."""
    shape, between, hidden = PRODUCTS[kind]
    dims = [*(["T"] * free + [str(d) for d in shape[free:-1]]), str(shape[-1])]
    given = ",".join(("N", *dims))
    text = f"g (float[{given}] x) => (y) {{ h = {between} y = MatMul(r, v) }}"
    text = text.replace("r = Identity(h) y = MatMul(r, v)", "y = MatMul(h, v)")
    wide = np.logspace(-1.2, 1.2, hidden).astype(np.float32)
    weights = {"w": normal(8, hidden) * wide, "v": normal(hidden, 5, seed=1) / wide[:, None]}
    return model(folder, text, weights=weights, opset=opset), shape


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in PRODUCTS if "pools" not in kind])
def test_two_products_in_a_row_are_quantized_at_any_rank(tmp_path, kind, free, opset):
    source, shape = products(tmp_path, kind, free=free and len(PRODUCTS[kind][0]) > 1, opset=opset)
    data = samples(tmp_path, x=normal(72, *shape, seed=2))
    x = normal(24, *shape, seed=3)

    made = apply("quantize-static", source, tmp_path, data)

    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 25


@pytest.mark.parametrize("kind", ["rank 2", "rank 3", "rank 4", "rank 5"])
def test_scales_are_one_per_hidden_channel(tmp_path, kind):
    source, shape = products(tmp_path, kind)
    index = GraphIndex(load(source.path), None)
    parts = [samples(tmp_path, x=normal(8, *shape, seed=2))]
    (pair,) = find_pairs(index, plan_placement(index))

    ((low, high),) = measure_channel_ranges(index, [pair], parts)

    rows = np.matmul(normal(8, *shape, seed=2), index.float_constant("w")).reshape(-1, 32)
    expected = np.maximum(rows, 0) if kind != "rank 4" else np.where(rows > 0, rows, rows * 0.01)
    np.testing.assert_allclose(low, expected.min(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(high, expected.max(axis=0), rtol=1e-4, atol=1e-5)


def test_pools_over_the_channels_of_a_product_end_a_pair(tmp_path):
    source, _ = products(tmp_path, "rank 3, pools of other channels")
    index = GraphIndex(load(source.path), None)
    assert find_pairs(index, plan_placement(index)) == []
