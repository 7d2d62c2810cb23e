"""Weight-only quantization: refusals, transfer sizes, and models with zeros or odd samples."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from edgekit.bundle.layer_report import read_layers
from edgekit.compression.reconstruction.matrix_layers import Layer
from edgekit.compression.reconstruction.observed_moments import gather_moments
from edgekit.compression.step_runner import run_checked, run_step
from edgekit.errors import PassRefused
from edgekit.onnx_graph.runs.activations import observe
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
    proto,
    run,
    samples,
    sqnr_db,
    uniform,
    work,
)


def test_it_is_refused_without_data_and_without_weights(tmp_path):
    source = model(tmp_path, NETWORK, weights=WEIGHTS)
    with pytest.raises(PassRefused, match="calibration data"):
        apply("quantize-weights", source, tmp_path)
    plain = model(tmp_path, "g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    with pytest.raises(PassRefused, match="nothing to quantize: "):
        apply("quantize-weights", plain, tmp_path, samples(tmp_path, x=uniform(4, 4)))


def test_weights_in_low_bits_already_are_not_quantized_again(tmp_path):
    source = model(tmp_path, NETWORK, weights=WEIGHTS)
    given = samples(tmp_path, x=uniform(8, 3, 12, 12))
    low = apply("quantize-weights", source, tmp_path, given)

    with pytest.raises(PassRefused, match="already stores its weights as integers"):
        apply("quantize-weights", low, tmp_path, given)


def test_impossible_bits_are_refused(tmp_path):
    text, weights = draw_lopsided()
    source = model(tmp_path, text, weights=weights)
    given = samples(tmp_path, x=uniform(64, 32))
    with pytest.raises(PassRefused, match=r"widths: quiet:99: the bits must be 1 to 8, or"):
        apply("quantize-weights", source, tmp_path, given, widths=(("quiet", 99.0),))
    with pytest.raises(PassRefused, match=r"bits=1.5 is too few: the layers need at least"):
        apply("quantize-weights", source, tmp_path, given, bits=1.5, container="native")


def test_an_lstm_that_int8_takes_over_leaves_room_for_other_weights(tmp_path):
    text = (
        "g (float[5,1,16] x) => (float[5,1,64] y) { s, h, c = LSTM<hidden_size = 32>(x, w, r) "
        "f = Squeeze(s, axis) z = Reshape(f, shape) m = MatMul(z, v) y = MatMul(m, u) }"
    )
    weights = {
        "w": normal(1, 128, 16, scale=0.3),
        "r": normal(1, 128, 32, scale=0.3, seed=1),
        "v": normal(32, 256, scale=0.2, seed=2),
        "u": normal(256, 64, scale=0.1, seed=3),
        "axis": np.array([1]),
        "shape": np.array([5, 1, 32]),
    }
    source = model(tmp_path, text, weights=weights)
    given = samples(tmp_path, x=uniform(40, 1, 16))
    most = int(0.2 * source.bytes)

    few = apply("quantize-weights", source, tmp_path, given, most_bytes=most)
    made = apply("quantize-static", few, tmp_path, given)

    assert compute_transfer_bytes(made.path.read_bytes()) < 1.1 * most


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (uniform(16, 32) * np.float32(1e30), "activation x is not finite .* or too large"),
        (uniform(1, 32), None),
        (np.zeros((16, 32), np.float32), None),
    ],
    ids=["inputs too large to be squared", "a single sample", "nothing but zeros"],
)
def test_samples_of_any_kind_give_a_finite_model_or_one_line(tmp_path, x, says):
    text, weights = draw_lopsided()
    source = model(tmp_path, text, weights=weights)
    if says:
        with pytest.raises(PassRefused, match=says):
            apply("quantize-weights", source, tmp_path, samples(tmp_path, x=x))
        return
    made = apply("quantize-weights", source, tmp_path, samples(tmp_path, x=x))
    assert sqnr_db(run(source, x=uniform(8, 32))[0], run(made, x=uniform(8, 32))[0]) > 10


def layer_table(source, folder, given, **settings):
    """The model and what each layer got."""
    place = work(folder, given)
    step = Step(name="quantize-weights", version=0, settings=QuantizeWeights(**settings))
    return run_step(step, source, place), {c.layer: c for c in read_layers(place.scratch)}


@pytest.mark.parametrize("width", [250, 256, 257])
def test_biases_make_up_for_the_weights_whatever_the_width_of_the_image(tmp_path, width):
    text = "g (float[N,4,W,W] x) => (y) { y = Conv<pads = [1,1,1,1]>(x, w, b) }"
    weights = {"w": normal(8, 4, 3, 3), "b": normal(8, seed=1)}
    source = model(tmp_path, text, weights=weights)
    x = uniform(3, 4, width, width) + np.float32(1)
    made = apply("quantize-weights", source, tmp_path, samples(tmp_path, x=x), bits=3, **FIXED)

    difference = run(made, x=x)[0] - run(source, x=x)[0]
    assert np.abs(difference.mean(axis=(0, 2, 3))).max() < 0.1


def test_a_layer_of_zeros_still_outputs_its_bias_in_8_bits(tmp_path):
    text = (
        "g (float[N,4,8,8] x) => (y) { c = Conv(x, w) r = Relu(c) "
        "d = Conv(r, zeros, b) y = Add(r, d) }"
    )
    zeros = np.zeros((8, 8, 1, 1), np.float32)
    weights = {"w": normal(8, 4, 1, 1), "zeros": zeros, "b": normal(8, seed=1)}
    source = model(tmp_path, text, weights=weights)
    x = uniform(32, 4, 8, 8)
    given = samples(tmp_path, x=x)
    few = apply("quantize-weights", source, tmp_path, given, bits=6)
    made = apply("quantize-static", few, tmp_path, given)

    assert sqnr_db(run(few, x=x)[0], run(made, x=x)[0]) > 30


def test_a_constant_along_the_width_is_no_bias_of_a_convolution(tmp_path):
    weights = {"w": normal(6, 4, 1, 1)}
    x = uniform(64, 4, 6, 6) + np.float32(2)
    errors = []
    for shape in ([6], [6, 1, 1]):
        text = "g (float[N,4,6,6] x) => (y) { h = Conv(x, w) y = Add(h, b) }"
        both = weights | {"b": normal(6, seed=1).reshape(shape)}
        source = model(tmp_path, text, weights=both)
        made = apply("quantize-weights", source, tmp_path, samples(tmp_path, x=x), bits=2, **FIXED)
        errors.append((run(made, x=x)[0] - run(source, x=x)[0]).mean(axis=(0, 2, 3)))
    assert np.abs(errors).max() < 0.05


def test_layers_set_by_hand_count_in_the_transfer_size(tmp_path):
    source, given = two_matrices(tmp_path)
    with pytest.raises(PassRefused, match="most_bytes=20000 is too small"):
        apply("quantize-weights", source, tmp_path, given, most_bytes=20_000, widths=(("b", 32.0),))
    made = apply(
        "quantize-weights", source, tmp_path, given, most_bytes=25_000, widths=(("b", 6.0),)
    )
    assert compute_transfer_bytes(made.path.read_bytes()) < 1.06 * 25_000


@pytest.mark.parametrize("block", [16, 32])
@pytest.mark.parametrize("most", [25_000, 40_000])
def test_native_containers_also_meet_the_transfer_size(tmp_path, block, most):
    source, given = two_matrices(tmp_path)
    how = {"container": "native", "block": block}
    for allocation in ("uniform", "measured"):
        made = apply(
            "quantize-weights",
            source,
            tmp_path,
            given,
            most_bytes=most,
            allocation=allocation,
            **how,
        )
        assert compute_transfer_bytes(made.path.read_bytes()) < 1.06 * most


def test_padding_of_the_last_batch_is_not_a_sample(tmp_path):
    x = np.stack([np.full(3, i, np.float32) for i in range(10)])
    proto_ = proto("g (float[8,3] x) => (y) { y = MatMul(x, w) }", weights={"w": normal(3, 2)})
    layer = Layer(node=proto_.graph.node[0], shape=(3, 2), axis=1)
    stream = observe(proto_, ["x"], [samples(tmp_path, x=x)])

    moments = gather_moments({"w": layer}, stream)["w"]

    assert moments.count == 10
    np.testing.assert_allclose(moments.mean, [[4.5, 4.5, 4.5]])


def test_an_output_with_a_single_sample_does_not_distort_the_bits(tmp_path):
    text = "g (float[N,16] x) => (float[N,1] y) { h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }"
    weights = {"a": normal(16, 32, scale=0.3), "b": normal(32, 1, scale=0.3, seed=1)}
    source = model(tmp_path, text, weights=weights)
    _, costs = layer_table(source, tmp_path, samples(tmp_path, x=uniform(1, 16)), bits=3.0)

    assert costs["a"].bits > 1.5
    assert costs["b"].width < 32


def test_a_bias_that_two_layers_share_increases_no_error(tmp_path):
    def costs(second):
        text = (
            "g (float[N,4,6,6] x) => (float[N,8] y) { c = Conv(x, w, b) r = Relu(c) "
            f"d = Conv(r, v, {second}) p = GlobalAveragePool(d) y = Flatten(p) }}"
        )
        zero = np.zeros(8, np.float32)
        weights = {"w": normal(8, 4, 1, 1), "v": normal(8, 8, 1, 1, seed=1), "b": zero, "k": zero}
        source = model(tmp_path, text, weights=weights)
        given = samples(tmp_path, x=uniform(32, 4, 6, 6) + np.float32(1))
        return layer_table(source, tmp_path, given, bits=3.0)[1]

    shared, apart = costs("b"), costs("k")
    assert [c.kl for c in shared.values()] == pytest.approx([c.kl for c in apart.values()])


@pytest.fixture
def sparse_model(tmp_path):
    """Two of three layers are nearly all zeros, in one of them whole channels."""
    random = np.random.default_rng(5)
    weights = {name: normal(256, 256, scale=0.2) for name in "ab"}
    weights["a"] *= random.random((256, 256)) < 0.05
    weights["b"] *= random.random((256, 1)) < 0.06
    weights["w"], weights["v"] = normal(64, 256, scale=0.2), normal(256, 10, scale=0.2)
    source = model(
        tmp_path,
        "g (float[N,64] x) => (float[N,10] y) { h = MatMul(x, w) r = Relu(h) i = MatMul(r, a)"
        " s = Relu(i) j = MatMul(s, b) t = Relu(j) y = MatMul(t, v) }",
        weights=weights,
    )
    return source, samples(tmp_path, x=normal(96, 64))


def test_the_least_bytes_that_a_refusal_names_are_enough(tmp_path, sparse_model):
    source, given = sparse_model
    with pytest.raises(PassRefused) as refused:
        apply("quantize-weights", source, tmp_path, given, most_bytes=1000)
    named = re.search(r"the smallest possible value is most_bytes=(\d+)", str(refused.value))
    assert named
    assert refused.value.least_bytes == int(named[1])
    # 1.2 bits for each of 150,000 weights would be 22,500 bytes.
    assert int(named[1]) < 6000
    most = int(1.5 * int(named[1]))

    made = apply("quantize-weights", source, tmp_path, given, most_bytes=most)

    assert compute_transfer_bytes(made.path.read_bytes()) <= most


def test_refused_sizes_name_the_same_least_size_and_that_is_reached(tmp_path):
    weights = {"w0": normal(64, 8, 3, 3), "w1": normal(8, 64, 3, 3, scale=0.01, seed=1)}
    text = (
        "g (float[N,8,8,8] x) => (y) { a = Conv<pads = [1, 1, 1, 1]>(x, w0) r = Relu(a) "
        "c = Conv<pads = [1, 1, 1, 1]>(r, w1) y = Add(c, x) }"
    )
    source = model(tmp_path, text, weights=weights)
    given = samples(tmp_path, x=normal(64, 8, 8, 8))

    def least(most):
        with pytest.raises(PassRefused, match="most_bytes") as refused:
            apply("quantize-weights", source, tmp_path, given, most_bytes=most)
        return refused.value.least_bytes

    to_try = least(300)
    enough = least(to_try)
    assert least(to_try + 40) == pytest.approx(enough, abs=2)

    made = apply("quantize-weights", source, tmp_path, given, most_bytes=enough)

    assert len(integers(made)) == 2


def test_zeros_of_whole_channels_leave_room_for_other_weights(tmp_path, sparse_model):
    source, given = sparse_model

    made = apply("quantize-weights", source, tmp_path, given, most_bytes=12_000)

    assert 0.85 * 12_000 < compute_transfer_bytes(made.path.read_bytes()) <= 12_000


def test_an_output_of_zeros_is_not_reported_as_lost(tmp_path):
    text = (
        "g (float[N,64] x) => (float[N,32] y, float[N,64] z) { y = MatMul(x, a) z = MatMul(x, b) }"
    )
    stored = {"a": np.zeros((64, 32), np.float32), "b": normal(64, 64)}
    source = model(tmp_path, text, weights=stored)
    settings = QuantizeWeights(bits=4.0)
    folder = work(tmp_path, samples(tmp_path, x=normal(32, 64)))

    found = run_checked(Step(name="quantize-weights", version=0, settings=settings), source, folder)

    assert found.agreement is not None
    assert found.agreement.relative_errors["y"] == 0
    assert not [note for note in found.notes if "large relative error" in note]


OTHER_LAYERS = (
    "g (float[N,8,12,12] x) => (float[N,8] y) { a = Conv<pads = [1, 1, 1, 1]>(x, w0) r = Relu(a) "
    "b = Conv<group = 16, pads = [1, 1, 1, 1]>(r, w1) p = GlobalAveragePool(b) f = Flatten(p) "
    "g1 = Gemm<transB = 1>(f, v0) t = Tanh(g1) y = MatMul(t, v1) }"
)


@pytest.mark.parametrize("container", ["int8", "native"])
def test_inference_dequantizes_no_weight_and_is_as_fast_as_in_float(tmp_path, container):
    stored = {
        "w0": normal(16, 8, 3, 3),
        "w1": normal(16, 1, 3, 3, seed=1),
        "v0": normal(32, 16, seed=2),
        "v1": normal(32, 8, seed=3),
    }
    source = model(tmp_path, OTHER_LAYERS, weights=stored)
    x = uniform(32, 8, 12, 12)
    made = apply(
        "quantize-weights", source, tmp_path, samples(tmp_path, x=x), bits=8, container=container
    )

    found = Counter(fused_ops(made, tmp_path))
    assert not set(found) & {"DequantizeLinear", "Cast", "Mul"}
    if container == "int8":
        assert found == Counter(fused_ops(source, tmp_path))
