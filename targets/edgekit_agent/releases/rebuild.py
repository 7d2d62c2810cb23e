"""Reconstruction of a damaged release record from the manifest, whose digest names the release."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Iterator, Optional

from edgekit_agent import strictjson
from edgekit_agent.jobs import NamedBlob
from edgekit_agent.releases.homes import Home
from edgekit_agent.releases.provenance import MANIFEST, MOST_MANIFEST_BYTES
from edgekit_agent.releases.records import check_record
from edgekit_agent.releases.store import list_folders
from edgekit_agent.results import Release


def rebuild_records(home: Home, name: str) -> Iterator[Release]:
    """Yield the records that a release may have had: one for each unpacked runtime, one without.

    Yield none if the manifest's digest does not match the name of the release. The time of
    installation and the version of the runtime are lost.
    """
    data = _read_manifest(home.release(name))
    if data is None or not hashlib.sha256(data).hexdigest().startswith(name):
        return
    runtimes = sorted(list_folders(home, "runtimes"))
    for site in (None, *(home.runtime(runtime) for runtime in runtimes)):
        try:
            release = _build_release(name, strictjson.loads(data), site, data)
            check_record(release)
        except (ValueError, KeyError, TypeError):
            return
        yield release


def _read_manifest(folder: str) -> Optional[bytes]:
    try:
        with open(os.path.join(folder, MANIFEST), "rb") as file:
            return file.read(MOST_MANIFEST_BYTES)
    except OSError:
        return None


def _build_release(name: str, manifest: Any, site: Optional[str], data: bytes) -> Release:  # noqa: ANN401
    files = [NamedBlob(str(f["name"]), str(f["digest"])) for f in manifest["files"]]
    # "canaries" in manifests of schema version 1
    name_key = "golden_samples" if "golden_samples" in manifest else "canaries"
    return Release(
        name=name,
        model=str(manifest["model"]),
        runtime=str(manifest["runtime"]["name"]),
        threads=int(manifest["runtime"]["threads"]),
        site=site,
        golden_samples=str(manifest[name_key]),
        installed_at="",
        files=(*files, NamedBlob(MANIFEST, hashlib.sha256(data).hexdigest())),
        max_relative_error=float(manifest["max_relative_error"]),
    )
