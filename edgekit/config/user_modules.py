"""Modules of the user: import after a change, and digests of the files that define a function."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import sys
from pathlib import Path
from types import ModuleType

from edgekit.config.entry_points import import_module
from edgekit.config.source_files import find_sources
from edgekit.errors import UserError

# Digests of the files of modules when they were imported.
_imported: dict[str, str] = {}


def import_fresh(name: str, folder: Path) -> ModuleType:
    """Import the module of ``module:function``, again if its file has changed.

    It is also imported again if another folder has a module of its name.

    Args:
        name: The name.
        folder: Folder of the project, which must be on the module search path.

    Raises:
        UserError: There is no such module, or it raises an error.
    """
    module_name = name.partition(":")[0]
    if module_name.endswith(".py"):
        raise UserError(
            f"{name}: a module is named without .py",
            hint=f"give {name.replace('.py:', ':')}",
        )
    known = sys.modules.get(module_name)
    if known is not None:
        own = folder.joinpath(*module_name.split(".")).with_suffix(".py")
        moved = own.exists() and not _is_file_of(known, own)
        digest = hash_files(known, folder)
        if moved or _imported.get(module_name, digest) != digest:
            _forget_modules(known, folder)
    module = import_module(name, folder)
    _imported[module_name] = hash_files(module, folder)
    return module


def _forget_modules(module: ModuleType, folder: Path) -> None:
    """Remove a module, and those of the folder that it imports, from the imported modules."""
    files = {str(file) for file in find_files(module, folder)}
    for name, each in list(sys.modules.items()):
        own = getattr(each, "__file__", None)
        if each is module or (own and str(Path(own).resolve()) in files):
            del sys.modules[name]


def _is_file_of(module: ModuleType, file: Path) -> bool:
    return bool(module.__file__) and Path(str(module.__file__)).resolve() == file


def find_files(module: ModuleType, folder: Path, value: object = None) -> tuple[Path, ...]:
    """Find the files of a module, of a function or class in it, and of what they import.

    Args:
        module: The module.
        folder: Folder of the project; what is imported from elsewhere is left out.
        value: A function or class of the module.
    """
    files = {getattr(module, "__file__", None)}
    with contextlib.suppress(TypeError):  # an instance, or written in C
        files.add(inspect.getsourcefile(value))  # type: ignore[arg-type]
    known = (Path(file) for file in files if file and Path(file).is_file())
    return tuple(sorted({each for file in known for each in find_sources(file, folder)}))


def hash_files(module: ModuleType, folder: Path, value: object = None) -> str:
    """Return a digest of the files that define a module, and a function or class in it."""
    read = (file.read_bytes() for file in find_files(module, folder, value))
    return hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in read)).hexdigest()
