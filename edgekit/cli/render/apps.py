"""Output of edgekit app and package."""

from __future__ import annotations

import shlex

from edgekit.packaging.templates import NewApp


def format_new_app(app: NewApp) -> str:
    """Format a new app folder as text."""
    folder = shlex.quote(str(app.folder))
    bundle = "" if app.bundle is not None else " BUNDLE"
    return (
        f"{app.folder.resolve()} written ({', '.join(app.files)})\n  next: edgekit package{bundle} "
        f"--app {folder} --target linux -o {app.name}.run"
    )
