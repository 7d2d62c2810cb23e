"""Parser of recipe steps: settings as text or TOML, validated by the types of the passes."""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter

from edgekit.compression.all_passes import find_pass, get_pass, list_pass_names
from edgekit.config.toml import read_toml
from edgekit.errors import UserError, did_you_mean
from edgekit.old_names import OLD_PASSES, OldNames
from edgekit.pass_settings import Bounds
from edgekit.recipe import Recipe, Step

_NAMES = {int: "a whole number", float: "a number", str: "text"}
# Exact types, except that a whole number is a number too.
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_TOML_HINT = (
    "a recipe is a name and [[step]] tables, each with pass = NAME and the settings of the pass"
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting of a pass: its allowed values in words, and its default."""

    name: str
    allowed: str
    default: Any

    def __str__(self) -> str:
        return f"{self.name}: {self.allowed} (default {format_value(self.default)})"


@dataclass(frozen=True, kw_only=True)
class PassFacts:
    """A row of the passes table for the user."""

    name: str
    summary: str
    needs_calibration: bool
    settings: tuple[Setting, ...]
    meaning: str
    plugin: str = ""  # distribution and version of the plugin that offers it


def describe_pass(name: str, *, old_names: OldNames | None = None) -> PassFacts:
    """Describe a pass and its settings.

    Args:
        name: Name of the pass; one of an earlier version is accepted.
        old_names: Collector of names of earlier versions.

    Raises:
        UserError: There is no such pass.
    """
    name = resolve_pass_name(name, old_names=old_names)
    spec = get_pass(name)
    return PassFacts(
        name=name,
        summary=spec.summary,
        needs_calibration=spec.needs_calibration,
        settings=list_settings(name),
        meaning=inspect.getdoc(spec.settings) or "",
        plugin=spec.plugin,
    )


def resolve_pass_name(name: str, *, where: str = "", old_names: OldNames | None = None) -> str:
    """Return the present name of a pass, which may be given by a name of an earlier version.

    Args:
        name: The given name.
        where: Start of an error message.
        old_names: Collector of names of earlier versions.

    Raises:
        UserError: There is no such pass; lists those that exist.
    """
    new = (old_names or OldNames()).resolve_pass(name)
    if find_pass(new) is not None:
        return new
    known = list_pass_names()
    near = did_you_mean(name, known, old=OLD_PASSES)
    raise UserError(f"{where}no pass named {name!r}{near}", hint=f"known: {', '.join(known)}")


def list_settings(name: str) -> tuple[Setting, ...]:
    """List the settings of a pass, in their order."""
    kind = get_pass(name).settings
    hints = _get_type_hints(kind)
    return tuple(
        Setting(name=f.name, allowed=_describe_type(hints[f.name]), default=_get_default(f))
        for f in dataclasses.fields(kind)
    )


def format_value(value: object) -> str:
    """Format a value as it is written on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ",".join(f"{k}:{format_value(v)}" for k, v in value.items()) or "none"
    if isinstance(value, (tuple, list)):
        pairs = all(isinstance(v, (tuple, list)) and len(v) == 2 for v in value)
        parts = (":".join(map(format_value, v)) if pairs else format_value(v) for v in value)
        return ",".join(parts) or "none"
    return "none" if value is None else str(value)


# ---------------------------------------------------------------- input of the user


def parse_settings(
    name: str, pairs: Sequence[str], *, where: str = "", old_names: OldNames | None = None
) -> Step:
    """Parse a step from ``key=value`` texts.

    Args:
        name: Name of the pass.
        pairs: The texts.
        where: Start of an error message.
        old_names: Collector of the names of earlier versions that the step uses.

    Raises:
        UserError: There is no such pass or setting, or a value is wrong; lists the allowed ones.
    """
    old_names = old_names or OldNames()
    name = resolve_pass_name(name, where=where, old_names=old_names)
    hints = _get_type_hints(get_pass(name).settings)
    plain: dict[str, object] = {}
    for pair in pairs:
        given, equals, text = pair.partition("=")
        if not equals:
            raise _make_setting_error(f"{where}{pair!r}: expected KEY=VALUE", name)
        key = old_names.resolve_setting(name, given)
        if key in plain:
            raise UserError(f"{where}{key}: given twice")
        plain[key] = _parse_text(hints[key], text) if key in hints else text
    return validate_step(name, plain, where=where)


def parse_step(text: str, *, old_names: OldNames | None = None) -> Step:
    """Parse a step from ``NAME`` or ``NAME:key=value,key=value``.

    A part without ``=`` continues the value before it: ``widths=conv1:4,conv2:3,bits=5``.

    Args:
        text: The step.
        old_names: Collector of the names of earlier versions that the step uses.

    Raises:
        UserError: As ``parse_settings``.
    """
    name, _, rest = text.partition(":")
    pairs: list[str] = []
    for part in rest.split(",") if rest else []:
        if "=" in part or not pairs:
            pairs.append(part)
        else:
            pairs[-1] += f",{part}"
    return parse_settings(name, pairs, where=f"--step {name}: ", old_names=old_names)


def check_step(step: Step, *, old_names: OldNames | None = None) -> Step:
    """Check that the pass of a step exists and has settings of this type.

    Args:
        step: The step; a name of an earlier version is replaced.
        old_names: Collector of the names of earlier versions that the step uses.

    Raises:
        UserError: It is no step, there is no such pass, or the settings are those of another one.
    """
    if not isinstance(step, Step):
        raise UserError(f"{step!r} is not a step", hint="give the name of a pass, or a Step")
    name = resolve_pass_name(step.name, old_names=old_names)
    kind = get_pass(name).settings
    if not isinstance(step.settings, kind):
        given = type(step.settings).__name__
        raise UserError(f"{name}: settings: must be of type {kind.__name__}, not {given}")
    return dataclasses.replace(step, name=name)


def make_recipe(steps: Sequence[Step]) -> Recipe:
    """Make a recipe that is named after its steps."""
    return Recipe(name="+".join(step.name for step in steps), steps=tuple(steps))


def read_recipe(path: Path, *, old_names: OldNames | None = None) -> Recipe:
    """Read a recipe from a TOML file.

    Args:
        path: The file.
        old_names: Collector of the names of earlier versions that the file uses.

    Raises:
        UserError: The file cannot be read or is not a recipe; names the step and the allowed
            values.
    """
    raw = read_toml(path, hint=_TOML_HINT)
    if unknown := sorted(set(raw) - {"name", "step"}):
        near = did_you_mean(unknown[0], ("name", "step"))
        raise UserError(f"{path}: {unknown[0]}: unknown key{near}", hint=_TOML_HINT)
    tables = raw.get("step")
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise UserError(f"{path}: no [[step]] table", hint=_TOML_HINT)
    recipe = make_recipe(
        [
            _read_step_table(table, f"{path}: step {number}: ", old_names)
            for number, table in enumerate(tables, 1)
        ]
    )
    name = raw.get("name", recipe.name)
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise UserError(f"{path}: name: must be one line of text, got {name!r}")
    return dataclasses.replace(recipe, name=name)


def _read_step_table(table: dict[str, object], where: str, old_names: OldNames | None) -> Step:
    name = table.get("pass")
    if not isinstance(name, str):
        raise UserError(
            f"{where}pass: missing or not a name", hint=f"known: {', '.join(list_pass_names())}"
        )
    plain = {key: value for key, value in table.items() if key != "pass"}
    return validate_step(name, plain, where=where, old_names=old_names)


def validate_step(
    name: str,
    plain: Mapping[str, object],
    *,
    where: str = "",
    old_names: OldNames | None = None,
) -> Step:
    """Validate the settings of a step, given as values of TOML.

    Args:
        name: Name of the pass.
        plain: Values by the name of the setting.
        where: Start of an error message.
        old_names: Collector of the names of earlier versions that the step uses.

    Raises:
        UserError: As ``parse_settings``.
    """
    old_names = old_names or OldNames()
    name = resolve_pass_name(name, where=where, old_names=old_names)
    spec = get_pass(name)
    hints = _get_type_hints(spec.settings)
    values: dict[str, Any] = {}
    for given, value in plain.items():
        key = old_names.resolve_setting(name, given)
        if key in values:
            raise UserError(f"{where}{key}: given twice")
        if key not in hints:
            said = f"{where}{key}: unknown setting of {name}{did_you_mean(key, hints)}"
            raise _make_setting_error(said, name)
        try:
            values[key] = _validate_value(hints[key], value)
        except ValueError as error:
            said = f"{where}{key}: must be {_describe_type(hints[key])}, got {value!r}"
            said += did_you_mean(value, _list_words(hints[key])) if isinstance(value, str) else ""
            raise _make_setting_error(said, name) from error
    return Step(name=name, version=spec.version, settings=spec.settings(**values))


def _make_setting_error(said: str, name: str) -> UserError:
    """Build the error for a wrong setting, with the list of the pass's settings."""
    known = [str(setting) for setting in list_settings(name)]
    hint = f"settings of {name}:" if known else f"{name} has no settings"
    return UserError(said, hint=hint, details=known)


# ---------------------------------------------------------------- types


def _get_type_hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _get_default(field: dataclasses.Field[Any]) -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _split_type(hint: Any) -> tuple[Any, tuple[Any, ...]]:  # noqa: ANN401 - types are values here
    """Split a type into origin and arguments; ``tuple[tuple[str, T], ...]`` counts as a table."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return typing.Union, args
    if origin is tuple and typing.get_origin(args[0]) is tuple:
        return dict, typing.get_args(args[0])
    return origin or hint, args


def _describe_type(hint: Any) -> str:  # noqa: ANN401
    origin, args = _split_type(hint)
    if origin is typing.Annotated:
        bounds = next((b for b in hint.__metadata__ if isinstance(b, Bounds)), None)
        return f"{_describe_type(args[0])}{f' {bounds}' if bounds else ''}"
    if origin is Literal:
        return f"one of {', '.join(map(format_value, args))}"
    if origin is typing.Union:
        return " or ".join("none" if a is type(None) else _describe_type(a) for a in args)
    if origin is dict:
        return f"NAME:VALUE,..., each value {_describe_type(args[1])}"
    if origin is tuple:
        return f"VALUE,..., each {_describe_type(args[0])}"
    return "true or false" if origin is bool else _NAMES.get(origin, str(origin))


def _list_words(hint: Any) -> list[str]:  # noqa: ANN401
    """List the values of a setting that has a fixed set of values."""
    origin, args = _split_type(hint)
    if origin is Literal:
        return [format_value(each) for each in args]
    return [word for arg in args for word in _list_words(arg)] if origin is typing.Union else []


def _parse_text(hint: Any, text: str) -> object:  # noqa: ANN401
    """Parse a text to the value that TOML would hold; return the text if it is not valid."""
    origin, args = _split_type(hint)
    if origin is typing.Annotated:
        return _parse_text(args[0], text)
    if origin is Literal:
        return next((a for a in args if format_value(a) == text), text)
    if origin is typing.Union:
        return None if text == "none" else _parse_text(args[0], text)
    if origin is dict:
        parts = (part.rpartition(":") for part in text.split(",") if part != "none" and part)
        return {key: _parse_text(args[1], value) for key, _, value in parts}
    if origin is tuple:
        return [_parse_text(args[0], part) for part in text.split(",") if part != "none" and part]
    if origin is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    return _parse_number(origin, text) if origin in (int, float) else text


def _parse_number(kind: type[int] | type[float], text: str) -> object:
    try:
        return kind(text)
    except ValueError:
        return text  # refused when its type is checked


def _validate_value(hint: Any, value: object) -> object:  # noqa: ANN401
    """Validate a value of TOML and convert it to the type of the setting.

    Raises:
        ValueError: The value is not of the type, or out of its bounds.
    """
    adapter: TypeAdapter[object] = TypeAdapter(hint, config=_STRICT)
    found = adapter.validate_python(_freeze_value(hint, value))
    if type(value) is float and type(found) is int:
        raise ValueError  # 7.0 equals the literal 7, but is no whole number
    return found


def _freeze_value(hint: Any, value: object) -> object:  # noqa: ANN401
    """Turn lists into tuples and tables into pairs, as settings must be hashable.

    Raises:
        ValueError: The setting is a table, and the value is not.
    """
    origin, args = _split_type(hint)
    if origin is typing.Union and value is not None:
        return _freeze_value(args[0], value)
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(k, str) and k for k in value):
            raise ValueError
        return value if typing.get_origin(hint) is dict else tuple(value.items())
    return tuple(value) if isinstance(value, list) else value
