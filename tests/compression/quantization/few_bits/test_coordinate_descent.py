"""Coordinate descent after GPTQ never increases the error."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compression.layers.stored_layers import add_samples, collect_stored_layers
from edgekit.compression.quantization.few_bits.coordinate_descent import descend
from edgekit.compression.quantization.few_bits.gptq import quantize_gptq
from edgekit.compression.quantization.few_bits.grids import (
    build_entropy_grids,
    compute_entropy,
    fit_fixed_grid,
)
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import load
from tests.builders.tiny import model, normal, samples, uniform

INPUTS = 160


def problem(seed, *, groups=2, outputs=24, inputs=INPUTS):
    """Weights, and the second moments of inputs that depend on each other."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(groups, 4 * inputs, inputs // 2)) @ rng.normal(
        size=(groups, inputs // 2, inputs)
    )
    mixed += 0.3 * rng.normal(size=mixed.shape)
    return rng.normal(size=(groups, outputs, inputs)), mixed.transpose(0, 2, 1) @ mixed


def cost(weight, hessian, grid, integers):
    error = weight - integers * grid.steps(weight.shape[-1])
    return float(np.einsum("goi,gij,goj->", error, hessian, error))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("place", [27, 33], ids=["3 bits", "1 bit"])
def test_products_come_closer_for_the_same_bits(seed, place):
    weight, hessian = problem(seed)
    grid = build_entropy_grids(weight, 127)[place]
    before = quantize_gptq(weight, hessian, grid)

    after, fitted = descend(weight, hessian, grid, before)

    assert cost(weight, hessian, fitted, after) < 0.97 * cost(weight, hessian, grid, before)
    assert compute_entropy(after) < compute_entropy(before) + 0.05
    assert np.abs(after).max() <= 127


def test_integers_of_a_narrow_grid_stay_within_it_and_scales_of_blocks_as_they_are():
    weight, hessian = problem(5)
    grid = fit_fixed_grid(weight, np.ones((2, INPUTS)), 3, 32)
    before = quantize_gptq(weight, hessian, grid)

    after, fitted = descend(weight, hessian, grid, before)

    assert np.abs(after).max() <= 3
    assert fitted is grid or np.array_equal(fitted.scales, grid.scales)
    assert cost(weight, hessian, fitted, after) <= cost(weight, hessian, grid, before)


def test_channels_of_zeros_and_inputs_that_never_come_change_nothing():
    weight, hessian = problem(6)
    weight[:, 3], hessian[:, 7], hessian[:, :, 7] = 0, 0, 0
    grid = build_entropy_grids(weight, 127)[27]

    after, fitted = descend(weight, hessian, grid, quantize_gptq(weight, hessian, grid))

    assert not after[:, 3].any()
    assert np.isfinite(fitted.scales).all()
    assert (fitted.scales > 0).all()


def test_further_samples_count_once_for_layers_that_read_the_same(tmp_path):
    text = "g (float[N,8] x) => (float[N,4] y) { a = MatMul(x, u) b = MatMul(x, v) y = Add(a, b) }"
    source = model(tmp_path, text, weights={"u": normal(8, 4), "v": normal(8, 4, seed=1)})
    parts = [samples(tmp_path, x=uniform(n, 8, seed=n)) for n in (6, 10)]
    index = GraphIndex(load(source.path))
    together = collect_stored_layers(index, parts, lambda *_: None)

    layers = collect_stored_layers(index, parts[:1], lambda *_: None)
    add_samples(index, layers, parts[1:], lambda *_: None)

    for one, other in zip(layers, together, strict=True):
        assert one.moments.count == other.moments.count == 16
        np.testing.assert_allclose(one.moments.square, other.moments.square, rtol=1e-5)
        np.testing.assert_allclose(one.moments.mean, other.moments.mean, rtol=1e-5, atol=1e-6)
