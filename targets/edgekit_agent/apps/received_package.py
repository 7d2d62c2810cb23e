"""A package of which the members that the device lacked were received, one by one."""

from __future__ import annotations

import json
import os
import shutil
from typing import BinaryIO, Dict, List, Optional, Tuple

from edgekit_agent.apps.installed import get_site, read_statement
from edgekit_agent.apps.package_file import Tell
from edgekit_agent.apps.package_format import Package, PackageFile, decode_package, get_release_name
from edgekit_agent.codec import encode
from edgekit_agent.failures import AgentError
from edgekit_agent.files import is_intact
from edgekit_agent.releases import runtime_files
from edgekit_agent.releases.homes import Home, list_apps
from edgekit_agent.releases.store import list_copies, list_folders
from edgekit_agent.trust.statements import Signature


class ReceivedPackage:
    """Members of a package among the objects of a home, and in releases that are installed.

    Args:
        home: the home of the app.
        data: the bytes of ``package.json``.
        signature: signs them; ``None`` = the package is not signed.

    Attributes:
        data: the bytes of ``package.json``.
        package: the statement.
        release: the name of its release.

    Raises:
        AgentError: ``bad_job``: the statement is not valid, or of another app.
    """

    def __init__(self, home: Home, data: bytes, signature: Optional[Signature] = None) -> None:
        try:
            self.package: Package = decode_package(data)
        except ValueError as error:
            raise AgentError("bad_job", f"package.json: {error}") from error
        if self.package.name != home.app:
            raise AgentError("bad_job", f"the package is of the app {self.package.name}")
        self.data, self.release = data, get_release_name(data)
        self._home, self._signature = home, signature
        self._installed: Optional[Dict[str, List[str]]] = None

    def list_missing(self) -> Tuple[str, ...]:
        """Return the paths of members that the device lacks and the installation needs."""
        site = get_site(self._home, self.package)
        has_runtime = site is not None and not runtime_files.find_damaged_files(site)
        return tuple(
            file.path
            for file in self.package.files
            if not (has_runtime and file.path in self.package.wheels)
            and (file.is_installed or file.path in self.package.wheels)
            and self._find(file) is None
            and self._find_expanded(file) is None
        )

    def verify(self, report: Optional[Tell] = None) -> None:
        """Do nothing: each member is verified when it is copied.

        So the home is locked at once, and who asks for its state after a lost link is not told the
        old one while the installation is still at work.
        """

    def copy(self, file: PackageFile, target: str) -> None:
        """Write a member to a new file.

        Raises:
            AgentError: ``missing_blob``, ``corrupt`` (transient); the new file is incomplete.
        """
        source = self._find(file)
        if source is None:
            raise _make_missing_error(file.path)
        _copy(source, target, file, file.digest)

    def copy_expanded(self, file: PackageFile, target: str) -> bool:
        """Write the expanded form of a packed member to a new file, if it is here already.

        Raises:
            AgentError: ``corrupt`` (transient); the new file is incomplete.
        """
        source = self._find_expanded(file)
        if source is not None:
            _copy(source, target, file, file.expanded_digest)
        return source is not None

    def read_signature(self) -> Optional[bytes]:
        """Return the bytes of the signature; ``None`` if the package is not signed."""
        return None if self._signature is None else json.dumps(encode(self._signature)).encode()

    def open_stored(self, path: str) -> BinaryIO:
        """Open a wheel as a file in which a reader can seek.

        Raises:
            AgentError: ``missing_blob`` (transient).
        """
        file = self.package.find_file(path)
        source = self._find(file) if file is not None else None
        if file is None or source is None:
            raise _make_missing_error(path)
        return open(source, "rb")

    def _find_expanded(self, file: PackageFile) -> Optional[str]:
        return self._find_digest(file.expanded_digest) if file.is_packed else None

    def _find(self, file: PackageFile) -> Optional[str]:
        return self._find_digest(file.digest)

    def _find_digest(self, digest: str) -> Optional[str]:
        """Return the path of an intact file with a digest on this device."""
        if self._installed is None:
            self._installed = _list_installed(self._home)
        paths = [*list_copies(self._home, digest), *self._installed.get(digest, ())]
        return next((path for path in paths if is_intact(path, digest)), None)


def _list_installed(home: Home) -> Dict[str, List[str]]:
    """Return the paths of the files of all installed apps by the digests that they should have."""
    found: Dict[str, List[str]] = {}
    for each in list_apps(home):
        for release in list_folders(each, "releases"):
            try:
                files = read_statement(each, release).list_installed()
            except AgentError:  # damaged, or not the release of a package
                continue
            for file in files:
                path = os.path.join(each.release(release), file.installed_path)
                found.setdefault(file.installed_digest, []).append(path)
    return found


def _copy(source: str, target: str, file: PackageFile, digest: str) -> None:
    with open(source, "rb") as original, open(target, "xb") as copy:
        shutil.copyfileobj(original, copy)
    if not is_intact(target, digest):
        raise _make_damage_error(file)


def _make_missing_error(path: str) -> AgentError:
    what = f"{path} has not been received, or was damaged on the device's disk"
    return AgentError("missing_blob", what, hint="push again", transient=True)


def _make_damage_error(file: PackageFile) -> AgentError:
    return AgentError(
        "corrupt",
        f"{file.path} was damaged on the device's disk",
        hint="push again; if this happens again, the storage is failing",
        transient=True,
    )
