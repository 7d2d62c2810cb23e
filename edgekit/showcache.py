"""Formatting of the cache's size as text for a terminal."""

from __future__ import annotations

from edgekit.tables import size, table
from edgekit.upkeep import Removal, Usage


def used(usage: Usage) -> str:
    """Format the folder and a line for each kind of entry."""
    if not usage.sections:
        return f"{usage.folder}: empty"
    rows = [["kind", "entries", "size"]]
    rows += [[s.name, f"{s.entries:,}", size(s.bytes)] for s in usage.sections]
    rows.append(["total", f"{sum(s.entries for s in usage.sections):,}", size(usage.bytes)])
    return f"{usage.folder}\n{table(rows)}"


def total(usage: Usage) -> str:
    """Format the total size."""
    return size(usage.bytes)


def removed(removal: Removal) -> str:
    """Format the removed entries and the remaining size."""
    left = sum(section.entries for section in removal.left.sections)
    return (
        f"{removal.left.folder}: {removal.entries:,} entries removed ({size(removal.bytes)}); "
        f"{left:,} left ({size(removal.left.bytes)})"
    )


def usage_facts(usage: Usage) -> dict[str, object]:
    """Return the size of the cache as plain data."""
    return {"folder": str(usage.folder), "bytes": usage.bytes, "sections": usage.sections}


def removal_facts(removal: Removal) -> dict[str, object]:
    """Return a removal as plain data."""
    return {
        "removed_entries": removal.entries,
        "removed_bytes": removal.bytes,
        "left": usage_facts(removal.left),
    }
