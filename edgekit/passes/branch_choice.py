"""What it does to the outputs to leave out each residual layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto

from edgekit.graphs.branches import Branch, without
from edgekit.graphs.divergence import Reference
from edgekit.progress import Tick


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A residual layer left out alone.

    ``macs`` is what that saves, ``damage`` the divergence of the outputs on held-out samples;
    infinite where they are not finite any more.
    """

    branch: Branch
    macs: int
    damage: float


def left_out(
    proto: ModelProto, found: Sequence[Branch], reference: Reference, tick: Tick
) -> tuple[LeftOut, ...]:
    """Leave out each residual layer in turn, and look at the outputs.

    Source: Veit et al. 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow
    Networks", section 4.1.

    Args:
        proto: the model that the branches were found in.
        found: the branches.
        reference: the outputs of the same model on held-out samples.
        tick: told how many were looked at.
    """
    options = []
    for number, branch in enumerate(found):
        tick("residual layers", number, len(found))
        damage = reference.divergence(without(proto, [branch]))
        options.append(LeftOut(branch=branch, macs=branch.macs, damage=damage))
    tick("residual layers", len(found), len(found))
    return tuple(options)
