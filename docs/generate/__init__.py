"""Pages of the documentation that are written from the code; ``python -m docs.generate``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.generate import command_line, devices, layers, metrics, passes, settings

DOCS = Path(__file__).parents[1]

PAGES: dict[str, Callable[[], str]] = {
    "reference/cli.md": command_line.render,
    "reference/passes.md": passes.render,
    "reference/metrics.md": metrics.render,
    "reference/devices.md": devices.render,
    "reference/edgekit-toml.md": settings.render_project,
    "reference/app-toml.md": settings.render_app,
    "reference/device-profile.md": settings.render_profile,
    "development/layers.svg": layers.render,
}


def write_pages(folder: Path = DOCS) -> list[str]:
    """Write every generated page below a folder; return the names of those that changed."""
    changed = []
    for name, render in PAGES.items():
        path, text = folder / name, render()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            changed.append(name)
    return changed
