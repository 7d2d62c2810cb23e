"""Dependency groups: channels, heads and neurons that can only be removed together.

Each position of each axis of each value has an atom (``atoms``). Operators unify atoms (``rules``).
An atom that stays free is a group: the smallest set of positions that can be removed, wherever they
occur.

Source: Fang et al. 2023, "DepGraph: Towards Any Structural Pruning", for the idea that dependencies
alone decide. Here they are found position by position, on an exported graph.
"""

from __future__ import annotations

from edgekit.compression.pruning.dependency.groups import (
    Channels,
    Family,
    FixedPart,
    Group,
    Kind,
    TensorPart,
)
from edgekit.compression.pruning.dependency.search import find_channels

__all__ = ["Channels", "Family", "FixedPart", "Group", "Kind", "TensorPart", "find_channels"]
