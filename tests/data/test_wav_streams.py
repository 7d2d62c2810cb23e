"""Long wav files as streams of steps, with a target for each step."""

from __future__ import annotations

import wave

import numpy as np
import pytest

from edgekit.config.audio import AudioSettings
from edgekit.config.project import FileSettings
from edgekit.data.audio.wav_files import read_wav
from edgekit.data.column_rows import read_column
from edgekit.data.dataset import open_dataset
from edgekit.data.input_settings import Feeding, RecurrentState
from edgekit.errors import UserError
from edgekit.model import Signature, TensorSpec
from edgekit.onnx_graph.runs.activations import to_agent_tensor
from edgekit_agent.measure.feeds import iter_runs
from tests.builders.projects import edgekit
from tests.builders.stateful import find_named
from tests.builders.tiny import model, normal

RATE = 8000


def save(path, count, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(-20000, 20000, count).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(values.tobytes())


@pytest.fixture
def streams(tmp_path):
    for name, count in (("a", 350), ("b", 200)):
        save(tmp_path / "data" / f"{name}.wav", count, count)
        numbers = " ".join(str(n % 2) for n in range(count // 100))
        (tmp_path / "data" / f"{name}.txt").write_text(numbers + "\n")
    return tmp_path / "data"


def opened(folder, width="T", targets="optional", **settings):
    inputs = (
        TensorSpec(name="x", dtype="float32", shape=("N", width)),
        TensorSpec(name="h", dtype="float32", shape=("N", 1)),
    )
    state = RecurrentState(output="h_out", initial=np.zeros(1, np.float32))
    return open_dataset(
        "data",
        Signature(
            inputs=inputs, outputs=(TensorSpec(name="h_out", dtype="float32", shape=("N", 1)),)
        ),
        folder=folder.parent,
        cache=folder.parent / "cache",
        feeding=Feeding(states={"h": state}),
        files=FileSettings(audio=AudioSettings(**settings)),
        targets=targets,
    )


class Sum:
    """A model that adds the new values of each step to its state."""

    inputs = tuple(
        to_agent_tensor(TensorSpec(name=n, dtype="float32", shape=("N", s)))
        for n, s in (("x", "T"), ("h", 1))
    )
    outputs = ()
    version = "0"

    def run(self, inputs):
        return {"h_out": inputs["h"] + inputs["x"][:, -100:].sum(axis=1, keepdims=True)}


def test_a_file_is_a_sequence_of_steps_with_the_values_before_each(streams):
    found = opened(streams, samples=130, step=100)

    rows = read_column(found.samples.columns[0])
    assert rows.shape == (5, 130)
    a, b = (read_wav(streams / f"{name}.wav") for name in "ab")
    np.testing.assert_array_equal(rows[0], np.concatenate([np.zeros(30), a[:100]]))
    np.testing.assert_array_equal(rows[1], a[70:200])
    np.testing.assert_array_equal(rows[3], np.concatenate([np.zeros(30), b[:100]]))
    assert read_column(found.samples.sequence).tolist() == [0, 0, 0, 1, 1]
    assert read_column(found.samples.label).tolist() == [0, 1, 0, 0, 1]
    assert found.groups.tolist() == [0, 0, 0, 1, 1]


def test_the_state_is_carried_along_each_file(streams):
    found = opened(streams, samples=130, step=100)

    states = [outputs["h_out"].item() for _, outputs in iter_runs(found.samples, Sum(), 1)]

    a, b = (read_wav(streams / f"{name}.wav") for name in "ab")
    ends = [a[:100], a[:200], a[:300], b[:100], b[:200]]
    np.testing.assert_allclose(states, [part.sum() for part in ends], rtol=1e-4, atol=1e-4)


def test_the_model_gives_the_size_of_a_step_and_the_last_number_may_be_one_too_many(streams):
    (streams / "a.txt").write_text("0\n1\n0\n1\n")

    found = opened(streams, 100, step=100)

    assert read_column(found.samples.columns[0]).shape == (5, 100)
    assert read_column(found.samples.label).tolist() == [0, 1, 0, 0, 1]


def test_without_numbers_the_target_of_a_file_is_that_of_its_steps(tmp_path):
    for label, (name, count) in enumerate((("a", 350), ("b", 200))):
        save(tmp_path / "data" / str(label) / f"{name}.wav", count, count)

    found = opened(tmp_path / "data", step=100)

    assert read_column(found.samples.label).tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ("0 1", r"a\.txt: has 2 numbers, but the file has 3 steps"),
        ("0 x 1", r"a\.txt: number 2: 'x' is not a number"),
        (None, r"a\.txt: cannot be read"),
    ],
)
def test_wrong_numbers_are_named(streams, numbers, complaint):
    if numbers is None:
        (streams / "a.txt").unlink()
    else:
        (streams / "a.txt").write_text(numbers)

    with pytest.raises(UserError, match=complaint):
        opened(streams, step=100)


def test_a_file_shorter_than_a_step_and_a_step_longer_than_a_sample_are_refused(streams):
    with pytest.raises(UserError, match=r"b\.wav: 200 values are fewer than a step of 300"):
        opened(streams, step=300)
    with pytest.raises(UserError, match="step: 100 is more than the 80 values of a sample"):
        opened(streams, 80, step=100)


def test_a_model_that_takes_no_random_inputs_is_timed_on_its_streams(streams):
    text = (
        "g (float[batch,T] x, float[batch,3] h) => (float[batch,3] y, float[batch,3] h_out) "
        "{ a = MatMul(x, w) h_out = Add(a, h) y = Tanh(h_out) }"
    )
    find_named(streams.parent, model(streams.parent, text, weights={"w": normal(130, 3)}))
    (streams.parent / "edgekit.toml").write_text(
        '[model]\npath = "model.onnx"\n[model.inputs.h]\nfrom = "h_out"\n'
        "[data.audio]\nsamples = 130\nstep = 100\n"
    )

    done = edgekit(
        "bench", streams.parent / "model.onnx", "local", "-C", streams.parent,
        "--eval", "data", "--metric", "top1",
    )  # fmt: skip

    assert done.code == 0, done.err
    assert "/5)" in done.out, "five steps are scored"


def test_other_numbers_are_read_again(streams):
    first = opened(streams, step=100)
    (streams / "b.txt").write_text("1 1")

    second = opened(streams, step=100)

    assert first.digest != second.digest
    assert read_column(second.samples.label).tolist() == [0, 1, 0, 1, 1]
