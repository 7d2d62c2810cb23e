"""A real factorized model, in float and in 8 bits, scored by the plain runtime."""

from __future__ import annotations

import pytest

from edgekit.compression.pass_specs import build_step
from edgekit.compression.step_runner import run_step
from edgekit.onnx_graph.cost import compute_cost
from edgekit.onnx_graph.io import load
from edgekit.pass_settings import LowRank, QuantizeStatic
from tests.builders.tiny import work
from tests.builders.zoo_projects import taken_in
from tests.end_to_end.test_zoo import count_correct

pytestmark = pytest.mark.zoo


def test_factorized_layers_stay_accurate_in_8_bits(zoo, tmp_path, monkeypatch):
    name = "ic-resnet8"
    entry, inputs = taken_in(zoo, tmp_path, monkeypatch, name)
    samples = inputs.calibration.samples

    thin = run_step(build_step(LowRank(keep=0.75)), inputs.model, work(tmp_path, samples))
    both = run_step(build_step(QuantizeStatic()), thin, work(tmp_path, samples))

    before, after = (compute_cost(load(m.path), {}) for m in (inputs.model, thin))
    assert after.parameters < 0.77 * before.parameters
    assert after.macs < before.macs
    right, n = count_correct(zoo, entry, inputs.model.path)
    floats, _ = count_correct(zoo, entry, thin.path)
    integers, _ = count_correct(zoo, entry, both.path)
    assert 100 * (right - floats) / n <= 6.0
    assert 100 * (floats - integers) / n <= 2.0
