"""Chosen samples are run as in the whole split, also as steps of a sequence."""

from __future__ import annotations

import numpy as np

from edgekit.config.profile import get_runtime
from edgekit.config.project import load_project
from edgekit.conversion.open_model import read_model
from edgekit.data.dataset import open_dataset
from edgekit.data.input_settings import build_feeding
from edgekit.data.lengths import iter_own_rows
from edgekit.data.targets import iter_targets
from edgekit.model import Signature, TensorSpec
from edgekit.pipeline.examples.sample_runs import copy_samples, list_rows
from edgekit_agent.measure.feeds import iter_runs
from edgekit_agent.runtimes import import_runtime
from tests.builders.metrics.projects import PROJECTS


def test_a_step_of_a_stream_is_run_after_the_steps_before_it(tmp_path):
    PROJECTS["stream"](tmp_path)
    model = read_model(tmp_path / "model.onnx")
    project = load_project(tmp_path)
    feeding = build_feeding(model.signature, project.model.inputs, dims={}, folder=tmp_path)
    samples = open_dataset(
        *("eval.npz", model.signature),
        folder=tmp_path,
        cache=tmp_path / "cache",
        feeding=feeding,
        targets="required",
    ).samples
    loaded = import_runtime(get_runtime(model))(str(model.path), 1)
    whole = np.concatenate([out["y"] for _, out in iter_runs(samples, loaded, 1)])
    labels = [targets["y"] for targets in iter_targets(samples)]
    folder = tmp_path / "copies"
    folder.mkdir()
    numbers = [60, 0, 27, 61]

    rows = list_rows(samples, numbers)
    copied = copy_samples(samples, rows, folder)

    assert [len(each) for each in rows] == [11, 1, 3, 12], "streams have 25 frames"
    again = np.concatenate([out["y"] for _, out in iter_runs(copied.samples, loaded, 1)])
    assert np.array_equal(again[list(copied.places)], whole[numbers])
    found = [targets["y"] for targets in iter_targets(copied.samples)]
    assert [int(found[place]) for place in copied.places] == [int(labels[n]) for n in numbers]


def test_samples_of_their_own_sizes_keep_them(tmp_path):
    rows = np.arange(4 * 6 * 2, dtype=np.float32).reshape(4, 6, 2)
    lengths = np.array([6, 2, 5, 3])
    np.savez(tmp_path / "eval.npz", x=rows, x_length=lengths, label=np.arange(4))
    spec = TensorSpec(name="x", dtype="float32", shape=("N", "T", 2))
    samples = open_dataset(
        *("eval.npz", Signature(inputs=(spec,), outputs=())),
        folder=tmp_path,
        cache=tmp_path / "cache",
        targets="required",
    ).samples
    folder = tmp_path / "copies"
    folder.mkdir()

    copied = copy_samples(samples, list_rows(samples, [3, 0]), folder).samples

    found = [each["x"] for each in iter_own_rows(copied.columns, copied)]
    assert np.array_equal(found[0], rows[3, :3])
    assert np.array_equal(found[1], rows[0])
    assert [int(targets["y"]) for targets in iter_targets(copied)] == [3, 0]
