"""Plugins: objects that other distributions offer to edgekit through entry points.

A plugin that cannot be used costs one warning, never the command. Plugins are loaded when a command
first needs them.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import ModuleType

from edgekit.errors import PluginWarning, first_line


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """Loaded entry point, with the distribution that offers it and the version of that."""

    name: str
    distribution: str
    version: str
    value: object = None

    @property
    def origin(self) -> str:
        """Return the distribution and its version, for messages."""
        return f"{self.distribution} {self.version}".strip()


@cache
def load_plugins(group: str) -> tuple[Plugin, ...]:
    """Load the entry points of a group, sorted by distribution and name.

    Args:
        group: The name of the group, such as ``edgekit.passes``.
    """
    loaded = []
    for distribution, entry in _iter_entry_points(group):
        plugin = Plugin(
            name=entry.name,
            distribution=str(distribution.metadata["Name"]),
            version=str(distribution.metadata["Version"] or ""),
        )
        if not entry.pattern.match(entry.value):
            warn_of_plugin(plugin, f"{entry.value!r} in entry_points.txt is not module:object")
            continue
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for the command's answer
                loaded.append(replace(plugin, value=entry.load()))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - any fault of foreign code
            warn_of_plugin(plugin, f"cannot be loaded: {type(error).__name__}: {first_line(error)}")
    return tuple(loaded)


def warn_of_plugin(plugin: Plugin, fault: str) -> None:
    """Warn that a plugin, or a part of it, is left out."""
    text = f"plugin {plugin.name!r} of {plugin.origin} is ignored: {fault}"
    warnings.warn(" ".join(text.split()), PluginWarning, stacklevel=2)


def _iter_entry_points(group: str) -> Iterator[tuple[metadata.Distribution, metadata.EntryPoint]]:
    """Yield the entry points of a group; of distributions of one name, only the first counts."""
    offering: dict[str, tuple[metadata.Distribution, list[metadata.EntryPoint]]] = {}
    for distribution in metadata.distributions():
        try:
            if f"[{group}]" not in (distribution.read_text("entry_points.txt") or ""):
                continue
            name = distribution.metadata["Name"]
            entries = sorted(distribution.entry_points.select(group=group))
        except Exception as error:  # noqa: BLE001 - any fault of foreign files
            _warn_of_damage(distribution, error)
            continue
        if name:
            offering.setdefault(name.lower().replace("_", "-"), (distribution, entries))
    for _, (distribution, entries) in sorted(offering.items(), key=lambda item: item[0]):
        for entry in entries:
            yield distribution, entry


def _warn_of_damage(distribution: metadata.Distribution, error: Exception) -> None:
    """Warn that the files of an installed distribution cannot be read, so it is left out."""
    folder = getattr(distribution, "_path", distribution.locate_file(""))
    fault = "METADATA or entry_points.txt there is " + (
        "not UTF-8" if isinstance(error, UnicodeDecodeError) else "damaged"
    )
    text = f"plugins of {folder} are ignored: {fault}; install the distribution again"
    warnings.warn(" ".join(text.split()), PluginWarning, stacklevel=2)


def iter_toml_files(value: object) -> Iterator[Traversable]:
    """Yield the .toml files that a plugin offers: a folder, a package, or files.

    Raises:
        TypeError: The value is none of these.
    """
    if isinstance(value, ModuleType):
        yield from iter_toml_files(resources.files(value))
    elif isinstance(value, str):
        yield from iter_toml_files(Path(value))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from iter_toml_files(each)
    elif not isinstance(value, Traversable):
        raise TypeError(f"it must be a folder or .toml files, not {type(value).__name__}")
    elif value.is_dir():
        files = (file for file in value.iterdir() if file.name.endswith(".toml"))
        yield from sorted(files, key=lambda file: file.name)
    else:
        yield value
