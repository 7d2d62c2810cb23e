"""Every command chooses the bits of int8 weights by the same rule and notes the choice."""

from __future__ import annotations

import pytest

from edgekit.compression.pass_specs import build_step
from edgekit.compression.step_runner import run_checked
from edgekit.config import profile
from edgekit.config.profile import choose_weight_bits, load_profile
from edgekit.pass_settings import QuantizeDynamic, QuantizeStatic, QuantizeWeights
from edgekit.recipe import set_weight_bits
from tests.builders.tiny import model, normal, run, samples, work

VNNI, PLAIN = ("cpu", ["avx2", "avx512_vnni"]), ("cpu", ["avx2"])


@pytest.fixture
def machine(monkeypatch):
    def is_like(facts):
        monkeypatch.setattr(profile, "read_name_and_isa", lambda: facts)
        monkeypatch.setattr(profile.platform, "machine", lambda: "x86_64")

    return is_like


@pytest.mark.parametrize(
    ("facts", "device", "bits"),
    [
        (VNNI, None, 8),
        (PLAIN, None, 7),
        (VNNI, "raspberry-pi-5", 8),
        (PLAIN, "raspberry-pi-5", 7),
    ],
)
def test_the_device_and_this_machine_decide(machine, facts, device, bits):
    machine(facts)
    assert choose_weight_bits(load_profile(device) if device else None) == bits


@pytest.mark.parametrize("settings", [QuantizeStatic(), QuantizeDynamic(), QuantizeWeights()])
def test_automatic_bits_are_set_and_explicit_ones_are_kept(settings):
    assert set_weight_bits(build_step(settings), 8).settings.weight_bits == 8
    asked = build_step(type(settings)(weight_bits=7))
    assert set_weight_bits(asked, 8) == asked


@pytest.mark.parametrize(("facts", "bits"), [(VNNI, 8), (PLAIN, 7)])
@pytest.mark.parametrize("settings", [QuantizeStatic(), QuantizeDynamic()])
def test_a_pass_says_how_many_bits_its_weights_have(tmp_path, machine, settings, facts, bits):
    machine(facts)
    source = model(
        tmp_path,
        "g (float[N,8] x) => (float[N,6] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }",
        weights={"w": normal(8, 16), "v": normal(16, 6, seed=1)},
    )
    desk = work(tmp_path, samples(tmp_path, x=normal(72, 8, seed=2)))

    made = run_checked(build_step(settings), source, desk)

    assert len(run(made.model, x=normal(4, 8))) == 1
    assert [note for note in desk.notes if f"weights have {bits} bits" in note]
