"""Apps: new app folders, and packages that install them without a network."""

from __future__ import annotations

from pathlib import Path

from edgekit.api.arguments import resolve_folder
from edgekit.api.failures import convert_failures
from edgekit.api.releases import open_bundle
from edgekit.argument_checks import AnyPath, Text, check_arguments
from edgekit.packaging.templates import NewApp, list_templates, make_app
from edgekit.progress import Tick, ignore_progress

__all__ = ["list_templates", "new_app"]


@check_arguments
def new_app(
    app: AnyPath,
    bundle: AnyPath | None = None,
    *,
    template: Text,
    folder: AnyPath = ".",
    progress: Tick = ignore_progress,
) -> NewApp:
    """Write a new app folder from a template, whole or not at all.

    Args:
        app: The folder to write, new or empty; its last part is the name of the app.
        bundle: The folder that ``build`` wrote, or a .edgekit file; without it, app.toml leaves the
            line of the model to you. Relative paths are resolved from ``folder``.
        template: ``image-classifier``, ``detector``, ``audio``, ``text``, ``form`` or
            ``folder-watch``.
        folder: The project folder.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Returns:
        The app. Attributes: ``name``; ``folder``; ``template``; ``files``, relative to the folder;
        ``bundle``.

    Raises:
        UserError: The name, the template or the folder cannot be used, or the template is for
            other models.

    Examples:
        >>> import edgekit
        >>> outcome = edgekit.build(steps=["clean"])
        >>> made = edgekit.new_app("my-app", outcome.folder, template="form")
        >>> made.name, made.files
        ('my-app', ('app.py', 'app.toml'))
    """
    base = resolve_folder(folder)
    with convert_failures():
        opened = None if bundle is None else open_bundle(base / bundle, progress=progress)
        return make_app(base / Path(app), template, opened)
