"""Values of real models: those of the independent evaluation of the task entries."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime as ort
import pytest

from edgekit_agent.scoring import MetricOptions
from tests.conftest import BESIDE, found_or_skipped
from tests.metrics.tables import compute


@pytest.fixture(scope="module")
def tasks():
    """The folder of real tasks."""
    return found_or_skipped("EDGEKIT_TASKS", BESIDE / "tasks", "MANIFEST.toml")


def evaluate(tasks, entry):
    """Run the entry's own evaluation, which shares no code with edgekit."""
    command = [sys.executable, str(tasks / "eval.py"), str(tasks / entry), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def run_voice_detector(folder):
    """Return probabilities and labels [streams, frames]; the state is carried along a stream."""
    session = ort.InferenceSession(folder / "model.onnx")
    with np.load(folder / "eval.npz") as data:
        audio, labels = data["audio"].astype(np.float32) / 32768, data["label"]
    streams, frames = labels.shape
    context = np.zeros((streams, 64), np.float32)
    state = np.zeros((2, streams, 128), np.float32)
    found = []
    for number in range(frames):
        window = np.hstack([context, audio[:, number * 512 : (number + 1) * 512]])
        context = window[:, 512:]
        feeds = {"input": window, "state": state, "sr": np.array(16000)}
        probabilities, state = session.run(["output", "stateN"], feeds)
        found.append(probabilities)
    return np.stack(found, axis=1), labels


def run_speaker_embedding(folder):
    session = ort.InferenceSession(folder / "model.onnx")
    with np.load(folder / "eval.npz") as data:
        mels, labels, groups = data["x"].astype(np.float32), data["y"], data["group"]
    parts = [
        session.run(["embedding"], {"mels": mels[i : i + 16]})[0] for i in range(0, len(mels), 16)
    ]
    return np.concatenate(parts), labels, groups


@pytest.mark.zoo
def test_a_voice_detector_has_the_values_of_its_evaluation(tasks):
    expected = evaluate(tasks, "vad-silero-op15")
    probabilities, labels = run_voice_detector(tasks / "vad-silero-op15")
    options = MetricOptions(ignore=-1)
    assert expected["auc"] == pytest.approx(0.9815, abs=1e-4)
    for name in ("auc", "eer"):
        found = compute(name, probabilities, labels, options)
        assert found == pytest.approx(expected[name], abs=1e-6)


@pytest.mark.zoo
def test_a_speaker_embedding_has_the_values_of_its_evaluation(tasks):
    expected = evaluate(tasks, "emb-speaker-ge2e")
    vectors, labels, groups = run_speaker_embedding(tasks / "emb-speaker-ge2e")
    for name in ("auc", "eer"):
        found = compute(f"pairs-{name}", vectors, labels, groups=groups)
        assert found == pytest.approx(expected[name], abs=1e-6)
