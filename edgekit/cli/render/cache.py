"""Formatting of the cache's size as text for a terminal."""

from __future__ import annotations

from edgekit.cache.maintenance import Removal, Usage
from edgekit.reporting.text_tables import format_size, format_table


def format_usage(usage: Usage) -> str:
    """Format the folder and a line for each kind of entry."""
    if not usage.sections:
        return f"{usage.folder}: empty"
    rows = [["kind", "entries", "size"]]
    rows += [[s.name, f"{s.entries:,}", format_size(s.bytes)] for s in usage.sections]
    rows.append(["total", f"{sum(s.entries for s in usage.sections):,}", format_size(usage.bytes)])
    return f"{usage.folder}\n{format_table(rows)}"


def format_total(usage: Usage) -> str:
    """Format the total size."""
    return format_size(usage.bytes)


def format_removal(removal: Removal) -> str:
    """Format the removed entries and the remaining size."""
    left = sum(section.entries for section in removal.left.sections)
    return (
        f"{removal.left.folder}: {removal.entries:,} entries removed "
        f"({format_size(removal.bytes)}); "
        f"{left:,} left ({format_size(removal.left.bytes)})"
    )


def encode_usage(usage: Usage) -> dict[str, object]:
    """Return the size of the cache as plain data."""
    return {"folder": str(usage.folder), "bytes": usage.bytes, "sections": usage.sections}


def encode_removal(removal: Removal) -> dict[str, object]:
    """Return a removal as plain data."""
    return {
        "removed_entries": removal.entries,
        "removed_bytes": removal.bytes,
        "left": encode_usage(removal.left),
    }
