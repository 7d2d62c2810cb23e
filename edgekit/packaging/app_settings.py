"""Settings of an app in app.toml: name, models, input, page and permissions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from edgekit.config.profile import validate
from edgekit.config.toml import read_toml
from edgekit.errors import UserError
from edgekit_agent.releases.homes import APP_NAME

APP_FILE = "app.toml"
# Module of the app folder that answers in browsers.
WEB_ENTRY = "answer.js"

InputKind = Literal["image", "audio", "form", "text", "folder"]
NAME_PATTERN = f"^{APP_NAME.pattern}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Entry = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,99}:[A-Za-z_][A-Za-z0-9_]{0,99}$")]


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    return text


Line = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_printable)]


def _check_requirement(text: str) -> str:
    try:
        parsed = Requirement(text)
    except InvalidRequirement as error:
        raise ValueError(f"not a requirement such as 'scipy>=1.11': {text!r}") from error
    if parsed.url is not None:
        raise ValueError(f"a name and versions, not an address: {text!r}")
    return text


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class FormField(_Table):
    """``[[ui.fields]]``: one field of the form, for ``input = "form"``.

    Its value goes into the row under its name. Without any, the form has the model's inputs.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """Name of the value in the row."""
    label: Line | None = None
    """Label in the form; the name unless given."""
    help: Annotated[str, Field(max_length=200)] = ""
    """Line below the field."""
    unit: Annotated[str, Field(max_length=20)] = ""
    """Unit behind the field, such as ``mmHg``."""
    min: float | None = None
    """Smallest number that the form takes."""
    max: float | None = None
    """Largest number that the form takes."""
    value: float | Annotated[str, Field(max_length=100)] | None = None
    """Value before the user changes it."""
    choices: Annotated[
        tuple[float | Annotated[str, Field(max_length=100)], ...], Field(max_length=500)
    ] = ()
    """Values to choose from, instead of any number."""
    optional: bool = False
    """Whether the field may stay empty; the row then lacks its value."""

    @model_validator(mode="after")
    def _check(self) -> FormField:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("'min' must not exceed 'max'")
        if self.choices and (self.min is not None or self.max is not None):
            raise ValueError("'choices' excludes 'min' and 'max'")
        if len(set(self.choices)) < len(self.choices):
            raise ValueError("'choices' has a value twice")
        if self.value is not None and self.choices and self.value not in self.choices:
            raise ValueError("'value' is none of the 'choices'")
        if isinstance(self.value, float):
            if self.min is not None and self.value < self.min:
                raise ValueError("'value' is smaller than 'min'")
            if self.max is not None and self.value > self.max:
                raise ValueError("'value' is larger than 'max'")
        return self


class UiTable(_Table):
    """``[ui]``: the page of the app."""

    title: Line | None = None
    """Heading of the page; the title of the app unless given."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2}(-[A-Z]{2})?$")] = "en"
    """Language of the page, as in ``en``."""
    intro: Annotated[str, Field(max_length=400)] = ""
    """Line below the heading; empty: none."""
    notice: Annotated[str, Field(max_length=400)] = "Not a medical device."
    """Line that the page always shows; empty: none."""
    accuracy: Annotated[str, Field(max_length=400)] = ""
    """Statement on the accuracy of the model; empty: that of the build, if it has one."""
    fields: Annotated[tuple[FormField, ...], Field(max_length=200)] = ()

    @model_validator(mode="after")
    def _check(self) -> UiTable:
        names = [field.name for field in self.fields]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two fields are named {twice!r}")
        return self


class PermissionsTable(_Table):
    """``[permissions]``: access that the app asks for, beyond its own folder."""

    camera: bool = False
    """Let the page use the camera."""
    microphone: bool = False
    """Let the page use the microphone."""
    memory_mib: Annotated[int, Field(ge=16, le=1 << 20)] | None = None
    """Memory that the app may use; the budget of the device unless given."""


class AppSettings(_Table):
    """Content of app.toml."""

    schema_: Literal[1] = Field(alias="schema")
    """Version of the file format."""
    name: Name
    """Name of the app and of its command: lower-case letters, digits and hyphens."""
    version: Annotated[str, Field(pattern=r"^[0-9][0-9A-Za-z.+~-]{0,31}$")]
    """Version of the app, such as ``1.0.2``."""
    title: Line | None = None
    """Name of the app in words; the name unless given."""
    input: InputKind
    """What the user gives: ``image``, ``audio``, ``form``, ``text``, or ``folder`` for new files
    of a folder."""
    entry: Entry | None = None
    """Function of the app folder that answers, as ``module:function``; without it the answer is
    that of the only model."""
    background: Entry | None = None
    """Function of the app folder that runs while the server runs, as ``module:function``."""
    requires: tuple[Annotated[str, AfterValidator(_check_requirement)], ...] = ()
    """Further Python packages of the entry, such as ``scipy>=1.11``; only wheels are packaged."""
    models: dict[Name, Annotated[str, Field(min_length=1)]] = {}
    """Models by name, each the path of a build folder or .edgekit file."""
    ui: UiTable = UiTable()
    permissions: PermissionsTable = PermissionsTable()

    @model_validator(mode="after")
    def _check(self) -> AppSettings:
        if len(self.models) > 1 and self.entry is None:
            raise ValueError("several models need an 'entry' that combines them")
        if self.ui.fields and self.input != "form":
            raise ValueError("'ui.fields' needs input = \"form\"")
        return self


def check_name(name: str) -> None:
    """Check that a text can be the name of an app.

    Raises:
        UserError: It cannot.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise UserError(
            f"{name!r} is not the name of an app",
            hint="a lower-case letter, then at most 31 lower-case letters, digits and hyphens",
        )


def load_app(folder: Path) -> AppSettings:
    """Load app.toml from a folder.

    Raises:
        UserError: The folder or the file is missing, or the file is wrong; lists every error with
            its path.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder", hint="create one: edgekit app new NAME")
    path = folder / APP_FILE
    if not path.is_file():
        raise UserError(
            f"{folder}: no {APP_FILE} in it", hint="an app folder: edgekit app new NAME BUNDLE"
        )
    settings = validate(AppSettings, read_toml(path), where=str(path))
    for key, function in (("entry", settings.entry), ("background", settings.background)):
        if function is not None:
            _check_module(function, folder, f"{path}: {key}")
    return settings


def _check_module(function: str, folder: Path, where: str) -> None:
    """Check that the module of a function is in the folder."""
    module = function.partition(":")[0].replace(".", "/")
    if not any((folder / name).is_file() for name in (f"{module}.py", f"{module}/__init__.py")):
        raise UserError(f"{where}: no {module}.py in {folder}")


def resolve_models(
    settings: AppSettings, folder: Path, given: Mapping[str, Path]
) -> dict[str, Path]:
    """Return the bundle of each model: those of app.toml, and those that the caller gives.

    Args:
        settings: The settings of the app.
        folder: The app folder, to which the paths of app.toml are relative.
        given: Bundles by name; they replace those of app.toml.

    Raises:
        UserError: There is no model.
    """
    found = {name: folder / path for name, path in settings.models.items()} | dict(given)
    if not found:
        raise UserError(
            f"{folder / APP_FILE}: models: none",
            hint="name a bundle: edgekit package BUNDLE --app DIR, or under [models]",
        )
    return found
