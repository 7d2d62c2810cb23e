"""An app on the device: its folders, its statement, and the state of its files.

The launcher is ``PREFIX/bin/NAME``. The releases are in the named home
``PREFIX/share/edgekit/apps/NAME``, and the unpacked wheels in the main home.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import List, Optional

from edgekit_agent.apps.package_format import (
    MOST_PACKAGE_BYTES,
    PACKAGE,
    Package,
    PackagedModel,
    decode_package,
    get_release_name,
    get_runtime_name,
)
from edgekit_agent.failures import AgentError
from edgekit_agent.files import fsync_folder, is_intact, open_regular
from edgekit_agent.model_settings import ModelSettings, read_model_settings
from edgekit_agent.releases.current import CURRENT, is_app
from edgekit_agent.releases.homes import Home, open_home

REPAIR = "run the package file again: that repairs it"
# The main home below a prefix.
MAIN_HOME = os.path.join("share", "edgekit")


@dataclass(frozen=True)
class App:
    """An app below a prefix such as ``~/.local``, installed or not."""

    name: str
    prefix: str
    home: Home

    @property
    def launcher(self) -> str:
        """Path of the command that starts it."""
        return os.path.join(self.prefix, "bin", self.name)

    def start_script(self, release: str = "") -> str:
        """Return the path of the script that a launcher runs, of the served release by default."""
        folder = self.home.release(release) if release else os.path.join(self.home.path, "current")
        return os.path.join(folder, "edgekit_agent", "apps", "start.py")


def find_app(prefix: str, name: str) -> App:
    """Return the app of a name below a prefix; nothing is created.

    Raises:
        AgentError: ``foreign_home``; see ``open_home``.
    """
    folder = os.path.abspath(os.path.expanduser(prefix))
    return App(name, folder, open_home(os.path.join(folder, MAIN_HOME), name))


def find_app_of_home(path: str) -> App:
    """Return the app whose home is at a path, as a launcher states it."""
    apps, name = os.path.split(os.path.abspath(path))
    return get_app(open_home(os.path.dirname(apps), name))


def get_app(home: Home) -> App:
    """Return the app of a named home."""
    return App(home.app, os.path.dirname(os.path.dirname(home.main_path)), home)


def make_command(app: App, release: str, arguments: List[str]) -> List[str]:
    """Return the command that runs a release's code for the app in another process."""
    flags = ["-I", "-B"] if sys.dont_write_bytecode else ["-I"]
    start = [sys.executable, *flags, "-X", "utf8", app.start_script(release), app.home.path]
    return [*start, *arguments]


def make_public_folder(path: str) -> None:
    """Create a folder, and the missing ones above it, that everybody may look into."""
    if not os.path.isdir(path):
        make_public_folder(os.path.dirname(path))
        os.mkdir(path)
        os.chmod(path, 0o755)
        fsync_folder(os.path.dirname(path))


def read_statement(home: Home, release: str) -> Package:
    """Read the statement of an installed release, whose digest is the name of the release.

    Raises:
        AgentError: ``corrupt``.
    """
    path = os.path.join(home.release(release), PACKAGE)
    try:
        with open_regular(path) as file:
            data = file.read(MOST_PACKAGE_BYTES + 1)
        if get_release_name(data) != release:
            raise ValueError("it was changed")
        return decode_package(data)
    except (OSError, ValueError) as error:
        raise AgentError("corrupt", f"{path}: damaged: {error}", hint=REPAIR) from error


def check_is_app(app: App) -> None:
    """Check that no release without a package is served under the name of the app.

    Raises:
        AgentError: ``name_in_use``.
    """
    if os.path.lexists(os.path.join(app.home.path, CURRENT)) and not is_app(app.home):
        raise AgentError(
            "name_in_use",
            f"{app.home.path} serves a model that was pushed under the name {app.name}",
            hint=f"remove it first: edgekit uninstall HOST {app.name}",
        )


def get_site(home: Home, package: Package) -> Optional[str]:
    """Return the folder of the unpacked wheels; ``None`` if the package has none."""
    return home.runtime(get_runtime_name(package)) if package.wheels else None


def find_damaged_files(folder: str, package: Package) -> List[str]:
    """Return the paths of the files of a release that are missing, links, or changed."""
    return [
        file.installed_path
        for file in package.list_installed()
        if not is_intact(os.path.join(folder, file.installed_path), file.installed_digest)
    ]


def read_settings(folder: str, model: PackagedModel) -> ModelSettings:
    """Return the settings of a model of a release.

    Raises:
        AgentError: ``corrupt``: its manifest is damaged.
    """
    try:
        return read_model_settings(os.path.join(folder, model.folder))
    except AgentError as error:
        raise AgentError("corrupt", error.failure.message, hint=REPAIR) from error
