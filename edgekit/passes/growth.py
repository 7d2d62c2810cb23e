"""Converted models that are larger than their source: told, or refused where integers are lost."""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import PassRefused
from edgekit.graphs.lite_file import lite_census
from edgekit.graphs.stored import Stored, census
from edgekit.model import Model
from edgekit.passes import Work

# Names, shapes and options differ by that much from format to format.
_LARGER, _LEAST_BYTES = 1.05, 4096
# A float takes four times the bytes of an 8-bit integer.
_WIDENED = 2.0
_INTEGERS = ("int4", "uint4", "int8", "uint8")


def check_integers(model: Model, made: Path) -> None:
    """See that the integers of a model are integers in the file made of it, at least half of them.

    Raises:
        PassRefused: they became floats.
    """
    old, new = _counted(model, made)
    integers = sum(old.bytes_of.get(dtype, 0) for dtype in _INTEGERS)
    floats = new.bytes_of.get("float32", 0) - old.bytes_of.get("float32", 0)
    if integers >= _LEAST_BYTES and floats >= _WIDENED * integers:
        raise PassRefused(
            f"the integers of its weights have no counterpart in the other format: as floats the "
            f"file has {new.file_bytes:,} bytes instead of {old.file_bytes:,}",
            hint="convert the float model, and quantize what comes of it",
        )


def _counted(model: Model, made: Path) -> tuple[Stored, Stored]:
    """What the source and the file made of it store."""
    if model.format == "onnx":
        return census(model.path), lite_census(made)
    return lite_census(model.path), census(made)


def note_size(model: Model, made: Path, work: Work) -> None:
    """Tell the user where a file made of a model is larger, and what it stores more of.

    Args:
        model: the source.
        made: the new file.
        work: of the pass.
    """
    size = made.stat().st_size
    if size > _LARGER * model.bytes + _LEAST_BYTES:
        times = size / model.bytes
        work.note(f"the file is {times:.2f} times as large as its source: {_growth(model, made)}")


def _growth(model: Model, made: Path) -> str:
    """Tell of which type a file stores most more than its source."""
    old, new = _counted(model, made)
    more = {dtype: size - old.bytes_of.get(dtype, 0) for dtype, size in new.bytes_of.items()}
    dtype = max(more, key=lambda each: more[each], default=None)
    if old.bytes_of.get("float16", 0) > new.bytes_of.get("float16", 0):
        return "its 16-bit weights became 32-bit ones, which the pass float16 stores in 16 again"
    if dtype is None or more[dtype] <= 0:
        return "the graph itself takes more"
    return (
        f"it stores {new.bytes_of[dtype]:,} bytes of {dtype} instead of "
        f"{old.bytes_of.get(dtype, 0):,}"
    )
