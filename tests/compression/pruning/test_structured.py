"""Structured pruning: fewer MACs, close outputs, and reasons for what remains."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest

from edgekit.bundle.layer_report import read_layers
from edgekit.compression.pass_specs import PASSES
from edgekit.compression.pruning.consumers import find_readers
from edgekit.compression.pruning.dependency import find_channels
from edgekit.compression.pruning.surgery import count_remaining_macs
from edgekit.compression.step_runner import run_step
from edgekit.errors import PassRefused
from edgekit.onnx_graph.io import load
from edgekit.onnx_graph.rewrites.prepare import prepare
from edgekit.pass_settings import PruneChannels
from edgekit.progress import ignore_progress
from edgekit.recipe import Step
from tests.builders.tiny import apply, model, normal, proto, run, samples, sqnr_db, work

CONVS = (
    "g (float[N,3,10,10] x) => (float[N,5] y) { "
    "a1 = Conv<pads = [1,1,1,1]>(x, a) r1 = Relu(a1) b1 = Conv<pads = [1,1,1,1]>(r1, b) "
    "r2 = Relu(b1) p = GlobalAveragePool(r2) f = Flatten(p) y = MatMul(f, v) }"
)
MLP = "g (float[N,8] x) => (float[N,5] y) { h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }"
RESIDUAL = (
    "g (float[N,8] x) => (float[N,3] y) { a1 = MatMul(x, a) r1 = Relu(a1) b1 = MatMul(r1, b) "
    "s = Add(x, b1) c1 = MatMul(s, c) r2 = Relu(c1) d1 = MatMul(r2, d) t = Add(s, d1) "
    "y = MatMul(t, e) }"
)


def convs(width=32):
    return {
        "a": normal(width, 3, 3, 3, seed=1, scale=0.3),
        "b": normal(width, width, 3, 3, seed=2, scale=0.1),
        "v": normal(width, 5, seed=3),
    }


def twins():
    """Build sixteen neurons of which the last eight repeat the first eight."""
    half = normal(8, 8, seed=1)
    return {"a": np.concatenate([half, 2 * half], 1), "b": normal(16, 5, seed=2)}


def macs(made):
    return count_remaining_macs(find_channels(prepare(load(made.path), 13)))


def weights(made):
    return {t.name: tuple(t.dims) for t in onnx.load(str(made.path)).graph.initializer}


def prune(source, folder, calibration, **settings):
    """Return the pruned model, and the remark on each family."""
    spec = PASSES["prune-channels"]
    step = Step(name="prune-channels", version=spec.version, settings=PruneChannels(**settings))
    job = work(folder, calibration)
    made = run_step(step, source, job)
    return made, read_layers(job.scratch)


def test_the_requested_macs_are_removed_and_widths_stay_multiples(tmp_path):
    source = model(tmp_path, CONVS, weights=convs())
    calibration = samples(tmp_path, x=normal(64, 3, 10, 10, seed=4))

    made, costs = prune(source, tmp_path, calibration, remove=0.4)

    assert 0.45 < macs(made) / macs(source) <= 0.6
    assert made.path.stat().st_size < 0.8 * source.path.stat().st_size
    widths = [shape[0] for shape in weights(made).values() if len(shape) == 4]
    assert widths != [32, 32]
    assert all(width % 8 == 0 for width in widths)
    assert [c.note.partition(" in steps")[0] for c in costs if "->" in c.note] == [
        f"32 -> {width} channels" for width in widths if width < 32
    ]
    x = normal(3, 3, 10, 10, seed=9)
    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 6


def test_redundant_channels_are_removed_first_without_loss(tmp_path):
    source = model(tmp_path, MLP, weights=twins())
    calibration = samples(tmp_path, x=normal(512, 8, seed=4))
    x = normal(20, 8, seed=9)

    ours, _ = prune(source, tmp_path, calibration, remove=0.5)
    plain, _ = prune(
        source, tmp_path, calibration,
        remove=0.5, score="magnitude", allocation="uniform", repair=False,
    )  # fmt: skip

    assert macs(ours) == macs(plain) == macs(source) / 2
    wanted = run(source, x=x)[0]
    assert sqnr_db(wanted, run(ours, x=x)[0]) > 40 > 20 > sqnr_db(wanted, run(plain, x=x)[0])


def test_with_units_each_kind_loses_the_same_share_of_groups(tmp_path):
    source = model(tmp_path, MLP, weights=twins())
    calibration = samples(tmp_path, x=normal(512, 8, seed=4))

    made, costs = prune(
        source, tmp_path, calibration, remove=0.25, of="units", kinds=("neurons",), align=4
    )

    assert weights(made) == {name: {8: (8, 12), 16: (12, 5)}[n] for name, n in rows(source)}
    assert [c.note for c in costs] == ["16 -> 12 neurons"]


def rows(source):
    return [(name, shape[0]) for name, shape in weights(source).items()]


def test_a_residual_layer_with_little_effect_is_removed_as_a_whole(tmp_path):
    kept = {"a": normal(8, 16, seed=1), "b": normal(16, 8, seed=2), "e": normal(8, 3, seed=5)}
    idle = {"c": normal(8, 16, seed=3), "d": normal(16, 8, seed=4, scale=1e-4)}
    source = model(tmp_path, RESIDUAL, weights=kept | idle)
    calibration = samples(tmp_path, x=normal(64, 8, seed=6))
    x = normal(20, 8, seed=9)

    made, costs = prune(source, tmp_path, calibration, remove=0.4)

    assert any(c.note.startswith("residual layer removed as a whole; ") for c in costs)
    assert macs(made) <= 0.6 * macs(source)
    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 40


def test_an_unreachable_share_is_refused_with_the_reason(tmp_path):
    source = model(tmp_path, CONVS, weights=convs())
    calibration = samples(tmp_path, x=normal(16, 3, 10, 10))

    with pytest.raises(PassRefused, match=r"at most \d+ % .* not 95 %: widths must be multiples"):
        prune(source, tmp_path, calibration, remove=0.95, align=16)


def test_in_a_tiny_model_the_alignment_is_the_reason(tmp_path):
    source = model(tmp_path, MLP, weights={"a": normal(8, 2), "b": normal(2, 5)})
    calibration = samples(tmp_path, x=normal(16, 8))

    with pytest.raises(PassRefused, match=r"at most 0 % .*%: widths must be multiples of align"):
        prune(source, tmp_path, calibration)
    with pytest.raises(PassRefused, match="kinds is empty"):
        prune(source, tmp_path, calibration, kinds=())


def test_removing_more_than_requested_is_reported_with_the_steps(tmp_path):
    source = model(tmp_path, MLP, weights=twins())
    calibration = samples(tmp_path, x=normal(64, 8, seed=4))

    _, costs = prune(source, tmp_path, calibration, remove=0.01)

    assert [c.note for c in costs] == [
        "16 -> 8 neurons in steps of 8; 50.0 % of the MACs removed in total"
    ]


def test_a_single_sample_is_too_few_to_refit(tmp_path):
    source = model(tmp_path, MLP, weights=twins())
    calibration = samples(tmp_path, x=normal(16, 8))

    with pytest.raises(PassRefused, match="1 sample is too few to refit weights"):
        prune(source, tmp_path, calibration, max_samples=1)


def test_nodes_and_weights_keep_their_names(tmp_path):
    source = model(tmp_path, CONVS, weights=convs())
    made, _ = prune(source, tmp_path, samples(tmp_path, x=normal(16, 3, 10, 10)))

    before, after = (onnx.load(str(each.path)).graph for each in (source, made))
    assert [n.output[0] for n in after.node] == [n.output[0] for n in before.node]
    assert {t.name for t in before.initializer} <= {t.name for t in after.initializer}


def test_channels_that_are_outputs_of_the_model_are_named(tmp_path):
    text = "g (float[N,8] x) => (float[N,16] y) { h = MatMul(x, a) y = Relu(h) }"
    source = model(tmp_path, text, weights={"a": normal(8, 16)})

    with pytest.raises(PassRefused, match=r"can be removed: h \(they are tied to the output y\)$"):
        prune(source, tmp_path, samples(tmp_path, x=normal(16, 8)), remove=0.25)


def test_recurrent_layers_are_named_in_a_refusal(tmp_path):
    text = (
        "g (float[4,N,8] x) => (float[N,6] y)"
        " { s, last = LSTM<hidden_size = 16>(x, w, r) h = Squeeze(last, axis) y = MatMul(h, o) }"
    )
    weights = {"w": normal(1, 64, 8), "r": normal(1, 64, 16), "o": normal(16, 6), "axis": [0]}
    source = model(tmp_path, text, weights=weights)

    with pytest.raises(
        PassRefused, match=r"y \(they are tied to the output y\); LSTM s \(the units"
    ):
        apply("prune-channels", source, tmp_path, samples(tmp_path, x=normal(4, 4, 8)))


def test_kinds_that_a_model_does_not_have_are_named(tmp_path):
    source = model(tmp_path, MLP, weights=twins())

    with pytest.raises(
        PassRefused, match="nothing of these kinds that can be removed: heads"
    ) as refusal:
        prune(source, tmp_path, samples(tmp_path, x=normal(16, 8)), kinds=("heads",))

    assert refusal.value.hint == "kinds of this model: neurons"


def test_gradient_scores_find_channels_without_effect(tmp_path):
    pytest.importorskip("tensorflow")
    weight = normal(16, 5, seed=2)
    weight[::2] = 0  # half of the neurons are large and read with zero
    first = normal(8, 16, seed=1)
    first[:, ::2] *= 10
    source = model(tmp_path, MLP, weights={"a": first, "b": weight})
    calibration = samples(tmp_path, x=normal(512, 8, seed=4))
    x = normal(20, 8, seed=9)

    made, _ = prune(source, tmp_path, calibration, remove=0.5, score="fisher", repair=False)

    np.testing.assert_allclose(run(made, x=x)[0], run(source, x=x)[0], atol=1e-5)


def test_a_pruned_model_is_quantized_and_converted_to_tflite(tmp_path):
    source = model(tmp_path, CONVS, weights=convs())
    calibration = samples(tmp_path, x=normal(64, 3, 10, 10, seed=4))
    x = normal(1, 3, 10, 10, seed=9)

    made, _ = prune(source, tmp_path, calibration, remove=0.3)
    quantized = apply("quantize-static", made, tmp_path, calibration)
    lite = apply("to-tflite", quantized, tmp_path, calibration)

    assert sqnr_db(run(made, x=x)[0], run(quantized, x=x)[0]) > 20
    assert lite.path.stat().st_size < 0.5 * source.path.stat().st_size


def test_shrunken_moments_have_variance_in_every_direction(tmp_path):
    """Few samples, far from zero: shrinking before centring would leave less than none."""
    made = prepare(proto(CONVS, weights=convs()), 13)
    x = normal(4, 3, 10, 10, seed=4) + 10
    readers = find_readers(find_channels(made), [samples(tmp_path, x=x)], ignore_progress).fitted

    lowest = [np.linalg.eigvalsh(reader.compute_curvature()).min() for reader in readers]

    assert len(lowest) == 2
    assert min(lowest) > 0
    assert all(math.isfinite(value) for value in lowest)


def test_a_model_of_layers_inside_branches_is_refused_with_that_reason(tmp_path):
    text = (
        "g (float[N,32] x) => (float[N,32] y) { s = ReduceSum<keepdims = 0>(x) k = Greater(s, zero)"
        " y = If(k) <then_branch = t () => (float[N,32] p)"
        " { h = MatMul(x, a) r = Relu(h) p = MatMul(r, b) },"
        " else_branch = e () => (float[N,32] q) { q = MatMul(x, b) }> }"
    )
    stored = {"a": normal(32, 32), "b": normal(32, 32), "zero": np.float32(0)}
    source = model(tmp_path, text, weights=stored)

    with pytest.raises(PassRefused, match=r"MatMul h and 2 more \(inside If, Loop or Scan"):
        apply("prune-channels", source, tmp_path, samples(tmp_path, x=normal(16, 32)), remove=0.3)
