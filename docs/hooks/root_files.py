"""Pages that show a file outside of docs/, with links that lead to the same files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Page of each file at the top of the repository that the site shows.
SHOWN = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "development/contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "development/benchmarks.md",
}
_LINK = re.compile(r"\[([^\]\n]+)\]\(([^)\s]+)\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:  # noqa: ANN401
    """Return the text of a page; called by MkDocs for each page."""
    shown = {target: source for source, target in SHOWN.items()}
    source = shown.get(page.file.src_uri)
    return read_file(source, page.file.src_uri) if source else markdown


def read_file(source: str, page: str) -> str:
    """Read a file of the repository, with its links as seen from a page of the site."""
    text = (ROOT / source).read_text(encoding="utf-8")
    return _LINK.sub(lambda link: _move_link(link, source, page), text)


def _move_link(link: re.Match[str], source: str, page: str) -> str:
    """Return a link as seen from the page; a link to a file that the site lacks becomes text."""
    text, target = link.groups()
    if "://" in target or target.startswith("#"):
        return link.group()
    path, mark, anchor = target.partition("#")
    there = (ROOT / source).parent / path
    name = os.path.relpath(there.resolve(), ROOT)
    found = DOCS / SHOWN[name] if name in SHOWN else there.resolve()
    if not found.is_relative_to(DOCS):
        return text
    return f"[{text}]({os.path.relpath(found, (DOCS / page).parent)}{mark}{anchor})"
