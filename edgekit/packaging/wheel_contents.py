"""Wheels without the files that are never loaded on a device.

The digest of the whole wheel is checked before. Files that stay are copied with their compressed
bytes, so each has the sha256 that RECORD in the wheel states, and the result is the same on every
machine.
"""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from edgekit.errors import UserError

# Files of the packages that edgekit itself asks for: tools, tests, headers, and libraries for
# hardware that no model of edgekit runs on.
_UNUSED: dict[str, tuple[str, ...]] = {
    "onnxruntime": (
        "onnxruntime/capi/libonnxruntime.so.*",  # a copy for C programs; Python has its own
        "onnxruntime/backend/*",
        "onnxruntime/datasets/*",
        "onnxruntime/quantization/*",
        "onnxruntime/tools/*",
        "onnxruntime/transformers/*",
    ),
    "ai-edge-litert": (
        "ai_edge_litert/libLiteRtWebGpuAccelerator.so",
        "ai_edge_litert/aot/*",
        "ai_edge_litert/tools/*",
        "ai_edge_litert/vendors/*",
    ),
    "numpy": (
        "numpy/*/tests/*",
        "numpy/tests/*",
        "numpy/f2py/*",
        "numpy/_core/include/*",
        "numpy/_core/lib/*",
        "numpy/random/lib/*",
        "numpy/random/_examples/*",
        "*.pyi",
        "*.pxd",
    ),
    "pillow": ("*.pyi",),
    "tokenizers": ("*.pyi",),
}
_LOCAL, _CENTRAL, _END = "<4s5H3L2H", "<4s6H3L5H2L", "<4s4H2LH"
_LOCAL_BYTES = struct.calcsize(_LOCAL)
# Bit 3 of the flags: sizes follow the data, which the written headers state themselves.
_SIZES_FOLLOW = 1 << 3
_MOST_BYTES = 1 << 31


@dataclass(frozen=True, kw_only=True)
class WheelContents:
    """Bytes of a wheel as it is packaged, and the patterns of the files that were left out."""

    data: bytes
    left_out: tuple[str, ...] = ()
    saved_bytes: int = 0


def read_contents(path: Path, name: str) -> WheelContents:
    """Read a wheel without the files that are never loaded.

    Args:
        path: The wheel, whose digest was checked.
        name: Normalized name of its package.

    Raises:
        UserError: The wheel is damaged.
    """
    patterns = _UNUSED.get(name, ())
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            kept = [m for m in members if not _is_unused(m.filename, patterns)]
            if len(kept) == len(members):
                return WheelContents(data=path.read_bytes())
            data = _copy_members(file, kept)
    except (OSError, ValueError, struct.error, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a wheel: {error}", hint="fetch it again") from error
    used = [p for p in patterns if any(fnmatchcase(m.filename, p) for m in members)]
    saved = path.stat().st_size - len(data)
    return WheelContents(data=data, left_out=tuple(used), saved_bytes=saved)


def _is_unused(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _copy_members(source: BinaryIO, members: list[zipfile.ZipInfo]) -> bytes:
    """Return a zip of some members of another zip, with their compressed bytes."""
    out, directory = BytesIO(), BytesIO()
    for member in members:
        if member.flag_bits & 1 or member.compress_size >= _MOST_BYTES:
            raise ValueError(f"{member.filename}: encrypted, or too large")
        name = member.filename.encode("utf-8")
        start, flags = out.tell(), (member.flag_bits & ~_SIZES_FOLLOW) | 0x800
        year, month, day, hour, minute, second = member.date_time
        clock = hour << 11 | minute << 5 | second // 2
        date = (year - 1980) << 9 | month << 5 | day
        sizes = (member.CRC, member.compress_size, member.file_size)
        method = member.compress_type
        head = (b"PK\x03\x04", 20, flags, method, clock, date, *sizes, len(name), 0)
        out.write(struct.pack(_LOCAL, *head) + name + _read_compressed(source, member))
        made_by = 3 << 8 | 20  # Unix, so that the permissions count
        entry = (b"PK\x01\x02", made_by, 20, flags, method, clock, date, *sizes, len(name))
        rest = (0, 0, 0, 0, member.external_attr, start)
        directory.write(struct.pack(_CENTRAL, *entry, *rest) + name)
    start, count = out.tell(), len(members)
    out.write(directory.getvalue())
    out.write(struct.pack(_END, b"PK\x05\x06", 0, 0, count, count, directory.tell(), start, 0))
    return out.getvalue()


def _read_compressed(source: BinaryIO, member: zipfile.ZipInfo) -> bytes:
    source.seek(member.header_offset)
    head = struct.unpack(_LOCAL, source.read(_LOCAL_BYTES))
    if head[0] != b"PK\x03\x04":
        raise ValueError(f"{member.filename}: damaged header")
    source.seek(head[-2] + head[-1], 1)
    data = source.read(member.compress_size)
    if len(data) != member.compress_size:
        raise ValueError(f"{member.filename}: cut off")
    return data
