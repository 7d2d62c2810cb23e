"""Real models with weights of few bits and activations of eight, scored by the plain runtime."""

from __future__ import annotations

import pytest
import zoo as bench

from edgekit.evaluate import transfer_bytes
from edgekit.intake import Request, take_in
from edgekit.passes import step
from edgekit.recipe import Clean, QuantizeStatic, QuantizeWeights
from tests.end_to_end.test_zoo import plainly_scored
from tests.tiny import run_steps

pytestmark = pytest.mark.zoo


@pytest.mark.parametrize(
    ("name", "bits", "most_points", "least_ratio"),
    [
        ("ic-resnet8", 4, 1.0, 6.3),
        ("ic-resnet8", 3, 3.0, 8.5),
        ("kws-dscnn", 5, 1.0, 4.0),
    ],
)
def test_few_bits_travel_light_and_stay_accurate(
    zoo, tmp_path, monkeypatch, name, bits, most_points, least_ratio
):
    if not (zoo / name).is_dir():
        pytest.skip(f"{name} is not in {zoo}")
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    entry = bench.entries(zoo)[name]
    folder = bench.write_project(zoo, entry, tmp_path / name)
    intake = take_in(Request(folder=folder, device="tablet"))
    steps = [step(s) for s in (Clean(), QuantizeWeights(bits=bits), QuantizeStatic())]

    made = run_steps(steps, intake.model, tmp_path, intake.calibration.samples)

    before, n = plainly_scored(zoo, entry, intake.model.path)
    after, _ = plainly_scored(zoo, entry, made.path)
    assert 100 * (before - after) / n <= most_points
    assert intake.model.bytes / transfer_bytes(made.path.read_bytes()) >= least_ratio
