"""A real detector on images of COCO: from edgekit.toml to mAP, as its eval.py computes it."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from edgekit.config.project import load_project
from edgekit.data.dataset import open_dataset
from edgekit.metrics.metric import Table
from edgekit.metrics.registry import get_metric
from edgekit.model import Signature, TensorSpec
from edgekit_agent.measure.feeds import iter_batches
from edgekit_agent.metrics import ScoredSample, load_statistic
from edgekit_agent.postprocess import postprocess
from edgekit_agent.runtimes import Tensor
from edgekit_agent.scoring import MetricOptions, Postprocess
from tests.builders.metrics.values import run_task

SETTINGS = """
[data.preprocess]
resize_mode = "letterbox"
size = [416, 416]
pad = 114
pad_position = "corner"
order = "BGR"
layout = "NCHW"
"""


@pytest.mark.zoo
# eval.py leaves files open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_detector_from_images_to_map(tmp_path):
    task = run_task("det-yolox-nano")
    (tmp_path / "edgekit.toml").write_text(SETTINGS)
    spec = TensorSpec(name="images", dtype="float32", shape=(1, 3, 416, 416))
    dataset = open_dataset(
        "eval",
        Signature(inputs=(spec,), outputs=()),
        folder=task.folder,
        cache=tmp_path,
        settings=load_project(tmp_path).data.preprocess,
        targets="required",
    )

    session = onnxruntime.InferenceSession(str(task.folder / "model.onnx"))
    batches = iter_batches(dataset.samples, [Tensor("images", "float32", spec.shape)], 1)
    for batch, call in zip(batches, task.calls[:4], strict=False):
        np.testing.assert_allclose(session.run(None, batch.inputs)[0], call[0], atol=1e-4)

    compute = load_statistic("map")
    settings = Postprocess("yolox", size=(416, 416))
    rows = []
    for number, (call, targets) in enumerate(zip(task.calls, dataset.read_targets(), strict=True)):
        found = postprocess({"output": call[0][0]}, targets, settings)
        rows.append(compute(ScoredSample(number, found, targets, {}), MetricOptions()))
    table = Table(rows=tuple(rows))
    for name in ("map", "map50"):
        metric = get_metric(name)
        value = metric.compute_value(table, MetricOptions())
        assert value == pytest.approx(task.values[name], abs=1e-6)
        assert metric.compute_trivial(dataset.read_targets, MetricOptions()) < 0.01
    assert len(metric.compute_classes(table, MetricOptions())) == len(
        {int(box[4]) for targets in dataset.read_targets() for box in targets["y"]}
    )
