"""Code of the user, named as ``module:function``: import, and errors that arise in it."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from edgekit.errors import UserError, did_you_mean, first_line

_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def is_entry(text: str) -> bool:
    """Return whether a text has the form ``module:function``."""
    return _ENTRY.fullmatch(text) is not None


@contextmanager
def search_modules_in(folder: Path) -> Iterator[None]:
    """Put a folder first on the module search path."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def import_module(entry: str, folder: Path, *, optional: Collection[str] = ()) -> ModuleType:
    """Import the module of ``module:function``, which is searched first in a folder.

    Args:
        entry: The name.
        folder: Folder of the project.
        optional: Packages whose absence is raised as it is.

    Raises:
        UserError: There is no such module, or it raises an error.
        ModuleNotFoundError: It needs an optional package that is not installed.
    """
    name = entry.partition(":")[0]
    importlib.invalidate_caches()  # the file may be newer than the last look into its folder
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.partition(".")[0] in optional:
            raise
        if name == missing or name.startswith(f"{missing}."):
            raise UserError(
                f"{entry}: no module {missing!r} in {folder} or among the installed packages",
                hint="use -C DIR if the module is in another folder",
            ) from error
        raise UserError(f"{entry}: {name}: {first_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise build_user_code_error(entry, folder, error) from error


def find_member(entry: str, module: ModuleType) -> object:
    """Return what ``module:function`` names in its module.

    Raises:
        UserError: There is no such function; lists those that there are.
    """
    value: object = module
    where = module.__name__
    for part in entry.partition(":")[2].split("."):
        try:
            value = getattr(value, part)
        except AttributeError as error:
            names = _list_public_functions(module)
            raise UserError(
                f"{entry}: {where} has no {part!r}{did_you_mean(part, names)}",
                hint=f"functions of {module.__name__}: {', '.join(names) or 'none'}",
            ) from error
        where += f".{part}"
    return value


def _list_public_functions(module: ModuleType) -> list[str]:
    """List the functions that a module defines itself and that are meant for others."""
    return [
        name
        for name, member in vars(module).items()
        if inspect.isfunction(member)
        and member.__module__ == module.__name__
        and not name.startswith("_")
    ]


def build_user_code_error(entry: str, folder: Path, error: BaseException) -> UserError:
    """Return the error of the user's code, with the line in it where the error arose."""
    frame, location = error.__traceback__, ""
    base = folder.resolve()
    while frame is not None:
        file = Path(frame.tb_frame.f_code.co_filename)
        if file.is_absolute() and file.resolve().is_relative_to(base):
            location = f" ({file.resolve().relative_to(base)}, line {frame.tb_lineno})"
        frame = frame.tb_next
    text = str(error).strip().partition("\n")[0]
    return UserError(f"{entry}: {type(error).__name__}: {text}{location}")
