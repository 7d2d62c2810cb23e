"""Formatting of tables, sizes and accuracies as plain text."""

from __future__ import annotations

from collections.abc import Sequence

_MIB = 1 << 20


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Format rows as columns; the first is left-aligned, the others are right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def format_size(count: int | None) -> str:
    """Format a number of bytes: 812 B, 79.6 KiB, 14.2 MiB."""
    if count is None:
        return "-"
    if count < 1 << 10:
        return f"{count} B"
    return f"{count / (1 << 10):.1f} KiB" if count < _MIB else f"{count / _MIB:.1f} MiB"


def format_accuracy(correct: int, n: int) -> str:
    """Format an accuracy with its counts: 98.87 % (788/797)."""
    return f"{100 * correct / n:.2f} % ({correct}/{n})" if n else f"- ({correct}/{n})"
