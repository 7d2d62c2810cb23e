"""Cost and savings of removing a residual branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto

from edgekit.compression.output_divergence import Reference
from edgekit.compression.pruning.residual_branches import Branch, remove_branches
from edgekit.progress import Tick


@dataclass(frozen=True, kw_only=True)
class BranchOption:
    """Residual branch that could be removed.

    ``macs`` are its multiply-accumulates. ``damage`` is the divergence of the outputs when it alone
    is removed and nothing is refitted; infinite where the outputs are then not finite.
    """

    branch: Branch
    macs: int
    damage: float


def rank_branches(
    proto: ModelProto, found: Sequence[Branch], reference: Reference, tick: Tick
) -> list[BranchOption]:
    """Measure the savings and the damage of removing each branch, least damage per saving first.

    Source: Veit et al. 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow
    Networks", for removing single layers of a trained network.

    Args:
        proto: the model of the branches; not changed.
        found: the branches.
        reference: the model's outputs on held-out samples.
        tick: called with the number of branches done.
    """
    options = []
    for number, branch in enumerate(found):
        tick("residual layers", number, len(found))
        damage = reference.divergence(remove_branches(proto, [branch]))
        options.append(BranchOption(branch=branch, macs=branch.macs, damage=damage))
    return sorted(options, key=lambda option: option.damage / max(option.macs, 1))
