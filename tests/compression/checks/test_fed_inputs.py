"""Inputs that the original and a compressed model are compared on."""

from __future__ import annotations

from dataclasses import replace

from edgekit.compression.checks.contract_inputs import iter_probes
from edgekit.data.input_settings import WHOLE
from tests.builders.tiny import model, normal, samples


def test_a_single_number_stays_one_when_other_inputs_are_cut(tmp_path):
    source = model(tmp_path, "g (float[N,T] x, float s) => (float[N,T] y) { y = Mul(x, s) }")
    given = samples(tmp_path, x=normal(8, 6), s=normal(8))
    rows, numbers = given.columns
    whole = replace(given, columns=(rows, replace(numbers, axis=WHOLE)))

    probes = list(iter_probes(source, whole, seed=0))

    assert {probe.feed["x"].shape for probe in probes} == {(1, 6), (1, 3)}
    assert {probe.feed["s"].shape for probe in probes} == {()}
