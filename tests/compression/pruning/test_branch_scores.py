"""Scores of residual branches by their effect on the outputs."""

from __future__ import annotations

from edgekit.compression.output_divergence import Reference
from edgekit.compression.pruning.branch_scores import rank_branches
from edgekit.compression.pruning.residual_branches import list_branches
from edgekit.progress import ignore_progress
from tests.builders.tiny import normal, proto, samples

NET = (
    "g (float[N,8] x) => (float[N,8] z) { a1 = MatMul(x, a) s1 = Add(x, a1) b1 = MatMul(s1, b) "
    "s2 = Add(b1, s1) z = MatMul(s2, c) }"
)


def test_the_residual_layer_with_the_least_effect_is_removed_first(tmp_path):
    weights = {"a": normal(8, 8, seed=1), "b": normal(8, 8, scale=1e-3), "c": normal(8, 8, seed=2)}
    whole = proto(NET, weights=weights)
    reference = Reference(whole, [samples(tmp_path, x=normal(16, 8, seed=3))])

    first, second = rank_branches(whole, list_branches(whole), reference, ignore_progress)

    assert (first.branch.add, second.branch.add) == ("s2", "s1")
    assert 0 < first.damage < 1e-3 < second.damage
    assert first.macs == second.macs > 0
