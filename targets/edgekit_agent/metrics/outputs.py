"""All outputs of a sample as one row, for metrics that the host computes with the user's code.

A row has the number of outputs and then, for each output, the length of its name, the name as code
points, the number of its type, the number of its dimensions, its shape and its values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Tuple

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.metrics.rows import MOST_VALUES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.metrics import ScoredSample, Statistic
    from edgekit_agent.scoring import MetricOptions

# The position of a type is its number in rows.
_TYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64",
)  # fmt: skip
# Larger integers are not exact as float64.
_MOST_INTEGER = 1 << 53
_MOST_AXES = 32
# Name of the metric.
OUTPUTS = "outputs"


def collect_outputs(sample: ScoredSample, options: MetricOptions) -> NDArray[np.float64]:
    """Return all outputs as one row.

    Raises:
        AgentError: ``bad_job``; an output has a type or integers that a row cannot hold, or the
            outputs are too many values; ``model_failed`` for a value that is not finite.
    """
    del options
    total = sum(np.asarray(value).size for value in sample.outputs.values())
    if total > MOST_VALUES:
        raise AgentError(
            "bad_job",
            f"the outputs of sample {sample.number} have {total:,} values, and a metric of your "
            f"own can get {MOST_VALUES:,} for each sample",
            hint="declare [postprocess], such as argmax, or use a smaller output",
        )
    parts: List[NDArray[Any]] = [np.array([len(sample.outputs)], np.float64)]
    for name, value in sample.outputs.items():
        value = np.asarray(value)
        _check(name, value, sample.number)
        points = [ord(character) for character in name]
        head = [len(points), *points, _TYPES.index(value.dtype.name), value.ndim, *value.shape]
        parts += [np.array(head, np.float64), value.reshape(-1)]
    size = sum(part.size for part in parts)
    row = np.empty(size, np.float64)
    start = 0
    for part in parts:
        row[start : start + part.size] = part
        start += part.size
    return row


def decode_outputs(row: NDArray[np.float64]) -> Dict[str, NDArray[Any]]:
    """Return the outputs by name that ``collect_outputs`` put into a row.

    Raises:
        ValueError: the row is not from there.
    """
    found: Dict[str, NDArray[Any]] = {}
    reader = _RowReader(row)
    for _ in range(reader.read_count()):
        points = [reader.read_count(0x10FFFF) for _ in range(reader.read_count())]
        name = "".join(map(chr, points))
        dtype = np.dtype(_TYPES[reader.read_count(len(_TYPES) - 1)])
        shape = tuple(reader.read_count() for _ in range(reader.read_count(_MOST_AXES)))
        if name in found:
            raise ValueError("an output occurs twice")
        found[name] = _cast(reader.read_values(shape), dtype).reshape(shape)
    reader.check_end()
    return found


def _cast(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Convert values to the type of their output.

    Raises:
        ValueError: the type cannot hold them.
    """
    with np.errstate(all="ignore"):
        cast = values.astype(dtype)
    if not np.array_equal(cast.astype(np.float64), values):
        raise ValueError(f"values of an output are not of its type, {dtype}")
    return cast


class _RowReader:
    """Numbers of a row, read one after the other."""

    def __init__(self, row: NDArray[np.float64]) -> None:
        self._row, self._next = row, 0

    def read_count(self, most: int = _MOST_INTEGER) -> int:
        """Read a whole number from 0 to ``most``."""
        value = float(self.read_values(())[0])
        if not (0 <= value <= most and value.is_integer()):
            raise ValueError(f"{value} is not a whole number from 0 to {most}")
        return int(value)

    def check_end(self) -> None:
        """Refuse a row that goes on."""
        if self._next != self._row.size:
            raise ValueError("numbers follow the outputs")

    def read_values(self, shape: Tuple[int, ...]) -> NDArray[np.float64]:
        """Read as many values as an array of a shape has."""
        count = 1
        for size in shape:
            count *= size
        if count > self._row.size - self._next:
            raise ValueError("the outputs end early")
        values = self._row[self._next : self._next + count]
        self._next += count
        return values


def _check(name: str, value: NDArray[Any], number: int) -> None:
    """Check that a row can hold an output."""
    if value.dtype.name not in _TYPES:
        raise AgentError(
            "bad_job",
            f"output {name} has type {value.dtype}, which a metric of your own cannot get",
        )
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise AgentError("model_failed", f"output {name} of sample {number} is not finite")
    is_large = value.dtype.name in ("int64", "uint64") and value.size > 0
    if is_large and max(-int(value.min()), int(value.max())) > _MOST_INTEGER:
        raise AgentError(
            "bad_job",
            f"output {name} of sample {number} has integers above 2^53, which are not exact as "
            "numbers of a metric",
        )


STATISTICS: Dict[str, Statistic] = {OUTPUTS: collect_outputs}
