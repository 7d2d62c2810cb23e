"""Warnings of plugins that are left out, one line each on stderr."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from edgekit.cli.render.output import say
from edgekit.errors import PluginWarning


def disable_pydantic_plugins() -> None:
    """Let pydantic load no plugins, which edgekit does not use.

    To find them, pydantic reads the metadata of every installed distribution, and fails if those of
    a single one are damaged.
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


@contextmanager
def show_plugin_warnings() -> Iterator[None]:
    """Print warnings of plugins in the command line's own words; others stay as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", PluginWarning)
        show_other = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, PluginWarning):
                say(f"edgekit: warning: {message}", file=sys.stderr)
            else:
                show_other(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield
