"""Check of the arguments of public functions, by the annotations of their parameters.

``check_arguments`` decorates a function. A rule beside the type of a parameter, as in
``Annotated[str, check_text]``, refuses values that the type allows; other types are checked by
``isinstance``. So a wrong argument is refused by its name before anything else happens.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

from edgekit.errors import ArgumentError, EdgekitError, did_you_mean

P = ParamSpec("P")
R = TypeVar("R")

# Refuses a wrong argument: takes its name and its value, and raises ArgumentError.
Rule = Callable[[str, Any], None]

_WORDS: dict[object, str] = {
    bool: "True or False",
    int: "a whole number",
    str: "text",
    Callable: "a function",
    Mapping: "a dict",
    Sequence: "a list",
}
_DAY_S = 86_400
_LONGEST = 80  # characters of a wrong value in a message
# Largest size of a dimension in every runtime.
_MOST = (1 << 31) - 1
_OPTION = re.compile(r"--[a-z]+(?:-[a-z]+)*")
# Options whose names differ from those of the arguments.
OPTION_NAMES = {"steps": "--step", "settings": "--set", "folder": "-C", "output": "-o"}


def check_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function so that it refuses wrong arguments by their names.

    Errors that name options of the command line get a note on the arguments of the function.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in _bind(signature, args, kwargs):
            if (hint := _get_hints(function).get(name)) is not None:
                check_argument(name, value, hint)
        try:
            return function(*args, **kwargs)
        except EdgekitError as error:
            _note_arguments(error, signature)
            raise

    return call


def check_argument(name: str, value: object, hint: Any) -> None:  # noqa: ANN401 - a type
    """Check that the type and the rules of a parameter allow a value.

    Raises:
        ArgumentError: They do not.
    """
    kinds = tuple(_iter_kinds(hint))
    if any(_is_plain(kind) and _is_instance(value, kind) for kind in kinds):
        return None
    for kind in kinds:
        if typing.get_origin(kind) is Annotated:
            rule: Rule = kind.__metadata__[0]
            return rule(name, value)
        if typing.get_origin(kind) is Literal:
            return check_choice(name, value, typing.get_args(kind))
    words = (_WORDS.get(typing.get_origin(kind) or kind) for kind in kinds)
    said = " or ".join(word for word in words if word) or "of the right type"
    raise make_error(name, value, f"is not {said}")


def _bind(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[tuple[str, object]]:
    """Return the given arguments by name; none if Python itself will refuse the call."""
    try:
        return list(signature.bind(*args, **kwargs).arguments.items())
    except TypeError:
        return []


@functools.cache
def _get_hints(function: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(function, include_extras=True)


def _iter_kinds(hint: Any) -> Iterator[Any]:  # noqa: ANN401
    """Yield the types that a union allows, or the type itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for each in typing.get_args(hint):
            yield from _iter_kinds(each)
    else:
        yield hint


def _is_plain(kind: Any) -> bool:  # noqa: ANN401
    return typing.get_origin(kind) not in (Annotated, Literal)


def _is_instance(value: object, kind: Any) -> bool:  # noqa: ANN401
    if kind is int:
        return type(value) is int
    return isinstance(value, typing.get_origin(kind) or kind)


def _note_arguments(error: EdgekitError, signature: inspect.Signature) -> None:
    """Add a note on the arguments that the options in the text of an error stand for."""
    if hasattr(error, "__notes__"):
        return  # of a function that this one calls
    arguments = {option: name for name, option in OPTION_NAMES.items()}
    for option in dict.fromkeys(_OPTION.findall(str(error))):
        name = arguments.get(option, option[2:].replace("-", "_"))
        if name in signature.parameters:
            error.add_note(f"in Python, {option} is the argument {name}")


def format_value(value: object) -> str:
    """Format a wrong value for a message, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def make_error(name: str, value: object, fault: str) -> ArgumentError:
    """Return the error for a wrong value of an argument."""
    return ArgumentError(name, f"{format_value(value)} {fault}")


# ---------------------------------------------------------------- rules


def check_text(name: str, value: object, *, what: str = "text") -> None:
    """Check that an argument is text that a file name, a host or a name could be.

    Raises:
        ArgumentError: It is no text, empty, not valid UTF-8, or has a NUL character.
    """
    if not isinstance(value, str):
        raise make_error(name, value, f"is not {what}")
    if not value:
        raise ArgumentError(name, f"empty text is not {what}")
    if "\0" in value:
        raise make_error(name, value, "has a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise make_error(name, value, "is not valid UTF-8") from error


def check_path(name: str, value: object, *, what: str = "a path") -> None:
    """Check that an argument is a path, as text or as an object such as ``Path``.

    Raises:
        ArgumentError: It is not.
    """
    check_text(name, os.fspath(value) if isinstance(value, os.PathLike) else value, what=what)


def check_host(name: str, value: object) -> None:
    """Check that an argument is text that may name a host.

    Raises:
        ArgumentError: It is not.
    """
    check_text(name, value, what="a host; give 'local', an ssh alias, or user@host:port")


def check_choice(name: str, value: object, known: Sequence[str]) -> None:
    """Check that an argument has one of the known values.

    Raises:
        ArgumentError: The value is unknown; lists the known ones.
    """
    if value not in known:
        near = did_you_mean(value, known)
        raise ArgumentError(
            name, f"unknown: {format_value(value)}{near}", hint=f"one of {', '.join(known)}"
        )


def check_points(name: str, value: object) -> None:
    """Check that an argument is a number of percentage points.

    Raises:
        ArgumentError: The value is negative, infinite or not a number.
    """
    if not _is_number(value, at_most=math.inf):
        raise make_error(name, value, "is not a number of percentage points")


def check_seconds(name: str, value: object) -> None:
    """Check that an argument is a number of seconds, of one day at most.

    Raises:
        ArgumentError: It is not.
    """
    if not _is_number(value, at_most=_DAY_S):
        raise make_error(name, value, f"is not a number of seconds from 0 to {_DAY_S:,}")


def check_minutes(name: str, value: object) -> None:
    """Check that an argument is a number of minutes, of one day at most.

    Raises:
        ArgumentError: It is not.
    """
    if not _is_number(value, at_most=_DAY_S / 60):
        raise make_error(name, value, f"is not a number of minutes from 0 to {_DAY_S // 60:,}")


def check_count(name: str, value: object) -> None:
    """Check that an argument is a whole number from 0 to the largest of 64 bits.

    Raises:
        ArgumentError: It is not.
    """
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise make_error(name, value, "is not a whole number of at least 0")


def check_sizes(name: str, value: object) -> None:
    """Check that an argument is a dict of sizes of free dimensions by name.

    Raises:
        ArgumentError: A size is not a whole number of at least 1, or too large for the runtimes.
    """
    if not isinstance(value, Mapping):
        raise make_error(name, value, "is not a dict of sizes by name")
    for key, size in value.items():
        check_text(name, key, what="the name of a dimension")
        if type(size) is not int or not 1 <= size <= _MOST:
            raise ArgumentError(
                name, f"{key}: {format_value(size)} is not a size of 1 to {_MOST:,}"
            )


def check_settings(name: str, value: object) -> None:
    """Check that an argument is a dict of settings by name.

    Raises:
        ArgumentError: It is not.
    """
    if not isinstance(value, Mapping):
        raise make_error(name, value, "is not a dict of settings by name")
    for key in value:
        check_text(name, key, what="the name of a setting")


def _is_number(value: object, *, at_most: float) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and 0 <= value <= at_most
    )


AnyPath = Annotated[str | os.PathLike[str], check_path]
Text = Annotated[str, check_text]
Host = Annotated[str, check_host]
