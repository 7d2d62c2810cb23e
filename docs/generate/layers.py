"""Picture of the layers of the package, from the import rules in pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from xml.sax.saxutils import escape

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
WIDTH, HEIGHT, GAP = 880, 44, 12
STYLE = """
  text { font-family: sans-serif; fill: #1a237e; text-anchor: middle }
  rect { fill: #e8eaf6; stroke: #3f51b5 }
  .note { fill: #757575; text-anchor: start }
"""


def read_layers() -> list[list[str]]:
    """Read the layers, the highest first; each is a list of packages."""
    contracts = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(c for c in contracts["contracts"] if c["type"] == "layers")["layers"]
    return [re.split(r"\s*[|:]\s*", line) for line in layers]


def render() -> str:
    """Render the picture as SVG."""
    rows = read_layers()
    height = len(rows) * (HEIGHT + GAP) + 30
    boxes = [box for number, row in enumerate(rows) for box in _draw_row(number, row)]
    place = f'x="4" y="{height - 8}" font-size="13"'
    note = f'<text class="note" {place}>A package may import those below it.</text>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
    return "\n".join([head, f"<style>{STYLE}</style>", *boxes, note, "</svg>"]) + "\n"


def _draw_row(number: int, packages: list[str]) -> list[str]:
    step = (WIDTH + GAP) / len(packages)
    longest = max(len(name.removeprefix("edgekit.")) for name in packages)
    size = min(15, int((step - GAP) / (0.6 * longest)))  # a letter is about 0.6 of its height wide
    top = number * (HEIGHT + GAP) + 2
    return [
        f'<rect x="{index * step + 1:.0f}" y="{top}" width="{step - GAP - 2:.0f}" '
        f'height="{HEIGHT}" rx="4"/>'
        f'<text x="{index * step + (step - GAP) / 2:.0f}" y="{top + 27}" font-size="{size}">'
        f"{escape(name.removeprefix('edgekit.'))}</text>"
        for index, name in enumerate(packages)
    ]
