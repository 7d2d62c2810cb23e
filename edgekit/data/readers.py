"""Arrays on disk as columns that are read row by row, from any supported source."""

from __future__ import annotations

import hashlib
import importlib
import lzma
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.cache.integrity import are_files_sealed, seal_files
from edgekit.config.project import FileSettings, PreprocessSettings
from edgekit.data.audio.wav_folders import WAVES, read_wav_folder
from edgekit.data.cached_arrays import compute_files_digest, reverse_channels, save_array
from edgekit.data.csv_tables import read_csv
from edgekit.data.images import ImageSettings, read_images
from edgekit.data.listed_files import has_files
from edgekit.data.table import Table, build_table, describe_array
from edgekit.data.text_lines import LINES, read_text_lines
from edgekit.errors import UserError
from edgekit.model import TensorSpec
from edgekit.progress import Tick, ignore_progress
from edgekit_agent.files import open_atomic, sha256_of

_CHUNK = 1 << 20
TABLES = (".csv", ".tsv")
# Exceptions of reading a damaged, encrypted or mislabeled file.
_DAMAGE = (
    OSError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    RuntimeError,
    UnicodeDecodeError,
)


def read_table(
    source: str,
    *,
    folder: Path,
    cache: Path,
    settings: PreprocessSettings | None = None,
    gray: bool = False,
    size: tuple[int, int] | None = None,
    most: int | None = None,
    inputs: Sequence[TensorSpec] = (),
    files: FileSettings | None = None,
    tick: Tick = ignore_progress,
) -> Table:
    """Read the columns of a file or a folder of any known kind, or of a ``module:function``.

    Args:
        source: The source, relative to ``folder``.
        folder: Base folder of files and modules.
        cache: Folder for unpacked columns.
        settings: Sizes and channel order of images.
        gray: Decode images to one channel instead of three.
        size: Height and width of the model's input, for ``resize_mode``; ``None`` = free.
        most: Largest number of images to read from a folder; ``None`` = all.
        files: Settings of files that are neither arrays nor images.
        inputs: Inputs of the model that the samples feed, for sources without arrays.
        tick: Progress callback of image decoding.

    Raises:
        UserError: The source is missing, damaged, or of an unknown kind.
    """
    path, files = folder / source, files or FileSettings()
    try:
        if path.is_dir() and not any(path.glob("*.npy")) and has_files(path, WAVES):
            return read_wav_folder(
                source, path, cache, settings=files.audio, inputs=inputs, most=most, tick=tick
            )
        if path.is_dir():
            images = ImageSettings(settings=settings, gray=gray, most=most, size=size)
            return _read_folder(source, path, cache, images, tick)
        if path.is_file() and path.suffix.lower() in TABLES:
            return read_csv(source, path, cache, inputs)
        if path.is_file() and path.suffix.lower() in LINES:
            return read_text_lines(
                source, path, cache, folder=folder, settings=files.text, inputs=inputs, tick=tick
            )
        if path.is_file():
            return _order_channels(_read_npz(source, path, cache), settings, cache)
        if ":" in source:
            return _order_channels(_read_function(source, folder, cache), settings, cache)
    except _DAMAGE as error:
        raise UserError(f"{source}: cannot be read: {error}") from error
    raise UserError(f"{source}: no such file or folder", hint=f"looked in {folder.resolve()}")


def _order_channels(table: Table, settings: PreprocessSettings | None, cache: Path) -> Table:
    """Return the images of a table, which are RGB, in the order that the model takes."""
    is_reversed = settings is not None and settings.order == "BGR"
    return reverse_channels(table, cache) if is_reversed else table


# ---------------------------------------------------------------- npz and npy


def _read_npz(source: str, path: Path, cache: Path) -> Table:
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"{source}: not an .npz file",
            hint="annotations are found by the folder of their images: name that folder instead"
            if path.suffix.lower() == ".json"
            else "save arrays with numpy.savez(path, x=..., label=...)",
        )
    digest = sha256_of(str(path))
    arrays = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            name = member.filename.removesuffix(".npy")
            where = f"{source}: {name}"
            if member.compress_type == zipfile.ZIP_STORED:
                _verify_checksum(archive, member)
                arrays.append(
                    describe_array(name, path, where, start=_find_data_start(path, member))
                )
            else:
                unpacked = cache / "columns" / digest / f"{_file_name(name)}.npy"
                seal = unpacked.with_suffix(".seal")
                if not are_files_sealed(seal, [unpacked]):
                    _unpack(archive, member, unpacked)
                    seal_files(seal, [unpacked])
                arrays.append(describe_array(name, unpacked, where))
    if not arrays:
        raise UserError(f"{source}: contains no arrays")
    return build_table(source, arrays, digest)


def _file_name(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _find_data_start(path: Path, member: zipfile.ZipInfo) -> int:
    # Name and extra field of the local header may be longer than those of the directory.
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        lengths = file.read(4)
    name, extra = int.from_bytes(lengths[:2], "little"), int.from_bytes(lengths[2:], "little")
    return member.header_offset + 30 + name + extra


def _verify_checksum(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    with archive.open(member) as packed:
        while packed.read(_CHUNK):
            pass  # the last read raises BadZipFile if the checksum is wrong


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as packed, open_atomic(str(target)) as file:
        while chunk := packed.read(_CHUNK):
            file.write(chunk)


def _read_folder(source: str, path: Path, cache: Path, how: ImageSettings, tick: Tick) -> Table:
    arrays = sorted(path.glob("*.npy"))
    if arrays:
        found = (describe_array(a.stem, a, f"{source}/{a.name}") for a in arrays)
        table = build_table(source, found, compute_files_digest(arrays))
        return _order_channels(table, how.settings, cache)
    return read_images(source, path, cache, how, tick)


# ---------------------------------------------------------------- functions


def _read_function(source: str, folder: Path, cache: Path) -> Table:
    arrays = _call_function(source, folder)
    lines = []
    found = []
    for name in sorted(arrays):
        array = _to_array(arrays[name], f"{source}: {name}")
        hashed = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
        hashed.update(array.reshape(-1).view(np.uint8).data)
        digest = hashed.hexdigest()
        target = cache / "columns" / digest / "array.npy"
        save_array(target, array)
        lines.append(f"{name} {digest}")
        found.append(describe_array(name, target, f"{source}: {name}"))
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return build_table(source, found, digest)


def _to_array(value: object, where: str) -> NDArray[Any]:
    try:
        array = np.asarray(value, order="C")
    except ValueError as error:
        raise UserError(f"{where}: not an array: {error}") from error
    if array.dtype.kind not in "biufU":
        raise UserError(f"{where}: contains {array.dtype}, not numbers")
    if not array.ndim:
        raise UserError(f"{where}: a single value instead of one entry per sample")
    return array


def _call_function(source: str, folder: Path) -> Mapping[str, Any]:
    module, _, name = source.partition(":")
    sys.path.insert(0, str(folder.resolve()))
    try:
        function: Callable[[], object] = getattr(importlib.import_module(module), name)
        arrays = function()
    except (Exception, SystemExit) as error:
        raise UserError(f"{source}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(folder.resolve()))
    if not isinstance(arrays, Mapping) or not arrays or not all(isinstance(n, str) for n in arrays):
        raise UserError(
            f"{source}: must return a dict of arrays by name, not {type(arrays).__name__}"
        )
    return arrays
