"""Real recurrent models: a speaker embedding, and voice activity inside branches of an If."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgekit.onnx_graph.io import iter_graphs, read_onnx
from tests.builders.tiny import apply, run, samples
from tests.conftest import BESIDE, found_or_skipped


@pytest.fixture(scope="module")
def tasks():
    """The folder of real tasks."""
    return found_or_skipped("EDGEKIT_TASKS", BESIDE / "tasks", "MANIFEST.toml")


def kinds(made):
    graph = onnx.load(str(made.path)).graph
    return [node.op_type for each in iter_graphs(graph) for node in each.node]


def test_a_speaker_embedding_stays_accurate(tmp_path, tasks):
    folder = tasks / "emb-speaker-ge2e"
    source = read_onnx(folder / "model.onnx")
    x = np.load(folder / "calib.npz")["x"].astype(np.float32)
    made = apply("quantize-dynamic", source, tmp_path, samples(tmp_path, mels=x[:32]))

    before, after = run(source, mels=x[32:])[0], run(made, mels=x[32:])[0]
    # 0.77 where the first layer's spectra are rounded to 8 bits.
    assert np.sqrt(np.square(after - before).sum() / np.square(before).sum()) < 0.12
    assert made.bytes < 0.3 * source.bytes
    assert kinds(made).count("DynamicQuantizeLSTM") + kinds(made).count("LSTM") == 3


def test_the_lstm_of_a_voice_detector_is_found_in_its_branches(tmp_path, tasks):
    source = read_onnx(tasks / "vad-silero-op15" / "model.onnx")
    made = apply("quantize-dynamic", source, tmp_path)
    stored = onnx.load(str(made.path)).graph.initializer
    integers = [tuple(t.dims) for t in stored if t.data_type == onnx.TensorProto.INT8]
    assert sum(int(np.prod(shape)) for shape in integers) >= 2 * 512 * 128

    rng = np.random.default_rng(0)
    state = np.zeros((2, 1, 128), np.float32)
    states = [state, state]
    for _ in range(30):
        frame = rng.normal(0, 0.05, (1, 576)).astype(np.float32)
        both = [
            run(each, input=frame, state=s, sr=np.array(16000))
            for each, s in zip((source, made), states, strict=True)
        ]
        states = [outputs[1] for outputs in both]
    assert abs(float(both[0][0][0, 0] - both[1][0][0, 0])) < 0.03
    error = np.square(states[0] - states[1]).sum() / np.square(states[0]).sum()
    assert np.sqrt(error) < 0.1
