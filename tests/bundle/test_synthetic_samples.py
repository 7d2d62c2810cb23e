"""Synthetic golden samples show no real sample, and use a model as real samples do."""

from __future__ import annotations

import math
from functools import partial
from io import BytesIO

import numpy as np
import pytest
import zoo as bench

from edgekit.bundle import golden_samples
from edgekit.bundle.golden_inputs import read_input_rows
from edgekit.bundle.golden_samples import NoGoldenSamples, make_golden_samples
from edgekit.bundle.sample_statistics import KnownStatistics, compute_statistics
from edgekit.bundle.synthetic_samples import Look, draw_samples
from edgekit.data.dataset import open_dataset
from edgekit.pipeline.request import Request, read_build_inputs
from edgekit_agent.measure.health import check_health
from edgekit_agent.runtimes import import_runtime
from edgekit_agent.worker_jobs import HealthJob, ModelRef
from tests.builders.stateful import STEP, STEP_WEIGHTS
from tests.builders.tiny import model, normal

# An image, a signal of sound, tokens, and rows of a table.
ENTRIES = ("med-pneumonia", "ic-resnet8", "kws-dscnn", "text-minilm-agnews", "tab-breastcancer")


def make(source, folder, seed=0, known=None, **arrays):
    """Return the golden samples of a model, with the real ones in calib.npz."""
    np.savez(folder / "calib.npz", **arrays)
    (folder / "cache").mkdir(exist_ok=True)
    split = open_dataset(
        "calib.npz", source.signature, folder=folder, cache=folder / "cache", targets="none"
    )
    return make_golden_samples(
        source.path,
        "onnxruntime",
        1,
        split=split,
        model_bytes=source.bytes,
        seed=seed,
        known=known,
    )


def read(made):
    return dict(np.load(BytesIO(made.data)))


def is_healthy(path, made, folder):
    (folder / "golden.npz").write_bytes(made.data)
    job = HealthJob(ModelRef(str(path), "onnxruntime"), str(folder / "golden.npz"), 0.1)
    return check_health(job, lambda *_: None).healthy


def measure_nearest(kept, real):
    """Return the least distance of a synthetic sample to a real one, and of two real ones.

    The unit of a column is its standard deviation; equal samples are left out.
    """
    flat = {
        name: np.concatenate([kept[name], rows]).reshape(2 + len(rows), -1).astype(np.float64)
        for name, rows in real.items()
    }
    joined = np.concatenate([v / (v[2:].std(0) + 1e-9) for v in flat.values()], axis=1)
    drawn, others = np.unique(joined[:2], axis=0), np.unique(joined[2:], axis=0)
    to_real = min(np.linalg.norm(others - row, axis=1).min() for row in drawn)
    among = [np.linalg.norm(np.delete(others, i, 0) - row, axis=1) for i, row in enumerate(others)]
    return to_real, min(each.min() for each in among)


@pytest.mark.zoo
@pytest.mark.parametrize("name", ENTRIES)
def test_synthetic_samples_of_real_models_are_no_real_ones_and_outputs_differ_as_much(
    name, zoo, tmp_path, monkeypatch
):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    folder = bench.write_project(zoo, bench.entries(zoo)[name], tmp_path / name)
    inputs = read_build_inputs(Request(folder=folder, device="tablet"))
    source, split = inputs.model, inputs.calibration

    made = make_golden_samples(source.path, "onnxruntime", 1, split=split, model_bytes=source.bytes)

    assert made.note == ""
    arrays = read(made)
    loaded = import_runtime("onnxruntime")(str(source.path), 1)
    real = read_input_rows(loaded, split.first(64), sizes_of=8)
    kept = {key: arrays[f"input:{key}"] for key in real.rows}
    for key, rows in real.rows.items():
        assert kept[key].shape == (2, *rows.shape[1:])
        assert kept[key].min() >= rows.min()
        assert kept[key].max() <= rows.max() * 1.001
    nearest, among = measure_nearest(kept, real.rows)
    assert nearest >= among
    run = partial(golden_samples._run, loaded, real)
    drawn, wanted = run(kept), run({key: rows[:8] for key, rows in real.rows.items()})
    for key, values in drawn.items():
        assert np.isfinite(values).all()
        difference = np.sqrt(np.mean((values[0] - values[1]) ** 2))
        pairs = [np.mean((a - b) ** 2) for i, a in enumerate(wanted[key]) for b in wanted[key][:i]]
        assert difference >= 0.25 * math.sqrt(np.mean(pairs)), key
    assert is_healthy(source.path, made, tmp_path)


def test_states_and_constants_are_drawn_along_their_axes(tmp_path):
    source = model(tmp_path, STEP, weights=STEP_WEIGHTS)
    x, state = normal(40, 8, seed=1), np.tanh(normal(40, 2, 6, seed=2))
    (tmp_path / "cache").mkdir()
    np.savez(tmp_path / "calib.npz", x=x, state=state)
    from edgekit.data.input_settings import Feeding

    split = open_dataset(
        "calib.npz",
        source.signature,
        folder=tmp_path,
        cache=tmp_path / "cache",
        targets="none",
        feeding=Feeding(constants={"rate": np.array(16000)}, axes={"state": 1}),
    )

    made = make_golden_samples(source.path, "onnxruntime", 1, split=split, model_bytes=source.bytes)

    arrays = read(made)
    assert arrays["input:state"].shape == (2, 2, 6)
    assert arrays["axis:state"].tolist() == [1]
    assert arrays["constant:rate"].tolist() == [16000]
    kept = {"x": arrays["input:x"], "state": arrays["input:state"]}
    nearest, among = measure_nearest(kept, {"x": x, "state": state})
    assert nearest >= among
    assert is_healthy(source.path, made, tmp_path)


def test_the_same_seed_draws_the_same_samples_and_another_seed_draws_others(tmp_path):
    source = model(tmp_path, "g (float[N,4] x) => (float[N,4] y) { y = Tanh(x) }")
    x = normal(30, 4, seed=1)

    first, again, other = (make(source, tmp_path, seed=seed, x=x).data for seed in (0, 0, 1))

    assert first == again
    assert first != other


@pytest.mark.parametrize("count", [1, 3, 7, 8, 40])
def test_no_value_of_a_real_sample_is_stored_however_few_there_are(tmp_path, count):
    source = model(tmp_path, "g (float[N,6] x) => (float[N,6] y) { y = Tanh(x) }")
    x = np.random.default_rng(3).uniform(-3, 7, (count, 6)).astype(np.float32)

    arrays = read(make(source, tmp_path, x=x))

    stored = arrays["input:x"].astype(np.float32).ravel()
    assert len(np.unique(stored)) > 6
    gaps = np.abs(stored[:, None] - x.ravel())
    assert (gaps.min(1) > 0).all()
    assert np.abs(stored).max() <= 8


def test_rare_tokens_are_never_stored_and_every_number_is_valid(tmp_path):
    source = model(
        tmp_path,
        "g (int64[N,12] ids, int64[N,12] mask) => (float[N,12,3] y) "
        "{ e = Gather<axis = 0>(table, ids) m = Cast<to = 1>(mask) u = Unsqueeze(m, last) "
        "y = Mul(e, u) }",
        weights={"table": normal(1000, 3, seed=0), "last": np.int64([2])},
    )
    rng = np.random.default_rng(0)
    ids = rng.choice(np.arange(10, 40), size=(60, 12))
    ids[:, 0] = 5
    ids[np.arange(60), rng.integers(1, 12, 60)] = np.arange(900, 960)  # one name for each sample
    lengths = rng.integers(4, 13, 60)
    mask = (np.arange(12) < lengths[:, None]).astype(np.int64)

    arrays = read(make(source, tmp_path, ids=ids, mask=mask))

    drawn = arrays["input:ids"]
    assert (drawn[:, 0] == 5).all()
    assert not np.isin(drawn, np.arange(900, 960)).any()
    assert np.isin(drawn, ids).all()
    assert (np.diff(arrays["input:mask"], axis=1) <= 0).all(), "a mask ends at one position"
    assert arrays["input:mask"][:, :4].all()


def test_codes_of_few_samples_stay_in_the_range_of_valid_ones():
    rows = np.array([[3, 250, 17], [9, 100, 40]])

    drawn = draw_samples(compute_statistics(rows), 50, np.random.default_rng(0), Look())

    assert drawn.dtype == rows.dtype
    assert drawn.min() >= 3
    assert drawn.max() <= 250
    assert len(np.unique(drawn)) > 20


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.float16, np.float64])
def test_samples_keep_type_smoothness_and_the_means_of_channels(dtype):
    y, x = np.mgrid[0:32, 0:32] / 32
    rng = np.random.default_rng(0)
    waves = [np.sin(a * x + b * y + c) for a, b, c in rng.uniform(0, 6, size=(60, 3))]
    rows = np.stack(waves).reshape(20, 3, 32, 32) * 10 + np.array([50, 80, 100]).reshape(3, 1, 1)

    drawn = draw_samples(
        compute_statistics(rows.astype(dtype)), 20, np.random.default_rng(1), Look()
    )

    assert drawn.dtype == dtype
    drawn = drawn.astype(np.float64)
    assert drawn.mean((0, 2, 3)) == pytest.approx(rows.mean((0, 2, 3)), abs=3)
    assert drawn.std() == pytest.approx(rows.std(), rel=0.3)
    steps = np.diff(drawn, axis=3).std() / drawn.std(3).mean()
    assert steps < 0.6, "white noise has 1.4"


def test_statistics_are_shared_by_models_of_the_same_samples_alone(tmp_path):
    source = model(tmp_path, "g (float[N,4] x) => (float[N,4] y) { y = Tanh(x) }")
    one, other = normal(40, 4, seed=1), normal(40, 4, seed=2)
    known = KnownStatistics()

    made = [make(source, tmp_path, known=known, x=rows).data for rows in (one, other, one)]

    assert made == [make(source, tmp_path, x=rows).data for rows in (one, other, one)]
    assert known.compute(one) is known.compute(one.copy())
    assert known.compute(one) is not known.compute(one.view(np.int32))


def test_columns_of_whole_numbers_stay_whole():
    rng = np.random.default_rng(0)
    rows = np.stack([rng.integers(0, 4, 50), rng.normal(size=50)], 1).astype(np.float32)

    drawn = draw_samples(compute_statistics(rows), 30, np.random.default_rng(1), Look())

    assert np.isin(drawn[:, 0], [0, 1, 2, 3]).all()
    assert not (drawn[:, 1] == np.rint(drawn[:, 1])).any()


def test_a_model_that_hardly_reacts_to_synthetic_samples_leaves_a_note(tmp_path):
    source = model(
        tmp_path,
        "g (float[N,64] x) => (float[N,1] y) { y = ReduceProd<axes = [1]>(x) }",
    )
    x = np.random.default_rng(0).choice([-1, 1], (40, 64)).astype(np.float32)

    made = make(source, tmp_path, x=x)

    assert "differ by 0% of the difference of real samples" in made.note
    assert '[golden] samples = "calibration"' in made.note
    assert is_healthy(source.path, made, tmp_path)


def test_without_finite_outputs_nothing_real_is_taken_and_the_error_says_what_to_do(tmp_path):
    source = model(
        tmp_path,
        "g (float[N,2] x) => (float[N,2] y) { z = Mul(x, x) s = ReduceSum(z, axes) "
        "d = Sub(s, one) e = Abs(d) f = Sub(limit, e) y0 = Log(f) y = Mul(x, y0) }",
        weights={"axes": np.array([1]), "one": np.float32(1), "limit": np.float32(1e-3)},
    )
    angles = np.random.default_rng(0).uniform(0, 6.28, 40)
    circle = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)

    with pytest.raises(NoGoldenSamples, match="not finite on each synthetic") as raised:
        make(source, tmp_path, x=circle)

    assert 'samples = "calibration"' in raised.value.hint
