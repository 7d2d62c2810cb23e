"""Page of the command line: the help text of every command."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator

from docs.generate.markdown import make_page
from edgekit.cli import app

INTRODUCTION = """
Every command that yields facts takes `--json`: one JSON document on stdout, progress on stderr.
`-C DIR` runs a command in another folder; paths are relative to it. HOST is what `ssh` takes (an
alias of `~/.ssh/config`, `user@host:port`), or `local` for this machine. The exit codes are in
[Exit codes](exit-codes.md).
"""


def get_help(*command: str) -> str:
    """Return the help text of a command."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        app([*command, "--help"], prog_name="edgekit", standalone_mode=False)
    return text.getvalue().strip()


def list_commands(*group: str) -> list[str]:
    """List the commands of the program, or of a group of commands."""
    listed = get_help(*group).partition("\nCommands:\n")[2]
    return re.findall(r"^  ([a-z][a-z-]*)  ", listed, re.MULTILINE)


def iter_commands(*group: str) -> Iterator[tuple[str, ...]]:
    """Iterate over all commands, each as its words; a group comes before its own commands."""
    for name in list_commands(*group):
        yield (*group, name)
        yield from iter_commands(*group, name)


def render() -> str:
    """Render the page."""
    return make_page("Command line", INTRODUCTION, *(_render(words) for words in iter_commands()))


def _render(words: tuple[str, ...]) -> str:
    level = "#" * (len(words) + 1)
    return f"{level} edgekit {' '.join(words)}\n\n```text\n{get_help(*words)}\n```"
