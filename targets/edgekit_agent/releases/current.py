"""The served and the previous release, held by one link that is replaced atomically.

``current`` points to the served release. The folder of that release holds the link ``.previous``
to the release that it replaced, and ``previous`` points through both. So renaming one new link to
``current`` changes both answers in one step, and no crash leaves one of them behind. In homes of
older versions, ``previous`` points to a release directly; such a link is understood, and converted
at the next switch.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Optional, Tuple

from edgekit_agent.files import fsync_folder, temporary_name
from edgekit_agent.releases.homes import APP_STATEMENT, Home
from edgekit_agent.releases.store import list_folders

CURRENT, PREVIOUS = "current", "previous"
# Folder of the code of an app in its release.
_APP_CODE = "edgekit_agent"
_REPLACED = ".previous"
_THROUGH_CURRENT = os.path.join(CURRENT, _REPLACED)


def current_release(home: Home) -> Optional[str]:
    """Return the name of the release that is served, if it is there."""
    return _find_release(home, os.path.join(home.path, CURRENT))


def previous_release(home: Home) -> Optional[str]:
    """Return the name of the release before the served one, if it is there."""
    current = current_release(home)
    link = os.path.join(home.path, PREVIOUS)
    if _read_target(link) == _THROUGH_CURRENT:
        if current is None:
            return None
        link = _get_previous_link(home, current)
    previous = _find_release(home, link)
    return previous if previous != current else None


def is_app(home: Home) -> bool:
    """Return whether the served release of a home is an app from a package file.

    It holds its own code, by which it is known if its statement is lost.
    """
    served = os.path.join(home.path, CURRENT)
    return any(os.path.lexists(os.path.join(served, name)) for name in (APP_STATEMENT, _APP_CODE))


def both_releases(home: Home) -> Tuple[Optional[str], Optional[str]]:
    """Return the served and the previous release of one moment, also without the lock."""
    while True:
        current, previous = current_release(home), previous_release(home)
        if current_release(home) == current:
            return current, previous


def switch(home: Home, release: str) -> None:
    """Serve a release; the one that was served until now becomes the previous one.

    Every step before the last leaves both answers as they were; the last one changes both.
    """
    served = current_release(home)
    if served == release:
        return
    _convert_direct_link(home, served)
    link = _get_previous_link(home, release)
    if served is None:
        _unlink(link)
    else:
        _replace_link(link, os.path.join(os.pardir, served))
        if _read_target(os.path.join(home.path, PREVIOUS)) != _THROUGH_CURRENT:
            _replace_link(os.path.join(home.path, PREVIOUS), _THROUGH_CURRENT)
    _replace_link(os.path.join(home.path, CURRENT), os.path.join("releases", release), is_last=True)
    if served is not None:
        with contextlib.suppress(OSError):  # it is no longer read
            os.unlink(_get_previous_link(home, served))


def _convert_direct_link(home: Home, served: Optional[str]) -> None:
    """Convert a ``previous`` link of older versions, without changing its answer."""
    link_path = os.path.join(home.path, PREVIOUS)
    if served is None or _read_target(link_path) in (None, _THROUGH_CURRENT):
        return
    previous, link = previous_release(home), _get_previous_link(home, served)
    if previous is None:
        _unlink(link)
    else:
        _replace_link(link, os.path.join(os.pardir, previous))
    _replace_link(link_path, _THROUGH_CURRENT)


def _get_previous_link(home: Home, release: str) -> str:
    return os.path.join(home.release(release), _REPLACED)


def _find_release(home: Home, link: str) -> Optional[str]:
    name = os.path.basename(_read_target(link) or "")
    return name if name in list_folders(home, "releases") else None


def _read_target(link: str) -> Optional[str]:
    try:
        return os.readlink(link)
    except OSError as error:
        # It does not exist, is not a link, or its folder is not a folder.
        if error.errno not in (errno.ENOENT, errno.EINVAL, errno.ENOTDIR):
            raise
        return None


def _replace_link(link: str, target: str, *, is_last: bool = False) -> None:
    """Create or replace a link in one step that survives a power cut.

    Args:
        link: path of the link.
        target: path that it points to.
        is_last: nothing after the rename may fail, because the release is served from then on.
    """
    folder, temporary = os.path.dirname(link), temporary_name(link)
    os.symlink(target, temporary)
    try:
        fsync_folder(folder)
        os.replace(temporary, link)
    except BaseException:
        _unlink(temporary)
        raise
    with contextlib.suppress(*((OSError,) if is_last else ())):
        fsync_folder(folder)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
