"""Few-bit weights: entropy, per-channel grids, small errors, and later passes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from edgekit.bundle.layer_report import read_layers
from edgekit.compression.quantization.few_bits.gptq import quantize_gptq
from edgekit.compression.quantization.few_bits.grids import compute_entropy, fit_fixed_grid
from edgekit.compression.reconstruction.matrix_layers import Layer
from edgekit.compression.step_runner import run_checked, run_step
from edgekit.errors import PassRefused
from edgekit.pass_settings import QuantizeWeights
from edgekit.pipeline.transfer_size import compute_transfer_bytes
from edgekit.recipe import Step
from tests.builders.few_bits import (
    FIXED,
    NETWORK,
    WEIGHTS,
    draw_lopsided,
    integers,
    two_matrices,
)
from tests.builders.tiny import (
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
    work,
)


@pytest.mark.parametrize(("bits", "largest"), [(2, 1), (3, 3), (4, 7), (5, 15), (7, 64)])
def test_the_weights_lie_on_a_grid_of_that_many_bits(tmp_path, bits, largest):
    source = model(tmp_path, NETWORK, weights=WEIGHTS)
    x = uniform(32, 3, 12, 12)
    made = apply("quantize-weights", source, tmp_path, samples(tmp_path, x=x), bits=bits, **FIXED)

    stored = integers(made)
    assert sorted(a.shape for a in stored) == sorted(
        WEIGHTS[n].shape for n in ("w0", "w1", "w2", "v")
    )
    assert all(np.abs(a.astype(int)).max() <= largest for a in stored)


@pytest.mark.parametrize("how", [{}, FIXED], ids=["entropy", "fixed"])
def test_more_bits_come_closer_to_float(tmp_path, how):
    source = model(tmp_path, NETWORK, weights=WEIGHTS)
    x = uniform(64, 3, 12, 12)
    given, unseen = samples(tmp_path, x=x), uniform(64, 3, 12, 12, seed=9)
    found = [
        sqnr_db(
            run(source, x=unseen)[0],
            run(apply("quantize-weights", source, tmp_path, given, bits=b, **how), x=unseen)[0],
        )
        for b in (2, 4, 6)
    ]

    assert found[0] + 6 < found[1] < found[2] - 6
    assert found[1] > 18


def test_packed_weights_have_the_requested_bits(tmp_path):
    source = model(tmp_path, NETWORK, weights=WEIGHTS)
    given = samples(tmp_path, x=uniform(32, 3, 12, 12))
    for bits in (2.5, 4.0, 5.0):
        made = apply("quantize-weights", source, tmp_path, given, bits=bits)
        stored = integers(made)
        spent = sum(a.size * compute_entropy(a) for a in stored) / sum(a.size for a in stored)
        assert bits - 0.35 < spent < bits + 0.1


def test_an_entropy_grid_is_more_accurate_than_a_fixed_one_of_equal_bits(tmp_path):
    source, given = two_matrices(tmp_path)
    fixed = apply("quantize-weights", source, tmp_path, given, bits=4, **FIXED)
    stored = integers(fixed)
    bits = sum(a.size * compute_entropy(a) for a in stored) / sum(a.size for a in stored)
    coded = apply("quantize-weights", source, tmp_path, given, bits=bits, allocation="uniform")

    unseen = uniform(64, 128, seed=9)
    quality = [sqnr_db(run(source, x=unseen)[0], run(m, x=unseen)[0]) for m in (fixed, coded)]
    assert quality[1] > quality[0] + 0.3


def test_layers_that_the_outputs_depend_on_get_more_bits(tmp_path):
    text, weights = draw_lopsided()
    source = model(tmp_path, text, weights=weights)
    step_folder = work(tmp_path, samples(tmp_path, x=uniform(64, 32)))
    run_step(
        Step(name="quantize-weights", version=0, settings=QuantizeWeights(bits=3.0)),
        source,
        step_folder,
    )

    costs = {c.layer: c for c in read_layers(step_folder.scratch)}
    assert set(costs) == set(weights)
    assert costs["loud"].bits > costs["quiet"].bits + 1
    assert all(c.kl >= 0 and c.parameters == weights[n].size for n, c in costs.items())
    assert sum(c.bits * c.parameters for c in costs.values()) <= 3.3 * sum(
        w.size for w in weights.values()
    )


def test_a_layer_gets_the_bits_that_are_set_by_hand(tmp_path):
    text, weights = draw_lopsided()
    source = model(tmp_path, text, weights=weights)
    folder = work(tmp_path, samples(tmp_path, x=uniform(64, 32)))
    settings = QuantizeWeights(bits=3.0, widths=(("quiet", 6.0), ("loud", 32.0)))
    found = run_checked(Step(name="quantize-weights", version=0, settings=settings), source, folder)
    made = found.model

    costs = {c.layer: c for c in read_layers(folder.scratch)}
    assert costs["quiet"].bits == pytest.approx(6, abs=0.3)
    assert "weights stay float: loud (requested by the setting widths)" in found.notes
    assert costs["loud"].width == 32
    floats = [t for t in onnx.load(str(made.path)).graph.initializer if t.data_type == 1]
    assert any(list(t.dims) == [32, 64] for t in floats)

    with pytest.raises(PassRefused, match="no layer 'other'"):
        apply("quantize-weights", source, tmp_path, folder.calibration, widths=(("other", 4.0),))


@pytest.mark.parametrize("share", [0.2, 0.12])
def test_a_file_has_the_transfer_size_that_was_asked_for(tmp_path, share):
    source, given = two_matrices(tmp_path)
    most = int(share * source.bytes)
    made = apply("quantize-weights", source, tmp_path, given, most_bytes=most)

    assert 0.85 * most < compute_transfer_bytes(made.path.read_bytes()) < 1.06 * most

    with pytest.raises(PassRefused, match="most_bytes=1000 is too small"):
        apply("quantize-weights", source, tmp_path, given, most_bytes=1000)


NATIVE = {"container": "native", "allocation": "uniform"}


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_native_containers_run_in_kernels_for_few_bits(tmp_path, bits):
    text = (
        "g (int64[N,4] i) => (float[N,4,8] y) { e = Gather(table, i) h = MatMul(e, w) "
        "r = Relu(h) y = MatMul(r, v) }"
    )
    weights = {"table": normal(500, 64), "w": normal(64, 96, seed=1), "v": normal(96, 8, seed=2)}
    source = model(tmp_path, text, weights=weights)
    i = np.random.default_rng(0).integers(0, 500, (64, 4))
    made = apply("quantize-weights", source, tmp_path, samples(tmp_path, i=i), bits=bits, **NATIVE)

    assert ops(made) == ["GatherBlockQuantized", "MatMulNBits", "Relu", "MatMulNBits"]
    assert made.bytes < source.bytes / (32 / max(bits, 4)) * 1.3
    least = {2: 2, 4: 14, 8: 30}[bits]
    assert sqnr_db(run(source, i=i)[0], run(made, i=i)[0]) > least


def test_native_containers_hold_convolutions_as_int4_and_gemms_with_their_bias(tmp_path):
    source = model(tmp_path, NETWORK, weights=WEIGHTS)
    x = uniform(32, 3, 12, 12)
    made = apply("quantize-weights", source, tmp_path, samples(tmp_path, x=x), bits=4, **NATIVE)

    kinds = [t.data_type for t in onnx.load(str(made.path)).graph.initializer]
    assert kinds.count(onnx.TensorProto.INT4) == 3
    assert "MatMulNBits" in ops(made)
    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 15


def test_a_scale_for_every_block_comes_closer_than_one_for_the_channel():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(1, 16, 128)) * np.repeat(np.exp2(np.arange(4)), 32)
    power = np.ones((1, 128))

    def error(block):
        grid = fit_fixed_grid(weight, power, 7, block)
        return np.square(weight - grid.round_weights(weight) * grid.steps(128)).mean()

    assert error(32) < 0.6 * error(0)


def test_the_bias_after_a_product_compensates_the_rounding_error(tmp_path):
    text = "g (float[N,32] x) => (float[N,8] y) { h = MatMul(x, w) y = Add(h, b) }"
    weights = {"w": normal(32, 8), "b": normal(8, seed=1)}
    source = model(tmp_path, text, weights=weights)
    x = uniform(256, 32) + np.float32(3)
    made = apply("quantize-weights", source, tmp_path, samples(tmp_path, x=x), bits=2, **FIXED)

    difference = run(made, x=x)[0] - run(source, x=x)[0]
    assert np.abs(difference.mean(axis=0)).max() < 0.1 * difference.std()


def test_static_quantization_keeps_the_grid_and_runs_in_integer_kernels(tmp_path):
    source = model(tmp_path, NETWORK, weights=WEIGHTS)
    x = uniform(32, 3, 12, 12)
    given = samples(tmp_path, x=x)
    low = apply("quantize-weights", source, tmp_path, given, bits=4)
    made = apply("quantize-static", low, tmp_path, given)

    kept, before = (sorted((a.shape, a.tolist()) for a in integers(m)) for m in (made, low))
    assert kept == before
    found = Counter(fused_ops(made, tmp_path))
    assert found["QLinearConv"] == 3
    assert not set(found) & {"Conv", "Gemm", "Relu"}
    assert sqnr_db(run(low, x=x)[0], run(made, x=x)[0]) > 20


def test_dynamic_quantization_keeps_the_grid(tmp_path):
    text = (
        "g (float[N,32] x) => (float[N,8] y) "
        "{ h = MatMul(x, w) r = Relu(h) y = Gemm<transB = 1>(r, v) }"
    )
    weights = {"w": normal(32, 64, scale=0.2), "v": normal(8, 64, seed=1)}
    source = model(tmp_path, text, weights=weights)
    x = uniform(64, 32)
    low = apply("quantize-weights", source, tmp_path, samples(tmp_path, x=x), bits=4, **FIXED)
    made = apply("quantize-dynamic", low, tmp_path)

    assert {a.size for a in integers(made)} == {32 * 64, 8 * 64}
    assert all(np.abs(a.astype(int)).max() <= 7 for a in integers(made))
    assert sqnr_db(run(low, x=x)[0], run(made, x=x)[0]) > 25


def test_an_embedding_is_gathered_in_low_bits(tmp_path):
    text = "g (int64[N,4] i) => (float[N,4,8] y) { e = Gather(table, i) y = MatMul(e, w) }"
    weights = {"table": normal(2000, 64), "w": normal(64, 8)}
    source = model(tmp_path, text, weights=weights)
    i = np.random.default_rng(0).integers(0, 2000, (64, 4))
    made = apply("quantize-weights", source, tmp_path, samples(tmp_path, i=i), bits=4, **FIXED)

    assert "Gather" in ops(made)
    table = next(a for a in integers(made) if a.shape == (2000, 64))
    assert np.abs(table.astype(int)).max() == 7


def test_gptq_beats_rounding_where_inputs_are_correlated():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 32)) + 0.1 * rng.normal(size=(500, 32))
    weight = rng.normal(size=(1, 16, 32))
    hessian = (x.T @ x / len(x))[None]
    grid = fit_fixed_grid(weight, np.diagonal(hessian, axis1=1, axis2=2), 3)
    steps = grid.steps(32)
    nearest = grid.round_weights(weight) * steps
    spread = quantize_gptq(weight, hessian, grid) * steps

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
    made = apply("quantize-weights", source, tmp_path, samples(tmp_path, x=x))

    assert np.isfinite(run(made, x=x)[0]).all()
