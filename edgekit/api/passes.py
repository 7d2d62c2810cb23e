"""The passes, their settings, and recipes of them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from edgekit.api.arguments import Steps
from edgekit.argument_checks import AnyPath, check_arguments
from edgekit.compression.all_passes import list_pass_names
from edgekit.compression.recipe_parser import (
    PassFacts,
    check_step,
    describe_pass,
    make_recipe,
    parse_settings,
    parse_step,
    read_recipe,
)
from edgekit.errors import ArgumentError
from edgekit.old_names import OldNames
from edgekit.recipe import Recipe

__all__ = ["choose_recipe", "describe_pass", "list_passes", "parse_settings", "warn_of_old_names"]


def list_passes() -> list[PassFacts]:
    """List the passes, also those of plugins, with their settings.

    Returns:
        A description of each pass. Its attributes: ``name``; ``summary``, one line;
        ``needs_calibration``, whether it needs calibration samples; ``settings``, each with its
        name, the allowed values in words and the default; ``meaning`` of the settings.

    Examples:
        >>> import edgekit
        >>> [each.name for each in edgekit.list_passes()][0]
        'clean'
    """
    return [describe_pass(name) for name in list_pass_names()]


@check_arguments
def choose_recipe(
    recipe: AnyPath | Recipe | None,
    steps: Steps,
    *,
    folder: Path,
    old_names: OldNames,
) -> Recipe | None:
    """Return the recipe that replaces the search; ``None`` if there is none.

    Args:
        recipe: A recipe, or its TOML file.
        steps: Steps, each a step or a text ``NAME[:KEY=VALUE,...]``.
        folder: Base of a relative path.
        old_names: Collector of the names of earlier versions that the recipe uses.

    Raises:
        UserError: Both are given, or there is no such file, pass or setting.
    """
    if recipe is not None and steps:
        raise ArgumentError(("recipe", "steps"), "cannot be combined", hint="use one of them")
    if isinstance(recipe, Recipe):
        known = tuple(check_step(each, old_names=old_names) for each in recipe.steps)
        return replace(recipe, steps=known)
    if recipe is not None:
        return read_recipe(folder / recipe, old_names=old_names)
    if not steps:
        return None
    return make_recipe(
        [
            parse_step(each, old_names=old_names)
            if isinstance(each, str)
            else check_step(each, old_names=old_names)
            for each in steps
        ]
    )


def warn_of_old_names(old_names: OldNames) -> None:
    """Warn the caller of a function of the API that it gave names of earlier versions."""
    if note := old_names.format_note():
        warnings.warn(note, FutureWarning, stacklevel=4)
