"""Real models with few-bit weights and 8-bit activations, scored by the plain runtime."""

from __future__ import annotations

import pytest

from edgekit.bundle.layer_report import read_layers
from edgekit.compression.pass_specs import build_step
from edgekit.compression.step_runner import run_step
from edgekit.pass_settings import Clean, QuantizeStatic, QuantizeWeights
from edgekit.pipeline.transfer_size import compute_transfer_bytes
from tests.builders.tiny import work
from tests.builders.zoo_projects import taken_in
from tests.end_to_end.test_zoo import count_correct

pytestmark = pytest.mark.zoo


@pytest.mark.parametrize(
    ("name", "bits", "most_points", "least_ratio"),
    [
        ("ic-resnet8", 4.0, 1.0, 7.0),
        ("ic-resnet8", 3.0, 3.0, 9.0),
        ("kws-dscnn", 4.0, 1.0, 6.0),
    ],
)
def test_few_bit_models_are_small_and_accurate(
    zoo, tmp_path, monkeypatch, name, bits, most_points, least_ratio
):
    entry, inputs = taken_in(zoo, tmp_path, monkeypatch, name)
    samples = inputs.calibration.samples
    clean = run_step(build_step(Clean()), inputs.model, work(tmp_path, samples))
    few = work(tmp_path, samples)
    light = run_step(build_step(QuantizeWeights(bits=bits)), clean, few)

    made = run_step(build_step(QuantizeStatic()), light, work(tmp_path, samples))

    layers = read_layers(few.scratch)
    spent = sum(c.bits * c.parameters for c in layers) / sum(c.parameters for c in layers)
    assert spent <= bits * 1.02
    assert inputs.model.bytes / compute_transfer_bytes(made.path.read_bytes()) >= least_ratio
    before, n = count_correct(zoo, entry, inputs.model.path)
    after, _ = count_correct(zoo, entry, made.path)
    assert 100 * (before - after) / n <= most_points
