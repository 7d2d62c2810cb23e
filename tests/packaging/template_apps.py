"""App folders of every template, each with a small model that suits it, and samples for them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.builders.apps import projects
from tests.builders.projects import edgekit

PROJECTS: dict[str, Callable[[Path], None]] = {
    "audio": projects.write_tones,
    "detector": projects.write_finder,
    "folder-watch": projects.write_colors,
    "form": projects.write_risks,
    "image-classifier": projects.write_colors,
    "text": projects.write_reviews,
}
MEDIA_TYPES = {
    "audio": "audio/wav",
    "detector": "image/png",
    "folder-watch": "image/png",
    "form": "application/json",
    "image-classifier": "image/png",
    "text": "text/plain",
}


@dataclass(frozen=True, kw_only=True)
class TemplateApp:
    """An app folder as ``edgekit app new`` writes it.

    Attributes:
        template: Name of the template, and of the app.
        project: Folder of the project.
        bundle: Folder of the model.
        folder: The app folder.
    """

    template: str
    project: Path
    bundle: Path
    folder: Path


def make_template_app(template: str, folder: Path) -> TemplateApp:
    """Build the model of a template, and write an app of the template for it."""
    project = folder / "project"
    project.mkdir()
    PROJECTS[template](project)
    bundle = projects.build_application(project)
    app = folder / template
    done = edgekit("app", "new", app, bundle, "--template", template)
    assert done.code == 0, done.err
    return TemplateApp(template=template, project=project, bundle=bundle, folder=app)


def read_samples(app: TemplateApp, most: int = 6) -> list[tuple[bytes, str | None]]:
    """Return bodies of requests, made of the evaluation data, each with the label it has there.

    The label of a row and of an image with boxes is ``None``.
    """
    data = app.project
    if app.template == "text":
        lines = [json.loads(line) for line in (data / "eval.jsonl").read_text().splitlines()]
        names = ("negative", "positive")
        return [(line["text"].encode(), names[line["label"]]) for line in lines[:most]]
    if app.template == "form":
        head, *rows = (line.split(",") for line in (data / "eval.csv").read_text().splitlines())
        values = [dict(zip(head[:-1], map(float, row[:-1]), strict=True)) for row in rows[:most]]
        return [(json.dumps(row).encode(), None) for row in values]
    paths = sorted(p for p in (data / "eval").rglob("*") if p.suffix in (".png", ".wav"))
    has_labels = app.template != "detector"
    chosen = paths[:: max(1, len(paths) // most)][:most]
    return [(path.read_bytes(), path.parent.name if has_labels else None) for path in chosen]


def draw_gray(level: int) -> bytes:
    """Return a PNG of one gray."""
    file = io.BytesIO()
    Image.fromarray(np.full((40, 50, 3), level, np.uint8)).save(file, "PNG")
    return file.getvalue()
