"""Low-bit weights: a small alphabet, per channel, close to float, and kept by what comes after."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.errors import PassRefused
from edgekit.passes.gptq import gptq, mse_scales
from edgekit.passes.layer_inputs import Layer
from tests.tiny import (
    apply,
    fused_ops,
    model,
    normal,
    ops,
    proto,
    run,
    samples,
    sqnr_db,
    uniform,
)

NETWORK = (
    "g (float[N,3,12,12] x) => (float[N,10] y) { "
    "c = Conv<pads = [1,1,1,1]>(x, w0, b0) r = Relu(c) "
    "d = Conv<pads = [1,1,1,1], group = 16>(r, w1) q = Relu(d) "
    "e = Conv<strides = [2,2]>(q, w2, b2) t = Relu(e) p = GlobalAveragePool(t) f = Flatten(p) "
    "y = Gemm<transB = 1>(f, v, k) }"
)
WEIGHTS = {
    "w0": normal(16, 3, 3, 3, scale=0.3),
    "b0": normal(16),
    "w1": normal(16, 1, 3, 3, scale=0.4, seed=1),
    "w2": normal(24, 16, 1, 1, scale=0.3, seed=2),
    "b2": normal(24),
    "v": normal(10, 24, seed=3),
    "k": normal(10),
}


def integers(made):
    """The int8 initialisers of a file, in its order."""
    graph = onnx.load(str(made.path)).graph
    arrays = map(numpy_helper.to_array, graph.initializer)
    return [a for a in arrays if a.dtype == np.int8 and a.ndim > 1]


@pytest.mark.parametrize(("bits", "largest"), [(2, 1), (3, 3), (4, 7), (5, 15), (7, 64)])
def test_the_weights_lie_on_a_grid_of_that_many_bits(tmp_path, bits, largest):
    source = model(tmp_path, NETWORK, weights=WEIGHTS)
    x = uniform(32, 3, 12, 12)
    made = apply("weights", source, tmp_path, samples(tmp_path, x=x), bits=bits, edge_bits=bits)

    stored = integers(made)
    assert sorted(a.shape for a in stored) == sorted(
        WEIGHTS[n].shape for n in ("w0", "w1", "w2", "v")
    )
    assert all(np.abs(a.astype(int)).max() <= largest for a in stored)


def test_more_bits_come_closer_to_float(tmp_path):
    source = model(tmp_path, NETWORK, weights=WEIGHTS)
    x = uniform(64, 3, 12, 12)
    given, unseen = samples(tmp_path, x=x), uniform(64, 3, 12, 12, seed=9)
    found = [
        sqnr_db(
            run(source, x=unseen)[0],
            run(apply("weights", source, tmp_path, given, bits=b, edge_bits=b), x=unseen)[0],
        )
        for b in (2, 4, 6)
    ]

    assert found[0] + 6 < found[1] < found[2] - 6
    assert found[1] > 18


def test_static_quantisation_keeps_the_grid_and_runs_in_integer_kernels(tmp_path):
    source = model(tmp_path, NETWORK, weights=WEIGHTS)
    x = uniform(32, 3, 12, 12)
    given = samples(tmp_path, x=x)
    low = apply("weights", source, tmp_path, given, bits=4)
    made = apply("quantize", low, tmp_path, given)

    assert [a.tolist() for a in integers(made)] == [a.tolist() for a in integers(low)]
    found = Counter(fused_ops(made, tmp_path))
    assert found["QLinearConv"] == 3
    assert not set(found) & {"Conv", "Gemm", "Relu"}
    assert sqnr_db(run(low, x=x)[0], run(made, x=x)[0]) > 20


def test_dynamic_quantisation_keeps_the_grid(tmp_path):
    text = (
        "g (float[N,32] x) => (float[N,8] y) "
        "{ h = MatMul(x, w) r = Relu(h) y = Gemm<transB = 1>(r, v) }"
    )
    weights = {"w": normal(32, 64, scale=0.2), "v": normal(8, 64, seed=1)}
    source = model(tmp_path, text, weights=weights)
    x = uniform(64, 32)
    low = apply("weights", source, tmp_path, samples(tmp_path, x=x), bits=4, edge_bits=4)
    made = apply("quantize-dynamic", low, tmp_path)

    assert {a.size for a in integers(made)} == {32 * 64, 8 * 64}
    assert all(np.abs(a.astype(int)).max() <= 7 for a in integers(made))
    assert sqnr_db(run(low, x=x)[0], run(made, x=x)[0]) > 25


def test_an_embedding_is_gathered_in_low_bits(tmp_path):
    text = "g (int64[N,4] i) => (float[N,4,8] y) { e = Gather(table, i) y = MatMul(e, w) }"
    weights = {"table": normal(2000, 64), "w": normal(64, 8)}
    source = model(tmp_path, text, weights=weights)
    i = np.random.default_rng(0).integers(0, 2000, (64, 4))
    made = apply("weights", source, tmp_path, samples(tmp_path, i=i), embedding_bits=4)

    assert "Gather" in ops(made)
    table = next(a for a in integers(made) if a.shape == (2000, 64))
    assert np.abs(table.astype(int)).max() == 7


def test_gptq_beats_rounding_where_inputs_are_correlated():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 32)) + 0.1 * rng.normal(size=(500, 32))
    weight = rng.normal(size=(1, 16, 32))
    hessian = (x.T @ x / len(x))[None]
    scales = mse_scales(weight, np.diagonal(hessian, axis1=1, axis2=2), 3)
    wide = scales[..., None].astype(np.float64)
    nearest = np.clip(np.rint(weight / wide), -3, 3) * wide
    spread = gptq(weight, hessian, scales, 3) * wide

    def error(made):
        return np.square((weight - made)[0] @ x.T).mean()

    assert error(spread) < 0.5 * error(nearest)


@pytest.mark.parametrize(
    "how",
    ["pads = [1,0,2,1]", "strides = [2,3]", "dilations = [2,1]", 'auto_pad = "SAME_UPPER"',
     'auto_pad = "SAME_LOWER", strides = [2,2]', 'auto_pad = "VALID"', "group = 2"],
)  # fmt: skip
def test_the_windows_of_a_convolution_give_its_products(tmp_path, how):
    weight = normal(6, 2 if "group" in how else 4, 3, 2)
    text = f"g (float[N,4,7,8] x) => (y) {{ y = Conv<{how}>(x, w) }}"
    made = proto(text, weights={"w": weight})
    source = model(tmp_path, text, weights={"w": weight})
    x = uniform(2, 4, 7, 8)
    layer = Layer(node=made.graph.node[0], shape=weight.shape, axis=0)

    products = layer.rows(x) @ layer.matrix(weight).transpose(0, 2, 1)

    y = run(source, x=x)[0]
    expected = y.transpose(1, 0, 2, 3).reshape(layer.groups, 6 // layer.groups, -1)
    np.testing.assert_allclose(products.transpose(0, 2, 1), expected, atol=1e-5)


def test_a_channel_that_is_always_zero_stays_finite(tmp_path):
    source = model(tmp_path, NETWORK, weights=WEIGHTS | {"b0": np.full(16, -1e3, np.float32)})
    x = uniform(8, 3, 12, 12)
    made = apply("weights", source, tmp_path, samples(tmp_path, x=x))

    assert np.isfinite(run(made, x=x)[0]).all()


def test_it_is_refused_without_data_and_without_weights(tmp_path):
    source = model(tmp_path, NETWORK, weights=WEIGHTS)
    with pytest.raises(PassRefused, match="calibration data"):
        apply("weights", source, tmp_path)
    plain = model(tmp_path, "g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    with pytest.raises(PassRefused, match="no Conv, Gemm or MatMul"):
        apply("weights", plain, tmp_path, samples(tmp_path, x=uniform(4, 4)))


def test_weights_in_low_bits_already_are_not_quantised_again(tmp_path):
    source = model(tmp_path, NETWORK, weights=WEIGHTS)
    given = samples(tmp_path, x=uniform(8, 3, 12, 12))
    low = apply("weights", source, tmp_path, given)

    with pytest.raises(PassRefused, match="of its own"):
        apply("weights", low, tmp_path, given)
