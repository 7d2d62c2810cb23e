"""Modules of the user: import after a change, and digests of the files that define a function."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from edgekit.config.entry_points import import_module
from edgekit.config.source_files import find_sources
from edgekit.errors import UserError
from edgekit_agent.scoring import CodeFile

# Most bytes of all files that are sent to a device.
_MOST_CODE_BYTES = 1 << 20
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
            hint=f"give {module_name.removesuffix('.py')}:{name.partition(':')[2] or 'FUNCTION'}",
        )
    known = sys.modules.get(module_name)
    if known is not None:
        own = folder.joinpath(*module_name.split(".")).with_suffix(".py")
        moved = own.exists() and not _is_file_of(known, own)
        digest = hash_files(find_files(known, folder))
        if moved or _imported.get(module_name, digest) != digest:
            _forget_modules(known, folder)
    module = import_module(name, folder)
    _imported[module_name] = hash_files(find_files(module, folder))
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


def hash_files(files: Iterable[Path]) -> str:
    """Return a digest of the contents of files."""
    digests = (hashlib.sha256(file.read_bytes()).digest() for file in files)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def read_code(name: str, files: Iterable[Path], folder: Path) -> tuple[CodeFile, ...]:
    """Read the files of a function, so that it can run on a device.

    Args:
        name: Name of the function.
        files: Its files.
        folder: Folder of the project, which must hold them.

    Raises:
        UserError: A file is elsewhere, or all together are too large.
    """
    base, found, size = folder.resolve(), [], 0
    for file in files:
        size += file.stat().st_size
        if not file.is_relative_to(base):
            raise UserError(
                f"{name}: {file} is not in {base}, so that it cannot be sent to a device",
                hint="put the module into the folder of the project",
            )
        if size > _MOST_CODE_BYTES:
            raise UserError(f"{name}: its files are larger than {_MOST_CODE_BYTES:,} bytes")
        found.append(CodeFile(file.relative_to(base).as_posix(), file.read_text(encoding="utf-8")))
    return tuple(found)
