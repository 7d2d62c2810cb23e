"""Low-rank factorization: fewer weights and MACs, close outputs, and refusals with reasons."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest

from edgekit.bundle.layer_report import read_layers
from edgekit.compression.pass_specs import PASSES, Work, build_step
from edgekit.compression.step_runner import run_step
from edgekit.errors import PassError, PassRefused
from edgekit.onnx_graph.cost import compute_cost
from edgekit.onnx_graph.io import load
from edgekit.pass_settings import LowRank
from tests.builders.tiny import apply, model, normal, ops, run, samples, sqnr_db, uniform, work

DENSE = (
    "g (float[N,48] x) => (float[N,10] y) { h = MatMul(x, up) i = Add(h, ub) r = Relu(i) "
    "d = MatMul(r, down) e = Add(d, db) s = Add(e, x) y = Gemm<transB = 1>(s, v, k) }"
)
IMAGE = (
    "g (float[N,3,12,12] x) => (float[N,5] y) { c = Conv<pads = [1,1,1,1]>(x, w0, b0) r = Relu(c) "
    "d = Conv<pads = [2,1,0,1], strides = [2,1], dilations = [1,2]>(r, w1, b1) q = Relu(d) "
    'e = Conv<auto_pad = "SAME_UPPER", strides = [2,2]>(q, w2) t = Relu(e) '
    "p = GlobalAveragePool(t) f = Flatten(p) y = Gemm<transB = 1>(f, v, k) }"
)


def smooth(*shape, seed):
    """Return weights of nearly low rank, as trained models have."""
    rng = np.random.default_rng(seed)
    outputs, inputs = shape[0], int(np.prod(shape[1:]))
    sizes = 0.7 ** np.arange(min(outputs, inputs))
    left = np.linalg.qr(rng.standard_normal((outputs, len(sizes))))[0]
    right = np.linalg.qr(rng.standard_normal((inputs, len(sizes))))[0]
    whole = (left * sizes) @ right.T + 0.01 * rng.standard_normal((outputs, inputs))
    return whole.reshape(shape).astype(np.float32)


DENSE_WEIGHTS = {
    "up": smooth(48, 96, seed=1),
    "ub": normal(96, scale=0.1),
    "down": smooth(96, 48, seed=2),
    "db": normal(48),
    "v": normal(10, 48, scale=0.2, seed=3),
    "k": normal(10),
}
IMAGE_WEIGHTS = {
    "w0": normal(32, 3, 3, 3, scale=0.3),
    "b0": normal(32),
    "w1": smooth(48, 32, 3, 3, seed=1),
    "b1": normal(48),
    "w2": smooth(48, 48, 3, 3, seed=2),
    "v": normal(5, 48, seed=3),
    "k": normal(5),
}


def skew(count, size, seed=0):
    """Return samples that vary in a few directions around a nonzero mean."""
    rng = np.random.default_rng(seed)
    spread = 0.8 ** np.arange(size) * np.random.default_rng(5).standard_normal((size, size))
    return (rng.standard_normal((count, size)) @ spread.T + 1).astype(np.float32)


def dense(folder):
    return model(folder, DENSE, weights=DENSE_WEIGHTS), samples(folder, x=skew(64, 48))


def image(folder):
    return model(folder, IMAGE, weights=IMAGE_WEIGHTS), samples(folder, x=uniform(48, 3, 12, 12))


def parameters(made):
    return compute_cost(load(made.path), {}).parameters


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.7])
def test_the_selected_layers_keep_the_requested_share(tmp_path, keep):
    source, data = dense(tmp_path)

    made = apply("low-rank", source, tmp_path, data, keep=keep, layers=("up", "down"))

    gone = parameters(source) - parameters(made)
    whole = DENSE_WEIGHTS["up"].size + DENSE_WEIGHTS["down"].size
    assert (1 - keep) * whole <= gone < (1 - keep + 0.2) * whole
    unseen = skew(64, 48, seed=9)
    assert sqnr_db(run(source, x=unseen)[0], run(made, x=unseen)[0]) > 15


def test_activations_give_better_ranks_than_weights_alone(tmp_path):
    source, data = dense(tmp_path)
    unseen = skew(64, 48, seed=9)
    before = run(source, x=unseen)[0]
    for keep in (0.3, 0.5):
        same = {"keep": keep, "layers": ("up", "down"), "allocation": "uniform"}
        plain, aware = (
            run(apply("low-rank", source, tmp_path, data, **same, **how), x=unseen)[0]
            for how in ({"score": "plain", "repair": False}, {"repair": False})
        )
        assert sqnr_db(before, aware) > sqnr_db(before, plain) + 2


def test_refitting_reduces_the_output_error(tmp_path):
    source, data = image(tmp_path)
    unseen = uniform(48, 3, 12, 12, seed=9)
    before = run(source, x=unseen)[0]
    how = {"keep": 0.25, "allocation": "uniform"}
    found = [
        sqnr_db(
            before, run(apply("low-rank", source, tmp_path, data, **how, repair=r), x=unseen)[0]
        )
        for r in (False, True)
    ]

    assert found[1] > found[0] + 1


@pytest.mark.parametrize("of", ["parameters", "macs"])
def test_convolutions_of_any_stride_padding_and_dilation_are_factorized(tmp_path, of):
    source, data = image(tmp_path)

    made = apply("low-rank", source, tmp_path, data, keep=0.4, of=of)

    before, after = (compute_cost(load(m.path), {}) for m in (source, made))
    assert after.macs < 0.6 * before.macs
    assert ops(made).count("Conv") > ops(source).count("Conv")
    unseen = uniform(48, 3, 12, 12, seed=9)
    assert sqnr_db(run(source, x=unseen)[0], run(made, x=unseen)[0]) > 15


def test_a_separable_kernel_is_factorized_along_its_axes(tmp_path):
    rng = np.random.default_rng(0)
    down, along = rng.standard_normal((8, 24, 5)), rng.standard_normal((24, 8, 5))
    weights = {"w": np.einsum("ria,orb->oiab", down, along).astype(np.float32)}
    text = "g (float[N,24,9,9] x) => (y) { y = Conv<strides = [1,2], pads = [2,1,0,3]>(x, w) }"
    source = model(tmp_path, text, weights=weights)
    x = uniform(32, 24, 9, 9)
    made = apply("low-rank", source, tmp_path, samples(tmp_path, x=x), keep=0.2)

    kernels = [
        tuple(t.dims[2:]) for t in onnx.load(str(made.path)).graph.initializer if len(t.dims) == 4
    ]
    assert kernels == [(5, 1), (1, 5)]
    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 60


@pytest.mark.parametrize("weight", [smooth(1, 8, 5, 5, seed=1), np.zeros((1, 8, 5, 5), np.float32)])
def test_a_convolution_of_one_channel_is_factorized_if_that_saves(tmp_path, weight):
    text = (
        "g (float[N,8,9,9] x) => (y) { c = Conv(x, w) f = Flatten(c) d = MatMul(f, v) "
        "r = Relu(d) y = MatMul(r, u) }"
    )
    weights = {"w": weight, "v": smooth(25, 64, seed=2), "u": smooth(64, 64, seed=3)}
    source = model(tmp_path, text, weights=weights)
    place = work(tmp_path, samples(tmp_path, x=uniform(32, 8, 9, 9)))

    run_step(build_step(LowRank(layers=("?",))), source, place)

    notes = {c.layer: c.note for c in read_layers(place.scratch)}
    assert set(notes) == {"w", "v", "u"}
    assert weight.any() or notes["w"].startswith("not factorized")


def test_grouped_convolutions_and_those_of_other_ranks_are_factorized_by_channels(tmp_path):
    text = (
        "g (float[N,32,16] x) => (y) { h = Conv<group = 2, pads = [1,1]>(x, w, b) y = Conv(h, v) }"
    )
    weights = {
        "w": np.concatenate([smooth(32, 16, 3, seed=s) for s in (1, 2)]),
        "b": normal(64),
        "v": smooth(48, 64, 1, seed=3),
    }
    source = model(tmp_path, text, weights=weights)
    data = samples(tmp_path, x=uniform(32, 32, 16))
    made = apply("low-rank", source, tmp_path, data, keep=0.6)

    assert ops(made).count("Conv") == 4
    x = uniform(32, 32, 16, seed=4)
    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 10


def test_inputs_that_are_always_zero_do_no_harm(tmp_path):
    source, _ = dense(tmp_path)
    x = skew(64, 48)
    x[:, ::2] = 0
    made = apply("low-rank", source, tmp_path, samples(tmp_path, x=x), layers=("up", "down"))

    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 15
    assert np.isfinite(run(made, x=skew(8, 48, seed=3))[0]).all()


def test_ranks_are_multiples_of_8_and_reported(tmp_path):
    source, data = dense(tmp_path)
    place = work(tmp_path, data)
    run_step(build_step(LowRank(layers=("up", "down"))), source, place)

    costs = {c.layer: c for c in read_layers(place.scratch)}
    assert set(costs) == {"up", "down"}
    for each in costs.values():
        rank, full = map(int, re.match(r"rank (\d+) of (\d+)", each.note).groups())
        assert rank % 8 == 0
        assert full == 48
        assert each.parameters == rank * (48 + 96)
        assert each.kl > 0


def test_patterns_reach_names_of_nodes_weights_and_biases(tmp_path):
    made = model(tmp_path, DENSE, weights=DENSE_WEIGHTS)
    proto = load(made.path)
    for node in proto.graph.node:
        node.name = f"/block/{node.output[0]}"
    path = tmp_path / "named.onnx"
    path.write_bytes(proto.SerializeToString())
    data = samples(tmp_path, x=skew(64, 48))
    source = type(made)(
        path=path, format="onnx", digest="0" * 64, signature=made.signature, beside=()
    )
    for pattern in ("/block/h", "up", "ub", "*/i"):
        place = work(tmp_path, data)
        run_step(build_step(LowRank(layers=(pattern,))), source, place)
        assert [c.layer for c in read_layers(place.scratch)] == ["up"]


def test_a_pattern_without_a_match_is_refused_with_the_names(tmp_path):
    source, data = dense(tmp_path)

    with pytest.raises(PassRefused, match=r"no Conv, Gemm or MatMul matches '\*ffn\*'") as refused:
        apply("low-rank", source, tmp_path, data, layers=("up", "*ffn*"))

    assert "up" in refused.value.hint or "h" in refused.value.hint


def test_a_model_in_which_no_rank_saves_anything_is_refused_with_the_needed_rank(tmp_path):
    text = "g (float[N,6,8,8] x) => (y) { y = Conv<group = 6, pads = [1,1,1,1]>(x, w) }"
    source = model(tmp_path, text, weights={"w": normal(6, 1, 3, 3)})
    data = samples(tmp_path, x=uniform(8, 6, 8, 8))

    with pytest.raises(PassRefused, match=r"6 x 1 x 3 x 3\), needs a rank below 0\.\d+ to save"):
        apply("low-rank", source, tmp_path, data)


def test_a_selected_layer_that_cannot_be_factorized_is_reported(tmp_path):
    text = "g (float[N,32] x) => (y) { h = MatMul(x, w) y = MatMul(h, v) }"
    weights = {"w": normal(32, 32), "v": normal(32, 1)}
    source = model(tmp_path, text, weights=weights)
    place = work(tmp_path, samples(tmp_path, x=uniform(16, 32)))
    run_step(build_step(LowRank(layers=("?",))), source, place)

    notes = {c.layer: c.note for c in read_layers(place.scratch)}
    assert notes == {"w": "rank 8 of 32", "v": "not factorized; only ranks below 0.87 save space"}


def test_a_product_broadcast_in_a_larger_sum_is_refitted(tmp_path):
    text = (
        "g (float[N,4,32] x) => (y) { a = ReduceMean<axes = [1], keepdims = 1>(x) "
        "h = MatMul(a, w) b = Add(h, c) y = Add(x, b) }"
    )
    weights = {"w": smooth(32, 32, seed=1), "c": normal(32)}
    source = model(tmp_path, text, weights=weights)
    x = uniform(32, 4, 32)
    made = apply("low-rank", source, tmp_path, samples(tmp_path, x=x))

    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 20


def test_a_budget_below_rank_1_of_every_layer_is_refused(tmp_path):
    text = "g (float[N,8] x) => (y) { y = MatMul(x, w) }"
    source = model(tmp_path, text, weights={"w": normal(8, 8)})
    data = samples(tmp_path, x=uniform(8, 8))

    with pytest.raises(PassRefused, match=r"keep=0.1 cannot be reached: with rank 1"):
        apply("low-rank", source, tmp_path, data, keep=0.1)


def test_ranks_so_low_that_the_outputs_are_lost_are_refused(tmp_path):
    text = (
        "g (float[N,32] x) => (float[N,10] y) "
        "{ h = MatMul(x, w) r = Relu(h) s = MatMul(r, u) t = Relu(s) y = MatMul(t, v) }"
    )
    weights = {"w": normal(32, 64), "u": normal(64, 48, seed=1), "v": normal(48, 10, seed=2)}
    source = model(tmp_path, text, weights=weights)
    with pytest.raises(PassRefused, match="low-rank removes too much") as refusal:
        apply("low-rank", source, tmp_path, samples(tmp_path, x=normal(128, 32)), keep=0.05)
    assert "(setting keep)" in refusal.value.hint


def test_values_that_are_not_finite_and_models_in_8_bits_are_refused(tmp_path):
    text = "g (float[N,16] x) => (y) { l = Log(x) y = MatMul(l, w) }"
    source = model(tmp_path, text, weights={"w": normal(16, 16)})
    data = samples(tmp_path, x=np.zeros((8, 16), np.float32))
    with pytest.raises(PassRefused, match=r"activation . is not finite"):
        apply("low-rank", source, tmp_path, data)

    source, data = dense(tmp_path)
    quantized = apply("quantize-static", source, tmp_path, data)
    with pytest.raises(PassRefused, match="already quantized"):
        apply("low-rank", quantized, tmp_path, data)


def test_int8_after_it_stays_as_close_as_int8_without_it(tmp_path):
    source, data = image(tmp_path)
    thin = apply("low-rank", source, tmp_path, data, keep=0.6)
    x = uniform(48, 3, 12, 12, seed=9)

    both = apply("quantize-static", thin, tmp_path, data)

    assert sqnr_db(run(thin, x=x)[0], run(both, x=x)[0]) > 25
    assert (
        both.path.stat().st_size
        < apply("quantize-static", source, tmp_path, data).path.stat().st_size
    )
    lite = apply("to-tflite", both, tmp_path, data)
    assert (
        lite.path.stat().st_size
        < 0.5 * apply("to-tflite", thin, tmp_path, data).path.stat().st_size
    )


def test_it_becomes_a_tflite_file_that_computes_the_same(tmp_path):
    for source, data in (image(tmp_path), dense(tmp_path)):
        thin = apply("low-rank", source, tmp_path, data)
        lite = apply("to-tflite", thin, tmp_path, data)  # held to the same outputs by its promise
        assert lite.format == "tflite"
        assert (
            lite.path.stat().st_size
            < apply("to-tflite", source, tmp_path, data).path.stat().st_size
        )


def test_a_result_that_does_not_reduce_the_macs_is_reported(tmp_path, monkeypatch):
    source, data = dense(tmp_path)

    def shares(given, settings, place: Work):
        """Store one weight less, with the same MACs."""
        del settings
        proto = load(given.path)
        tensors = [t for t in proto.graph.initializer if t.name != "down"]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(tensors)
        turned = onnx.helper.make_node("Transpose", ["up"], ["down"], perm=[1, 0])
        proto.graph.node.insert(0, turned)
        target = place.scratch / "same.onnx"
        target.write_bytes(proto.SerializeToString())
        return target

    monkeypatch.setattr("edgekit.compression.low_rank.factorize.factorize_layers", shares)
    with pytest.raises(PassError, match="did not reduce the MACs"):
        apply("low-rank", source, tmp_path, data)
    assert PASSES["low-rank"].promise.fewer_macs
