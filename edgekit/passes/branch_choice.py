"""What it costs the outputs to leave out a residual layer, and what it saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto

from edgekit.graphs.branches import Branch, without
from edgekit.graphs.divergence import Reference
from edgekit.progress import Tick


@dataclass(frozen=True, kw_only=True)
class BranchOption:
    """A residual layer that could go.

    ``macs`` are the multiply-accumulates that go with it, ``damage`` the divergence of the outputs
    when it alone is left out and nothing is refitted; infinite where they are not finite then.
    """

    branch: Branch
    macs: int
    damage: float


def branch_options(
    proto: ModelProto, found: Sequence[Branch], reference: Reference, tick: Tick
) -> list[BranchOption]:
    """Each branch with what leaving it out saves and does, the cheapest for its savings first.

    Source: Veit et al. 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow
    Networks", for leaving out single layers of a trained network.

    Args:
        proto: the model that they were found in; not changed.
        found: its branches.
        reference: the model's outputs on held-out samples.
        tick: told how many branches are done.
    """
    options = []
    for number, branch in enumerate(found):
        tick("residual layers", number, len(found))
        damage = reference.divergence(without(proto, [branch]))
        options.append(BranchOption(branch=branch, macs=branch.macs, damage=damage))
    return sorted(options, key=lambda option: option.damage / max(option.macs, 1))
