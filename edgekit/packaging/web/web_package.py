"""Packages of apps for browsers: a folder or a zip file of static files, and the report on it."""

from __future__ import annotations

import gzip
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.bundle.bundle_file import Bundle
from edgekit.config.output_folders import create_folder, replace_folder
from edgekit.errors import UserError
from edgekit.packaging.app_settings import AppSettings
from edgekit.packaging.members import PackagedFile, write_zip
from edgekit.packaging.web.app_files import CONFIG, WebApp, assemble_web_app
from edgekit.packaging.web.service_worker import SERVICE_WORKER, read_listed_paths
from edgekit.progress import Tick
from edgekit.remote.web.runtime_files import WebRuntime
from edgekit_agent.files import open_atomic

ZIP_SUFFIX = ".zip"
_GZIP_LEVEL = 6
_MOST_GZIP_BYTES = 12_000_000
_PARTS = {"models": "models", "runtime": "runtime", "edgekit": "page", "icons": "page"}


@dataclass(frozen=True, kw_only=True)
class WebReport:
    """The result of packaging for browsers.

    Attributes:
        path: The folder or zip file.
        name: Name of the app.
        version: Version of the app.
        release: Name of its release: the same files have the same one.
        bytes: Size of all files.
        gzip_bytes: Bytes of the first load from a server that compresses.
        parts: Raw and compressed bytes of models, runtime and page.
        files: Files that were made of the bundles and of the app folder.
        runtime: Version of onnxruntime-web.
        notes: Remarks for the user.
        seconds: Time that it took.
    """

    path: Path
    name: str
    version: str
    release: str
    bytes: int
    gzip_bytes: int
    parts: dict[str, tuple[int, int]]
    files: tuple[PackagedFile, ...]
    runtime: str
    notes: tuple[str, ...]
    seconds: float


def package_for_web(
    settings: AppSettings,
    app_files: Mapping[str, bytes],
    bundles: Mapping[str, Bundle],
    runtime: WebRuntime,
    out: Path,
    *,
    tick: Tick,
) -> WebReport:
    """Package an app for browsers.

    Args:
        settings: Settings of the app.
        app_files: Files of the app folder by path.
        bundles: Bundles of the models by name.
        runtime: Files of onnxruntime-web.
        out: The folder to write, or a file that ends in ``.zip``. An earlier web app there is
            replaced, unless the folder holds files of the user's, too.
        tick: Called with a stage, the amount done and the total.

    Raises:
        UserError: The app cannot run in a browser, or there is something else at ``out``.
    """
    started = time.monotonic()
    is_zip = out.suffix == ZIP_SUFFIX
    if not is_zip:
        _check_folder(out)
    app = assemble_web_app(settings, app_files, bundles, runtime, tick=tick)
    parts = _measure_parts(app.files, tick)
    tick(f"writing {out.name}", 0, 0)
    if is_zip:
        with open_atomic(str(out)) as file:
            write_zip(file, app.files, lambda done, total: tick(f"writing {out.name}", done, total))
    else:
        _write_folder(out, app)
    total, zipped = (sum(each) for each in zip(*parts.values(), strict=True))
    notes = list(app.notes)
    if zipped > _MOST_GZIP_BYTES:
        notes.append(
            f"the first load is {zipped / 1e6:.1f} MB compressed; int8 weights or fewer bits make "
            "it smaller (edgekit build --device tablet-web)"
        )
    return WebReport(
        path=out,
        name=settings.name,
        version=settings.version,
        release=app.release,
        bytes=total,
        gzip_bytes=zipped,
        parts=parts,
        files=tuple(
            PackagedFile(path=path, source=source, bytes=len(app.files[path]))
            for path, source in sorted(app.sources.items())
        ),
        runtime=runtime.version,
        notes=tuple(notes),
        seconds=time.monotonic() - started,
    )


def _measure_parts(files: Mapping[str, bytes], tick: Tick) -> dict[str, tuple[int, int]]:
    """Return the raw and the compressed bytes of each part."""
    sizes: dict[str, tuple[int, int]] = {}
    total, done = sum(map(len, files.values())), 0
    for path, data in files.items():
        tick("measuring the first load", done, total)
        part = _PARTS.get(path.partition("/")[0], "page")
        raw, zipped = sizes.get(part, (0, 0))
        sizes[part] = (raw + len(data), zipped + len(gzip.compress(data, _GZIP_LEVEL, mtime=0)))
        done += len(data)
    return sizes


def is_web_app(folder: Path) -> bool:
    """Return whether a folder holds a web app."""
    return all((folder / name).is_file() for name in (CONFIG, SERVICE_WORKER, "index.html"))


def _check_folder(out: Path) -> None:
    """Check that a folder is new or empty, or holds an earlier web app and nothing else."""
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not is_web_app(out):
        raise UserError(
            f"{out}: is not empty, and not a web app",
            hint="choose a new folder, or a file that ends in .zip",
        )
    foreign = _find_foreign(out)
    if foreign is not None:
        raise UserError(
            f"{out}: holds a file that is not of its web app: {foreign}",
            hint="package into another folder, and copy the files of the app from there",
        )


def _find_foreign(out: Path) -> str | None:
    """Return a file in the folder of a web app that was not packaged with it."""
    try:
        listed = read_listed_paths((out / SERVICE_WORKER).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return SERVICE_WORKER
    paths = (path for path in out.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(out).as_posix() for path in paths)
    return next((name for name in names if name not in listed), None)


def _write_folder(out: Path, app: WebApp) -> None:
    """Write the folder, whole or not at all; an earlier web app there is replaced at the end."""
    out = out.resolve()  # a link stays one, and the folder that it names is replaced
    replaced = out.is_dir() and is_web_app(out)
    target = out.with_name(f".{out.name}.new") if replaced else out
    if replaced:
        shutil.rmtree(target, ignore_errors=True)
    with create_folder(target) as scratch:
        for path, data in app.files.items():
            file = scratch / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    if replaced:
        replace_folder(target, out)
