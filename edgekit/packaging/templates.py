"""Templates of app folders, and new app folders that are written from them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from edgekit.bundle.bundle_file import Bundle
from edgekit.config.output_folders import create_folder
from edgekit.config.shipped_files import get_shipped_folder
from edgekit.errors import UserError, did_you_mean
from edgekit.packaging.app_settings import APP_FILE, InputKind, check_name
from edgekit.packaging.bundle_facts import get_answer, get_input_kind, list_form_fields

# The kind of answer that the code of a template reads; the others take any.
_ANSWERS = {"image-classifier": "class", "detector": "boxes"}
TEMPLATE_INPUTS: dict[str, InputKind] = {
    "image-classifier": "image",
    "detector": "image",
    "audio": "audio",
    "text": "text",
    "form": "form",
    "folder-watch": "folder",
}
_NOUNS = {
    "image": "an image",
    "audio": "a sound",
    "text": "a text",
    "form": "a row of numbers",
    "folder": "files",
}
_LONGEST_NAME = 32


@dataclass(frozen=True, kw_only=True)
class NewApp:
    """An app folder that was written.

    Attributes:
        name: Name of the app.
        folder: The folder, as the caller named it.
        template: Name of the template.
        files: Files of the folder, relative to it.
        bundle: The bundle that it names; ``None`` = none yet.
    """

    name: str
    folder: Path
    template: str
    files: tuple[str, ...]
    bundle: Path | None


def list_templates() -> tuple[str, ...]:
    """List the names of the templates."""
    folder = get_shipped_folder("targets/templates")
    return tuple(sorted(f.name for f in folder.iterdir() if (f / APP_FILE).is_file()))


def make_app(folder: Path, template: str, bundle: Bundle | None) -> NewApp:
    """Write a new app folder from a template, whole or not at all.

    Args:
        folder: The folder to write; its last part is the name of the app.
        template: Name of the template.
        bundle: Bundle of the model; ``None`` leaves its line for the user.

    Raises:
        UserError: The name, the template or the folder cannot be used, or the template is for
            other models.
    """
    name = folder.resolve().name
    check_name(name)
    source = find_template(template)
    if bundle is not None:
        check_template(template, bundle)
    with create_folder(folder) as scratch:
        files = tuple(_copy_files(source, scratch))
        text = (source / APP_FILE).read_text(encoding="utf-8")
        values = {
            "name": json.dumps(name),
            "title": json.dumps(name.replace("-", " ").capitalize()),
            "models": _format_models(folder, bundle),
            "fields": _format_fields(bundle),
        }
        (scratch / APP_FILE).write_text(Template(text).substitute(values), encoding="utf-8")
    return NewApp(
        name=name,
        folder=folder,
        template=template,
        files=files,
        bundle=bundle.path if bundle is not None else None,
    )


def find_template(name: str) -> Traversable:
    """Return the folder of a template.

    Raises:
        UserError: There is no such template.
    """
    known = list_templates()
    if name not in known:
        raise UserError(
            f"no template named {name!r}{did_you_mean(name, known)}",
            hint=f"known: {', '.join(known)}",
        )
    return get_shipped_folder("targets/templates") / name


def check_template(name: str, bundle: Bundle) -> None:
    """Check that an app of a template feeds a model, and reads its answers.

    Raises:
        UserError: It is for other inputs, or for another kind of answers.
    """
    kind, answer = get_input_kind(bundle), get_answer(bundle)
    fitting = find_fitting(kind, answer)
    hint = f"use --template {fitting}" if fitting else "leave out --template"
    wanted = TEMPLATE_INPUTS.get(name, kind)
    if wanted not in (kind, "folder"):
        raise UserError(
            f"the template {name} takes {_NOUNS[wanted]}, and the model of {bundle.path} takes "
            f"{_NOUNS[kind]}",
            hint=hint,
        )
    if _ANSWERS.get(name, answer) != answer:
        raise UserError(
            f"the template {name} is for models whose answer is {_ANSWERS[name]}; that of "
            f"{bundle.path} is {answer}",
            hint=hint,
        )


def find_fitting(kind: InputKind, answer: str) -> str:
    """Return the template for a kind of input and of answers; empty if there is none."""
    return next(
        (
            name
            for name, taken in TEMPLATE_INPUTS.items()
            if taken == kind and _ANSWERS.get(name, answer) == answer
        ),
        "",
    )


def make_app_name(text: str) -> str:
    """Return the name of an app that a text makes: lower-case letters, digits and hyphens."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_LONGEST_NAME].rstrip("-")
    return plain if plain[:1].isalpha() else f"app-{plain}"[:_LONGEST_NAME].rstrip("-")


def _copy_files(source: Traversable, target: Path) -> Iterator[str]:
    """Copy the files of a template, and yield their paths relative to the folder."""
    for entry in sorted(source.iterdir(), key=lambda e: e.name):
        if entry.is_file() and not entry.name.startswith("."):
            (target / entry.name).write_bytes(entry.read_bytes())
            yield entry.name


def _format_models(folder: Path, bundle: Bundle | None) -> str:
    if bundle is None:
        return '# The path of the folder that "edgekit build" wrote.\n# main = "../build/NAME"'
    path = os.path.relpath(bundle.path.resolve(), folder.resolve())
    return f"main = {json.dumps(path, ensure_ascii=False)}"


def _format_fields(bundle: Bundle | None) -> str:
    """Return the TOML of the form's fields, which the user can then give labels and units."""
    names = list_form_fields(bundle) if bundle is not None else ()
    tables = [f"\n[[ui.fields]]\nname = {json.dumps(n, ensure_ascii=False)}\n" for n in names]
    return "".join(tables)
