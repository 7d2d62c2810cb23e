"""Markdown of generated pages: the note at the top, tables, and text of docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence

NOTE = "<!-- Written by `python -m docs.generate`; do not edit. -->"


def make_page(title: str, *parts: str) -> str:
    """Return a page with its title, the note that it is generated, and its parts."""
    return "\n\n".join([f"# {title}", NOTE, *(part.strip() for part in parts if part)]) + "\n"


def make_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_escape(cell) for cell in line) + " |" for line in lines)


def _escape(cell: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\|", " ".join(cell.split()))


def to_markdown(docstring: str | None) -> str:
    """Return a docstring as Markdown: double backquotes become single ones."""
    return inspect.cleandoc(docstring or "").replace("``", "`")
