"""Release records: their limits, and their JSON files."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Sequence

from edgekit_agent import strictjson
from edgekit_agent.codec import decode, encode
from edgekit_agent.files import open_regular, write_atomic
from edgekit_agent.protocol import FIRST
from edgekit_agent.results import Release
from edgekit_agent.trust.statements import MOST_VERSION

RECORD = "release.json"
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,199}")
DIGEST = re.compile(r"[0-9a-f]{64}")
# The largest tolerance of the health check that a bundle can ask for; outputs that are all zero
# have a relative error of 1.
MOST_RELATIVE_ERROR = 0.5
MOST_THREADS = 1024
_MOST_FILES = 1000
_MOST_PATH = 4096
_MOST_BYTES = 1 << 20


def check_record(release: Release) -> None:
    """Check that every field of a record is within its limits.

    Raises:
        ValueError: one is not; the text says which.
    """
    _check_number("max_relative_error", release.max_relative_error, 0, MOST_RELATIVE_ERROR)
    _check_number("threads", release.threads, 1, MOST_THREADS)
    _check_number("version", release.version, 0, MOST_VERSION)
    _check_count(len(release.files))
    for file in release.files:
        _check_text(file.name, "file name", PLAIN_NAME)
        _check_text(file.digest, "sha256 in hex", DIGEST)
    for name in (release.name, release.model, release.golden_samples, release.runtime):
        _check_text(name, "name", PLAIN_NAME)
    if release.site is not None and not 0 < len(release.site) <= _MOST_PATH:
        raise ValueError("the path of its runtime is empty or too long")
    if release.key:
        _check_text(release.key, "public key in hex", DIGEST)
    for text in (release.runtime_version, release.installed_at):
        if len(text) > 200:
            raise ValueError(f"{text[:40]!r}... is too long")


def check_file_names(names: Sequence[str]) -> None:
    """Check the names of the files of a new release.

    Raises:
        ValueError: there are too many; or one is not plain, is that of the record, or differs from
            another in case only, which not every file system distinguishes.
    """
    _check_count(len(names))
    used_names = {RECORD}
    for name in names:
        _check_text(name, "file name", PLAIN_NAME)
        if name.lower() in used_names:
            raise ValueError(f"a release cannot have two files named {name!r}")
        used_names.add(name.lower())


def _check_count(files: int) -> None:
    if files > _MOST_FILES:
        raise ValueError(f"{files} files, more than the limit of {_MOST_FILES}")


def _check_number(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} is {value:g}, must be {least} to {most}")


def _check_text(text: str, what: str, pattern: Any) -> None:  # noqa: ANN401 - a compiled pattern
    if not pattern.fullmatch(text):
        raise ValueError(f"not a valid {what}: {text[:200]!r}")


def read_record(folder: str) -> Release:
    """Read the record in the folder of a release.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or out of its limits.
    """
    with open_regular(os.path.join(folder, RECORD)) as file:
        release = decode(Release, strictjson.load(file, _MOST_BYTES))
    check_record(release)
    return release


def write_record(folder: str, release: Release) -> None:
    """Write the record of a release into its folder, and read it back to verify it.

    Raises:
        OSError: it cannot be written.
        ValueError: it is out of its limits, or the record read back differs.
    """
    check_record(release)
    # Agents of protocol 1.0 read it too, if an earlier edgekit connects to the device.
    text = json.dumps(encode(release, peer=FIRST), indent=1, allow_nan=False)
    write_atomic(os.path.join(folder, RECORD), text.encode())
    if read_record(folder) != release:
        raise ValueError("the record differs when it is read back")
