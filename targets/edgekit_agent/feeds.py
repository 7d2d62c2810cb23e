"""Read samples from disk batch by batch and make of them what a model wants. Needs numpy."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, Iterator, Optional, Sequence

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.records import Column, Preprocess, Samples
from edgekit_agent.runtimes import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.runtimes import Arrays


class Rows:
    """A column that is read by seeking.

    Not memory-mapped: mapped pages would count as memory that the model needs.
    """

    def __init__(self, column: Column, file: BinaryIO) -> None:
        self.column = column
        self._file = file
        self._dtype = np.dtype(column.dtype)
        self._row_bytes = self._dtype.itemsize * int(np.prod(column.shape[1:], dtype=np.int64))
        needed = column.offset + column.shape[0] * self._row_bytes
        if os.fstat(file.fileno()).st_size < needed:
            raise AgentError("bad_job", f"{column.path}: too short for {column.name}")

    def read(self, start: int, count: int) -> NDArray[Any]:
        """Rows ``start`` to ``start + count``.

        Raises:
            AgentError: ``bad_job``; the file ended early.
        """
        rows = np.empty((count, *self.column.shape[1:]), self._dtype)
        view = rows.reshape(-1).view(np.uint8).data
        self._file.seek(self.column.offset + start * self._row_bytes)
        while view:
            got = self._file.readinto(view)  # type: ignore[attr-defined]
            if not got:
                raise AgentError("bad_job", f"{self.column.path}: ended early")
            view = view[got:]
        return rows


@contextlib.contextmanager
def open_columns(columns: Sequence[Column]) -> Iterator[Dict[str, Rows]]:
    """Open columns for reading; by name."""
    with contextlib.ExitStack() as stack:
        yield {
            column.name: Rows(
                column, stack.enter_context(open(os.path.expanduser(column.path), "rb", 0))
            )
            for column in columns
        }


@dataclass(frozen=True)
class Batch:
    """Samples ``start`` to ``start + rows``; arrays may hold more rows, repeats of the last."""

    start: int
    rows: int
    inputs: Arrays
    labels: Optional[NDArray[Any]]


def batches(
    samples: Samples, inputs: Sequence[Tensor], batch: int, first: int = 0
) -> Iterator[Batch]:
    """Every sample from ``first`` on in order, ``batch`` at a time, as the inputs want them.

    Args:
        samples: the columns; one for every input, by name.
        inputs: what the model takes.
        batch: rows of each array; the last batch is filled by repeating its last sample.
        first: number of the sample to begin with.

    Raises:
        AgentError: ``bad_job``; columns and inputs don't belong together, and the text says how.
    """
    n = check_samples(samples, inputs)
    labels = (samples.label,) if samples.label is not None else ()
    with open_columns(samples.columns) as columns, open_columns(labels) as opened_labels:
        for start in range(first, n, batch):
            rows = min(batch, n - start)
            arrays = {}
            for tensor in inputs:
                raw = columns[tensor.name].read(start, rows)
                arrays[tensor.name] = padded(prepare(raw, tensor, samples.preprocess), batch)
            found = [column.read(start, rows) for column in opened_labels.values()]
            yield Batch(start, rows, arrays, found[0] if found else None)


def check_samples(samples: Samples, inputs: Sequence[Tensor]) -> int:
    """How many samples there are.

    Raises:
        AgentError: ``bad_job``; other names than the inputs', or columns of different lengths.
    """
    have = sorted(column.name for column in samples.columns)
    want = sorted(tensor.name for tensor in inputs)
    if have != want:
        raise AgentError(
            "bad_job",
            f"the data has the columns {', '.join(have)}; the model's inputs are {', '.join(want)}",
            hint="name every column as the input it feeds",
        )
    columns = [*samples.columns, *([samples.label] if samples.label is not None else [])]
    lengths = {column.name: column.shape[0] for column in columns}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise AgentError("bad_job", f"columns of different lengths: {told}")
    n = next(iter(lengths.values()), 0)
    if n == 0:
        raise AgentError("bad_job", "there are no samples")
    return n


def padded(rows: NDArray[Any], batch: int) -> NDArray[Any]:
    """The rows, and the last one again until there are ``batch``."""
    missing = batch - rows.shape[0]
    return rows if missing <= 0 else np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])


def prepare(rows: NDArray[Any], tensor: Tensor, preprocess: Optional[Preprocess]) -> NDArray[Any]:
    """Rows as an input wants them: preprocessed if it takes floats, then cast, shape checked.

    Raises:
        AgentError: ``bad_job``; the cast would change values, or the shape does not fit.
    """
    wanted = np.dtype(tensor.dtype)
    if preprocess is not None and wanted.kind == "f":
        rows = _preprocessed(rows, preprocess, tensor.name)
    rows = _cast(rows, wanted, tensor.name)
    fits = len(rows.shape) == len(tensor.shape) and all(
        isinstance(want, str) or want == have
        for want, have in zip(tensor.shape[1:], rows.shape[1:])
    )
    if not fits:
        raise AgentError(
            "bad_job",
            f"input {tensor.name} takes {_shape(tensor.shape)}, the data is {_shape(rows.shape)}",
            hint="the first axis is the samples; channels_first turns NHWC images into NCHW",
        )
    return rows


def _preprocessed(rows: NDArray[Any], how: Preprocess, name: str) -> NDArray[Any]:
    mean, std = np.asarray(how.mean, np.float32), np.asarray(how.std, np.float32)
    for values in (mean, std):
        if values.size not in (1, rows.shape[-1]):
            raise AgentError(
                "bad_job",
                f"{name}: {values.size} values of mean or std for {rows.shape[-1]} channels",
            )
    scaled = rows.astype(np.float32)
    scaled *= np.float32(how.scale)
    scaled -= mean
    scaled /= std
    if how.channels_first and scaled.ndim == 4:
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
    return scaled


def _cast(rows: NDArray[Any], wanted: np.dtype[Any], name: str) -> NDArray[Any]:
    """Cast where no value changes, but for the rounding from one float type to another."""
    if rows.dtype == wanted:
        return rows
    with np.errstate(invalid="ignore", over="ignore"):  # what that would warn of is refused below
        cast = rows.astype(wanted)
    if np.can_cast(rows.dtype, wanted, "safe") or (rows.dtype.kind == wanted.kind == "f"):
        return cast
    # Both ways: -1 comes back from uint8 unharmed, and 2**53 + 1 equals its float neighbour.
    if not (np.array_equal(cast, rows) and np.array_equal(cast.astype(rows.dtype), rows)):
        raise AgentError(
            "bad_job",
            f"input {name} takes {wanted}, and casting the data's {rows.dtype} changes values",
            hint="save the data in the type that the model takes",
        )
    return cast


def _shape(shape: Sequence[object]) -> str:
    return f"[{', '.join(str(dim) for dim in shape)}]"
