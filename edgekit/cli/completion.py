"""edgekit completion: completion of commands, options and names in a shell."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

_VARIABLE = "_EDGEKIT_COMPLETE"  # typer's name for the request of a shell


class Shell(StrEnum):
    """Shell with a completion script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def print_completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print the script that completes commands, options and names in a shell.

    bash: put eval "$(edgekit completion bash)" into ~/.bashrc.

    zsh: put eval "$(edgekit completion zsh)" into ~/.zshrc, after compinit.

    fish: edgekit completion fish > ~/.config/fish/completions/edgekit.fish
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    script = get_completion_script(prog_name="edgekit", complete_var=_VARIABLE, shell=shell)
    print(script)


def prepare_completion() -> None:
    """Prepare the answer to a shell, if a shell asks; nothing else may be written then."""
    if _VARIABLE not in os.environ:
        return
    from typer.completion import completion_init  # type: ignore[attr-defined]

    completion_init()
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123


def complete_pass(incomplete: str) -> list[str]:
    """Return the names of passes that begin with a text."""
    from edgekit.api.names import list_pass_names

    return [name for name in list_pass_names() if name.startswith(incomplete)]


def complete_template(incomplete: str) -> list[str]:
    """Return the names of templates of apps that begin with a text."""
    from edgekit.api.apps import list_templates

    return [name for name in list_templates() if name.startswith(incomplete)]


def complete_device(incomplete: str) -> list[str]:
    """Return the names of device profiles that begin with a text."""
    from edgekit.api.names import list_profile_names

    return [name for name in list_profile_names() if name.startswith(incomplete)]


def complete_example(incomplete: str) -> list[str]:
    """Return the names of examples that begin with a text."""
    from edgekit.api.names import list_example_names

    return [name for name in list_example_names() if name.startswith(incomplete)]
