"""Which channels, heads and neurons of a graph can go together, and what cannot.

Each position of each axis of each value has an atom (``atoms``); operators say which atoms are the
same (``rules``); what stays free in the end is a group: the smallest thing that can go, wherever
it occurs. Source: Fang et al. 2023, "DepGraph: Towards Any Structural Pruning", for the idea that
dependencies alone decide; here they are found position by position, on an exported graph.
"""

from __future__ import annotations

from edgekit.graphs.channels.finding import find_channels
from edgekit.graphs.channels.groups import Channels, Family, Fixed, Group, Kind, Place

__all__ = ["Channels", "Family", "Fixed", "Group", "Kind", "Place", "find_channels"]
