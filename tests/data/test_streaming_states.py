"""States along sequences: calibration, scoring and timing agree with feeding by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit.compression.pass_specs import PASSES, build_step
from edgekit.config.project import load_project
from edgekit.data.dataset import open_dataset
from edgekit.errors import UserError
from edgekit.onnx_graph.io import open_session, read_onnx
from edgekit.pipeline.apply import apply
from edgekit.pipeline.benchmark import open_subject
from edgekit.pipeline.model_settings import read_feeding
from edgekit.pipeline.splits import open_calibration
from edgekit.progress import ignore_progress
from edgekit_agent.measure.accuracy import score
from edgekit_agent.measure.feeds import open_columns
from edgekit_agent.worker_jobs import ModelRef, ScoreJob
from tests.builders.projects import assert_refused, edgekit
from tests.builders.stateful import (
    GROWING_TOML,
    STEP_TOML,
    growing_by_hand,
    growing_model,
    step_model,
    steps_by_hand,
)
from tests.builders.tiny import normal

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "zoo"
TASKS = Path(os.environ.get("EDGEKIT_ZOO", BESIDE)).parent / "tasks"
SEQUENCE = np.repeat([7, 3, 9, 5], [11, 9, 14, 6])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


def calibration(folder, source, path):
    project = load_project(folder)
    model = read_onnx(path)
    feeding = read_feeding(folder, project, model)
    return open_calibration(
        source, model, feeding, folder=folder, settings=None, tick=ignore_progress
    ).samples


def arrays(samples):
    with open_columns(samples.columns) as opened:
        return {name: rows.read(0, rows.column.shape[0]) for name, rows in opened.items()}


def make(name, path, folder, data, **settings):
    out = folder / f"{name}-{data}.{'tflite' if name == 'to-tflite' else 'onnx'}"
    chosen = build_step(PASSES[name].settings(**settings))
    apply(chosen, path, out, data=data, folder=folder, tick=ignore_progress)
    return out


def step_data(folder, path, *, rows=40):
    """The same steps as sequences, and with the states that feeding by hand gives."""
    x, sequence = normal(rows, 8, seed=8), SEQUENCE[:rows]
    states, answers = steps_by_hand(path, x, sequence)
    np.savez(folder / "steps.npz", x=x, sequence=sequence, label=(answers[:, 0] > 0.5).astype(int))
    np.savez(folder / "hand.npz", x=x, state=states, sequence=sequence)
    return x, states, answers


def test_calibration_states_are_those_of_feeding_by_hand(tmp_path):
    path = step_model(tmp_path)
    x, states, _ = step_data(tmp_path, path)

    found = arrays(calibration(tmp_path, "steps.npz", path))

    assert np.array_equal(found["x"], x)
    assert np.array_equal(found["state"], states)
    assert not found["state"][[0, 11, 20, 34]].any(), "zeros at the start of a sequence"


def test_without_sequences_the_split_is_one(tmp_path):
    path = step_model(tmp_path)
    x = normal(12, 8)
    np.savez(tmp_path / "steps.npz", x=x)
    found = arrays(calibration(tmp_path, "steps.npz", path))

    assert np.array_equal(found["state"], steps_by_hand(path, x, np.zeros(12))[0])


def test_states_that_the_file_holds_are_fed_as_they_are(tmp_path):
    path = step_model(tmp_path)
    given = normal(12, 2, 6, seed=3)
    np.savez(tmp_path / "given.npz", x=normal(12, 8), state=given)

    assert np.array_equal(arrays(calibration(tmp_path, "given.npz", path))["state"], given)


def test_a_sequence_begins_with_what_initial_says(tmp_path):
    path = step_model(tmp_path)
    first = normal(2, 6, seed=5)
    np.save(tmp_path / "first.npy", first[:, None])
    (tmp_path / "edgekit.toml").write_text(STEP_TOML + 'initial = "first.npy"\n')
    np.savez(tmp_path / "steps.npz", x=normal(12, 8), sequence=np.repeat([0, 1], 6))
    found = arrays(calibration(tmp_path, "steps.npz", path))["state"]

    assert np.array_equal(found[0], first)
    assert np.array_equal(found[6], first)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("quantize-static", {}),
        ("quantize-dynamic", {}),
        ("quantize-weights", {"bits": 8}),
        ("prune-weights", {"sparsity": 0.3}),
        ("clean", {}),
        ("to-tflite", {}),
    ],
)
def test_every_pass_gives_the_same_from_sequences_as_from_states_by_hand(tmp_path, name, settings):
    path = step_model(tmp_path)
    step_data(tmp_path, path)

    one = make(name, path, tmp_path, "steps.npz", **settings).read_bytes()
    other = make(name, path, tmp_path, "hand.npz", **settings).read_bytes()

    assert one == other


def test_a_quantized_model_depends_on_the_states_that_were_carried(tmp_path):
    path = step_model(tmp_path)
    step_data(tmp_path, path)
    np.savez(tmp_path / "zeros.npz", x=normal(40, 8, seed=8), state=np.zeros((40, 2, 6), "f"))

    one = make("quantize-static", path, tmp_path, "steps.npz").read_bytes()
    other = make("quantize-static", path, tmp_path, "zeros.npz").read_bytes()

    assert one != other


def growing_data(folder, path, lengths=(9, 6, 8)):
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    x = normal(len(sequence), 1, 4, seed=2)
    np.savez(folder / "steps.npz", x=x, sequence=sequence, label=np.zeros(len(x), int))
    return x, sequence, *growing_by_hand(path, x, sequence)


@pytest.mark.parametrize(("dims", "length"), [("", 5), ("dims = { past = 3 }\n", 3)])
def test_states_that_grow_are_kept_at_one_length(tmp_path, dims, length):
    path = growing_model(tmp_path)
    x, _, states, _ = growing_data(tmp_path, path)
    text = GROWING_TOML.replace('"model.onnx"\n', f'"model.onnx"\n{dims}')
    (tmp_path / "edgekit.toml").write_text(text)
    kept = [number for number, state in enumerate(states) if len(state) == length]

    found = arrays(calibration(tmp_path, "steps.npz", path))

    assert len(kept) == 3
    assert np.array_equal(found["x"], x[kept])
    assert np.array_equal(found["seen"], np.stack([states[number] for number in kept]))


def test_growing_states_quantize_as_if_fed_by_hand(tmp_path):
    path = growing_model(tmp_path)
    x, _, states, _ = growing_data(tmp_path, path, lengths=(9,) * 12)
    kept = [number for number, state in enumerate(states) if len(state) == 8]
    np.savez(tmp_path / "hand.npz", x=x[kept], seen=np.stack([states[k] for k in kept]))

    one = make("quantize-dynamic", path, tmp_path, "steps.npz").read_bytes()
    other = make("quantize-dynamic", path, tmp_path, "hand.npz").read_bytes()

    assert one == other


def test_a_length_that_no_sequence_has_is_refused(tmp_path):
    path = growing_model(tmp_path)
    growing_data(tmp_path, path)
    assert_refused(
        "apply", "clean", path, "-o", tmp_path / "o.onnx", "-C", tmp_path, "--data", "steps.npz",
        "--dims", "past=50", says="at no step do the states have the requested sizes",
    )  # fmt: skip


def tally(folder, path, source, model=None):
    feeding = read_feeding(folder, load_project(folder), read_onnx(path))
    split = open_dataset(
        source,
        read_onnx(path).signature,
        folder=folder,
        cache=folder / "cache",
        feeding=feeding,
        targets="required",
    )
    runtime = "litert" if str(model).endswith(".tflite") else "onnxruntime"
    job = ScoreJob(
        ModelRef(str(model or path), runtime),
        split.samples,
        "binary",
        outputs_path=str(folder / "outputs.npy"),
    )
    return score(job, lambda *_: None), np.load(folder / "outputs.npy")


def test_scoring_carries_the_model_s_own_states_and_begins_anew_with_each_sequence(tmp_path):
    path = step_model(tmp_path)
    _, _, answers = step_data(tmp_path, path)
    found, outputs = tally(tmp_path, path, "steps.npz")

    assert (found.n, found.correct) == (40, 40)
    assert np.array_equal(outputs, answers)


def test_a_candidate_is_scored_with_its_own_states(tmp_path):
    path = step_model(tmp_path)
    x, *_ = step_data(tmp_path, path)
    candidate = make("quantize-static", path, tmp_path, "steps.npz")
    _, outputs = tally(tmp_path, path, "steps.npz", candidate)

    assert np.array_equal(outputs, steps_by_hand(candidate, x, SEQUENCE)[1])


def test_a_tflite_candidate_is_scored_with_its_own_states(tmp_path):
    path = step_model(tmp_path)
    _, _, answers = step_data(tmp_path, path)
    out = tmp_path / "m.tflite"
    apply(
        build_step(PASSES["to-tflite"].settings()),
        path,
        out,
        data="steps.npz",
        folder=tmp_path,
        tick=ignore_progress,
    )
    _, outputs = tally(tmp_path, path, "steps.npz", out)

    assert np.allclose(outputs, answers, atol=1e-5)


def test_growing_states_are_carried_while_scoring(tmp_path):
    path = growing_model(tmp_path)
    _, _, _, answers = growing_data(tmp_path, path)
    feeding = read_feeding(tmp_path, load_project(tmp_path), read_onnx(path))
    split = open_dataset(
        "steps.npz",
        read_onnx(path).signature,
        folder=tmp_path,
        cache=tmp_path / "cache",
        feeding=feeding,
        targets="required",
    )
    job = ScoreJob(
        ModelRef(str(path), "onnxruntime"), split.samples, "top1",
        outputs_path=str(tmp_path / "outputs.npy"),
    )  # fmt: skip
    score(job, lambda *_: None)

    assert np.array_equal(np.load(tmp_path / "outputs.npy"), answers)


def test_build_push_and_bench_carry_states(tmp_path, monkeypatch):
    path = step_model(tmp_path)
    step_data(tmp_path, path)
    np.savez(tmp_path / "calib.npz", x=normal(40, 8, seed=9), sequence=SEQUENCE)
    (tmp_path / "edgekit.toml").write_text(
        STEP_TOML + '[data]\ncalibration = "calib.npz"\nevaluation = "steps.npz"\n'
        'metric = "binary"\n'
    )
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    built = edgekit("build", "-C", tmp_path, "--device", "tablet-x86", "--step", "clean",
                    "--allow-failing")  # fmt: skip
    bundle = tmp_path / "build" / "tablet-x86"
    golden_samples = np.load(bundle / "golden.npz")

    assert built.code == 0
    assert golden_samples["input:state"].shape[1:] == (2, 6)
    assert golden_samples["axis:state"].tolist() == [1]
    assert golden_samples["constant:rate"].tolist() == [16000]
    assert edgekit("push", bundle, "local").code == 0
    assert edgekit("bench", bundle, "local").code == 0
    timed = edgekit("bench", path, "local", "-C", tmp_path, "--eval", "steps.npz", "--json")
    assert json.loads(timed.out)[0]["scores"][0]["correct"] == 40


def test_timing_without_samples_feeds_the_constants(tmp_path):
    path = step_model(tmp_path)
    with (
        open_subject(path, folder=tmp_path, evaluation=None, metric=None, device=None) as opened,
        open_columns(opened.inputs.columns) as columns,
    ):
        assert columns["rate"].read(0, 1).tolist() == [16000]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sequence": SEQUENCE[:, None]}, "sequence: must be one integer per sample"),
        ({"sequence": SEQUENCE * 1.0}, "sequence: must be one integer per sample"),
        ({"sequence": np.arange(40) % 2}, "the rows of sequence 0 are not contiguous"),
        ({"sequence": SEQUENCE[:30]}, "differ in their number of samples"),
        ({"state": np.zeros((40, 3, 6), "f")}, "do not fit the model input state"),
        ({"state": np.full((40, 2, 6), np.nan, "f")}, "has NaN or infinite"),
    ],
)
def test_invalid_sequences_are_refused(tmp_path, change, says):
    path = step_model(tmp_path)
    np.savez(tmp_path / "d.npz", **{"x": normal(40, 8), "sequence": SEQUENCE} | change)
    with pytest.raises(UserError) as caught:
        calibration(tmp_path, "d.npz", path)
    assert says in str(caught.value)


def test_a_damaged_cache_of_states_is_computed_again(tmp_path):
    path = step_model(tmp_path)
    _, states, _ = step_data(tmp_path, path)
    calibration(tmp_path, "steps.npz", path)
    for index in (tmp_path / "cache" / "states").glob("*/samples.json"):
        index.write_text("{}")

    assert np.array_equal(arrays(calibration(tmp_path, "steps.npz", path))["state"], states)


def dump(task, folder):
    done = subprocess.run(
        [sys.executable, TASKS / "eval.py", TASKS / task, "--dump", folder / "d.npz",
         "--split", "calib", "--n", "40"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "d.npz"))


@pytest.mark.skipif(not TASKS.is_dir(), reason="needs the folder of tasks")
def test_a_real_voice_activity_detector_quantizes_as_if_fed_by_hand(tmp_path):
    fed = dump("vad-silero-op15", tmp_path)
    order = [stream + 2 * at for stream in range(2) for at in range(40)]
    sequence = np.repeat([0, 1], 40)
    by_hand = {name: value[order] for name, value in fed.items()}
    np.savez(tmp_path / "hand.npz", sequence=sequence, **by_hand)
    np.savez(tmp_path / "steps.npz", input=fed["input"][order], sequence=sequence)
    path = TASKS / "vad-silero-op15" / "model.onnx"
    (tmp_path / "edgekit.toml").write_text(
        '[model.inputs.sr]\nconstant = 16000\n[model.inputs.state]\nfrom = "stateN"\n'
    )
    one = make("quantize-static", path, tmp_path, "steps.npz")
    other = make("quantize-static", path, tmp_path, "hand.npz")

    feed = {"input": fed["input"][:1], "state": fed["state"][40][:, None], "sr": np.array(16000)}
    pairs = zip(open_session(one).run(None, feed), open_session(other).run(None, feed), strict=True)
    assert all(np.allclose(a, b, atol=1e-4) for a, b in pairs)


@pytest.mark.skipif(not TASKS.is_dir(), reason="needs the folder of tasks")
def test_a_real_decoder_quantizes_as_if_fed_by_hand(tmp_path):
    task = TASKS / "lm-gpt-pysrc"
    z = np.load(task / "calib.npz")
    texts = [z["tokens"][a:b] for a, b in zip(z["off"], z["off"][1:], strict=False)][:24]
    texts = [text.astype(np.int64) for text in texts if len(text) > 49]
    states = [f"past_{kind}{layer}" for layer in (0, 1) for kind in "kv"]
    rows = {"ids": [], "pos": [], "sequence": []}
    for number, text in enumerate(texts):
        rows["ids"] += [[token] for token in text[:-1]]
        rows["pos"] += [[at] for at in range(len(text) - 1)]
        rows["sequence"] += [number] * (len(text) - 1)
    np.savez(tmp_path / "steps.npz", **{name: np.array(value) for name, value in rows.items()})
    session = open_session(task / "model.onnx")
    hand = {name: [] for name in ("ids", "pos", *states)}
    for text in texts:
        cache = {name: np.zeros((1, 6, 0, 32), np.float32) for name in states}
        for at in range(49):
            feed = {"ids": text[None, at : at + 1], "pos": np.int64([[at]]), **cache}
            if at == 48:
                for name, value in feed.items():
                    hand[name].append(value[0])
            outs = [name.replace("past", "present") for name in states]
            cache = dict(zip(states, session.run(outs, feed), strict=True))
    by_hand = {name: np.stack(value) for name, value in hand.items()}
    np.savez(tmp_path / "hand.npz", sequence=np.arange(len(texts)), **by_hand)
    (tmp_path / "edgekit.toml").write_text(
        "[model]\ndims = { past = 48 }\n[model.inputs]\n"
        + "".join(f'{name}.from = "{name.replace("past", "present")}"\n' for name in states)
    )

    one = make("quantize-static", task / "model.onnx", tmp_path, "steps.npz").read_bytes()
    other = make("quantize-static", task / "model.onnx", tmp_path, "hand.npz").read_bytes()

    assert one == other
