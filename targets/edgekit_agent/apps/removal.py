"""Removal of an app: its releases, its command, and the runtimes that nothing else uses."""

from __future__ import annotations

import contextlib
import os

from edgekit_agent.apps.installed import App
from edgekit_agent.apps.launcher import remove_launcher
from edgekit_agent.jobs import UninstallJob
from edgekit_agent.releases.cleanup import remove_spares
from edgekit_agent.releases.homes import FOLDERS, MARKER, Home
from edgekit_agent.releases.store import lock_home, sweep
from edgekit_agent.releases.uninstall import uninstall

_OURS = (MARKER, "lock")


def remove_app(app: App) -> None:
    """Remove the app, with the start of its watcher, and its command.

    The folder of the app is renamed first, so that a kill leaves the app whole or removes it. Then
    the command removes itself when it is called again, and the next installation or removal of any
    app removes the other remains.

    Raises:
        AgentError: ``no_such_name``, ``busy``.
    """
    uninstall(UninstallJob(app.home.main_path, app.name))
    remove_launcher(app)
    remove_leftovers(app)


def remove_leftovers(app: App) -> None:
    """Remove the runtimes that nothing uses, and the folders of edgekit that are empty then."""
    main = Home(app.home.main_path)
    if not os.path.isdir(main.path):
        return
    with lock_home(main):
        sweep(main)
        remove_spares(main, None)
        with contextlib.suppress(OSError):
            os.rmdir(main.apps)
        if _is_unused(main):
            _remove_main(main)
    for folder in (os.path.dirname(main.path), os.path.dirname(app.launcher)):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _remove_main(main: Home) -> None:
    for kind in FOLDERS:
        os.rmdir(main.folder(kind))
    for name in _OURS:
        os.unlink(os.path.join(main.path, name))
    os.rmdir(main.path)


def _is_unused(main: Home) -> bool:
    """Return whether a home holds nothing but its marker, its lock, and empty folders."""
    names = set(os.listdir(main.path))
    is_bare = names == {*FOLDERS, *_OURS}
    return is_bare and not any(os.listdir(main.folder(kind)) for kind in FOLDERS)
