"""Layer reports of passes are read back unchanged, or refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgekit.bundle.layer_report import (
    LAYERS,
    LayerCost,
    prepend_remarks,
    read_layers,
    write_layers,
)
from edgekit.errors import PassError

COST = LayerCost(layer="conv/1", op="Conv", parameters=432, bits=3.7, width=4, kl=0.01, bytes=212)


def test_a_layer_report_is_read_back_unchanged(tmp_path):
    costs = (COST, replace(COST, layer="fc", op="Gemm", kl=0.0, bits=8.0, width=32))
    write_layers(tmp_path, costs)

    assert read_layers(tmp_path) == costs


def test_a_layer_report_without_zeros_is_read_as_having_none(tmp_path):
    write_layers(tmp_path, (replace(COST, zeros=0.5),))
    facts = json.loads((tmp_path / LAYERS).read_text())
    assert facts[0].pop("zeros") == 0.5
    (tmp_path / LAYERS).write_text(json.dumps(facts))

    assert read_layers(tmp_path) == (COST,)


def test_a_pass_that_leaves_no_record_has_none(tmp_path):
    assert read_layers(tmp_path) == ()


@pytest.mark.parametrize("damage", ["", "{}", '[{"layer": "a"}]', '[{"lay', "[1]"])
def test_a_damaged_record_is_the_fault_of_the_pass(tmp_path, damage):
    (tmp_path / LAYERS).write_text(damage)

    with pytest.raises(PassError, match=r"layers\.json: not a valid layer report"):
        read_layers(tmp_path)


@pytest.mark.parametrize("change", [{"kl": float("nan")}, {"bits": float("inf")}, {"bytes": -1}])
def test_an_impossible_value_is_named_with_its_layer_and_nothing_is_written(tmp_path, change):
    with pytest.raises(PassError, match="layer conv/1: not a valid layer cost"):
        write_layers(tmp_path, [COST, replace(COST, **change)])
    assert not (tmp_path / LAYERS).exists()


def test_what_an_earlier_step_noted_of_a_layer_stays_with_it():
    pruned = [replace(COST, note="64 -> 48 channels"), replace(COST, layer="gone", note="2 left")]
    later = [replace(COST, note="rank 8 of 16"), replace(COST, layer="other")]

    found = prepend_remarks(later, pruned)

    assert [c.note for c in found] == ["64 -> 48 channels, rank 8 of 16", ""]
    assert prepend_remarks((), pruned) == ()
    sparse = replace(COST, zeros=0.52)
    assert (sparse.remarks, prepend_remarks([COST], [sparse])[0].remarks) == (
        "52 % zeros",
        "52 % zeros",
    )
