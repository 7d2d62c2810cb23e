"""Modules of the user: import from a folder or from texts in memory, and the place of an error."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Sequence

from edgekit_agent.failures import AgentError
from edgekit_agent.scoring import CodeFile

if TYPE_CHECKING:
    import types


class _TextFinder(MetaPathFinder, Loader):
    """Finder and loader of modules whose texts are in memory."""

    def __init__(self, texts: Dict[str, str]) -> None:
        self._texts = texts

    def find_spec(
        self,
        fullname: str,
        path: Optional[Sequence[str]] = None,
        target: Optional[types.ModuleType] = None,
    ) -> Optional[ModuleSpec]:
        """Find a module by its name."""
        del path, target
        base = fullname.replace(".", "/")
        for name, is_package in ((f"{base}/__init__.py", True), (f"{base}.py", False)):
            if name in self._texts:
                return spec_from_loader(fullname, self, origin=name, is_package=is_package)
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        """Run the text of a module."""
        origin = str(module.__spec__.origin) if module.__spec__ else ""
        exec(compile(self._texts[origin], origin, "exec"), module.__dict__)


def import_user_function(
    entry: str, *, folder: str = "", files: Sequence[CodeFile] = ()
) -> Callable[..., Any]:
    """Import the function that ``module:function`` names.

    Args:
        entry: the name.
        folder: folder in which modules are searched first; empty = none.
        files: modules that are found before all others.

    Raises:
        AgentError: ``bad_job``; the code raises an error, or has no such function.
    """
    if files:
        sys.meta_path.insert(0, _TextFinder({file.path: file.text for file in files}))
    folder = os.path.expanduser(folder)
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
    module, _, name = entry.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for part in name.split("."):
            value = getattr(value, part)
    except (Exception, SystemExit) as error:
        raise AgentError("bad_job", f"{entry}: {describe_user_error(error)}") from error
    if not callable(value):
        raise AgentError("bad_job", f"{entry}: {type(value).__name__} is not a function")
    function: Callable[..., Any] = value
    return function


def describe_user_error(error: BaseException) -> str:
    """Return type and text of an error, with the last line of the user's code."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}{find_place(error)}"


def find_place(error: BaseException) -> str:
    """Return file and line of the user's code in which an error arose, in parentheses."""
    trace, place = error.__traceback__, ""
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        is_user = file.endswith(".py") and not os.path.abspath(file).startswith(own)
        if is_user and "importlib" not in file:
            place = f" ({os.path.basename(file)}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place
