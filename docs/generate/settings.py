"""Pages of edgekit.toml, app.toml and device profiles: a table of fields for every table."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.generate.markdown import make_page, make_table, to_markdown
from edgekit.config.profile import DeviceProfile
from edgekit.config.project import Project
from edgekit.packaging.app_settings import AppSettings

NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any value"}

PROJECT = """
`edgekit.toml` in the folder of a project holds what a command would otherwise be told each time.
`edgekit init` writes it after a look at the model and the data. Options of a command override it.
Paths are relative to the folder of the file. A key that is not listed here is refused, with the
nearest one that is.

```toml
[model]
path = "model.onnx"
[data]
calibration = "calib.npz"     # a few hundred samples; labels are not used
evaluation = "eval.npz"       # labeled samples that the model has not seen
metric = "top1"
[data.preprocess]             # for float inputs: (x * scale - mean) / std, then the layout
mean = 127.5
std = 127.5
layout = "NCHW"               # the layout that the model wants; the data are NHWC
[gate]
max_drop_points = 1.0         # instead of the limit of the device
[build]
device = "tablet"
```
"""

PROFILE = """
A device profile is one TOML file: hardware, runtimes and budget of one kind of device. `edgekit
devices show NAME` prints one that comes with edgekit, `edgekit devices check FILE` lists every
error of your own at once. [Write a device profile](../how-to/device-profile.md) tells where the
figures come from; [Devices](devices.md) shows those that exist.
"""


APP = """
`app.toml` in an app folder describes the app that `edgekit package --app DIR` packages. `edgekit
app new` writes it from a template. Paths are relative to the folder of the file. A key that is not
listed here is refused, with the nearest one that is. [Package an app](../how-to/apps.md) shows all
steps.

```toml
schema = 1
name = "ward-eye"
version = "1.0.0"
title = "Ward eye"
input = "image"
entry = "app:answer"          # def answer(models, sample) in app.py
[models]
main = "../build/tablet"      # the folder that "edgekit build" wrote
[ui]
notice = "Not a medical device."
[permissions]
camera = true
```
"""


def render_project() -> str:
    """Render the page of edgekit.toml."""
    return make_page("edgekit.toml", PROJECT, *_iter_tables(Project, ""))


def render_profile() -> str:
    """Render the page of device profiles."""
    top = "## Top of the file\n\n" + _make_field_table(DeviceProfile)
    return make_page("Device profile", PROFILE, top, *_iter_tables(DeviceProfile, ""))


def render_app() -> str:
    """Render the page of app.toml."""
    top = "## Top of the file\n\n" + _make_field_table(AppSettings)
    return make_page("app.toml", APP, top, *_iter_tables(AppSettings, ""))


def _iter_tables(kind: type[BaseModel], above: str) -> Iterator[str]:
    """Iterate over the sections of the tables within a table, outer ones first."""
    for name, field in kind.model_fields.items():
        table = find_table(field.annotation)
        if table is None:
            continue
        path = f"{above}{field.alias or name}{'.NAME' if is_mapping(field.annotation) else ''}"
        text = _drop_table_name(to_markdown(table.__doc__))
        yield f"## [{path}]\n\n{text}\n\n{_make_field_table(table)}"
        yield from _iter_tables(table, f"{path}.")


def _drop_table_name(text: str) -> str:
    """Return a description without the name of its table, which is the heading."""
    rest = re.sub(r"^`\[.*?\]`: ", "", text)
    return rest[:1].upper() + rest[1:]


def _make_field_table(kind: type[BaseModel]) -> str:
    meanings = read_attribute_docstrings(kind)
    rows = [
        [
            f"`{field.alias or name}`",
            describe_type(field),
            describe_default(field),
            to_markdown(meanings.get(name, "")),
        ]
        for name, field in kind.model_fields.items()
        if find_table(field.annotation) is None
    ]
    return make_table(["key", "value", "default", "meaning"], rows) if rows else ""


def read_attribute_docstrings(kind: type[BaseModel]) -> dict[str, str]:
    """Read the strings that follow the fields of a class in its source, by name of the field."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: str(text.value.value)
        for field, text in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def find_table(hint: object) -> type[BaseModel] | None:
    """Return the table that a field holds, alone, optional or by name; None for a plain value."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint
    return next((t for t in map(find_table, get_args(hint)) if t), None)


def is_mapping(hint: object) -> bool:
    """Return whether a field holds one table for each name."""
    return get_origin(hint) is dict


def describe_default(field: FieldInfo) -> str:
    """Describe the default of a field, as it would be written in TOML."""
    if field.is_required():
        return "required"
    value = field.default
    if value is None or value in ({}, ()):
        return "-"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "empty" if value == "" else f"`{value}`"


def describe_type(field: FieldInfo) -> str:
    """Describe the values of a field."""
    return _add_bounds(_describe(field.annotation), field.metadata)


def _describe(hint: object) -> str:
    args = get_args(hint)
    if get_origin(hint) is Annotated:
        return _add_bounds(_describe(args[0]), args[1:])
    if get_origin(hint) is Literal:
        return _join([f"`{value}`" for value in args])
    if get_origin(hint) in (Union, types.UnionType):
        return _join(
            list(dict.fromkeys(_describe(each) for each in args if each is not type(None)))
        )
    if get_origin(hint) is tuple:
        return f"list of: {_describe(args[0])}"
    if get_origin(hint) is list:
        return "list"
    if get_origin(hint) is dict:
        return f"table of: {_describe(args[1])}"
    return NAMES[hint]  # type: ignore[index]


def _join(words: list[str]) -> str:
    """Join alternatives; an integer is a number too."""
    if "number" in words:
        words = [word for word in words if word != "whole number"]
    return " or ".join([", ".join(words[:-1]), words[-1]]) if words[1:] else words[0]


def _add_bounds(text: str, metadata: object) -> str:
    bounds = []
    for each in metadata if isinstance(metadata, (list, tuple)) else ():
        for part in each.metadata if isinstance(each, FieldInfo) else (each,):
            if isinstance(part, annotated_types.Ge):
                bounds.append(f"at least {part.ge}")
            if isinstance(part, annotated_types.Gt):
                bounds.append(f"above {part.gt}")
            if isinstance(part, annotated_types.Le):
                bounds.append(f"at most {part.le}")
    return f"{text}, {', '.join(bounds)}" if bounds else text
