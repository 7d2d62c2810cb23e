"""Batches of model inputs, read from disk, preprocessed and cast. Needs numpy."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, Iterator, Mapping, Optional, Sequence, Tuple

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.metrics.ragged import cut_padding
from edgekit_agent.runtimes import Tensor
from edgekit_agent.samples import TARGET, Column, Preprocess, Samples, State

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.runtimes import Arrays, LoadedModel


_SEQUENCE = "sequence"


class Rows:
    """A column of samples that is read by seeking.

    Not memory-mapped: mapped pages would count as memory that the model needs.
    """

    def __init__(self, column: Column, file: BinaryIO) -> None:
        self.column = column
        self._file = file
        self._dtype = np.dtype(column.dtype)
        self._row_bytes = self._dtype.itemsize * int(np.prod(column.shape[1:], dtype=np.int64))
        needed_bytes = column.offset + column.shape[0] * self._row_bytes
        if os.fstat(file.fileno()).st_size < needed_bytes:
            raise AgentError("bad_job", f"{column.path}: too short for {column.name}")

    def read(self, start: int, count: int) -> NDArray[Any]:
        """Read rows ``start`` to ``start + count``.

        Raises:
            AgentError: ``bad_job``; the file ended early.
        """
        rows = np.empty((count, *self.column.shape[1:]), self._dtype)
        view = rows.reshape(-1).view(np.uint8).data
        self._file.seek(self.column.offset + start * self._row_bytes)
        while view:
            got = self._file.readinto(view)  # type: ignore[attr-defined]
            if not got:
                raise AgentError("bad_job", f"{self.column.path}: unexpected end of file")
            view = view[got:]
        return rows


@contextlib.contextmanager
def open_columns(columns: Sequence[Column]) -> Iterator[Dict[str, Rows]]:
    """Open the files of columns; yield the open columns by name."""
    with contextlib.ExitStack() as stack:
        yield {
            column.name: Rows(
                column, stack.enter_context(open(os.path.expanduser(column.path), "rb", 0))
            )
            for column in columns
        }


@dataclass(frozen=True)
class Batch:
    """Samples ``start`` to ``start + rows`` as inputs of ``size`` samples, the last one repeated.

    ``targets`` holds the rows of each target by name, the main one as ``y``; ragged ones are not
    cut yet. ``begins`` is true if a sequence starts here.
    """

    start: int
    rows: int
    inputs: Arrays
    targets: Arrays = field(default_factory=dict)
    size: int = 1
    begins: bool = False

    @property
    def labels(self) -> Optional[NDArray[Any]]:
        """Return the rows of the main target, if any."""
        return self.targets.get(TARGET)


def find_batch_size(samples: Samples, inputs: Sequence[Tensor]) -> Optional[int]:
    """Return the batch size that the inputs demand; ``None`` if any size will do."""
    columns = [*samples.columns, *(state.initial for state in samples.states)]
    return find_fixed_batch({column.name: column.axis for column in columns}, inputs)


def find_fixed_batch(axes: Mapping[str, int], inputs: Sequence[Tensor]) -> Optional[int]:
    """Return the batch size that the inputs demand; ``None`` if any size will do.

    Args:
        axes: axis of the samples, by input that has one; -1 for an input that is fed alone.
        inputs: inputs of the model.
    """
    for tensor in inputs:
        axis = axes.get(tensor.name)
        if axis is None or axis >= len(tensor.shape):
            continue
        if axis < 0:
            return 1
        size = tensor.shape[axis]
        if isinstance(size, int):
            return size
    return None


def iter_batches(
    samples: Samples, inputs: Sequence[Tensor], batch: int, first: int = 0
) -> Iterator[Batch]:
    """Yield all samples from ``first`` on in order, as model inputs of ``batch`` samples.

    If the model has states (see ``iter_runs``), they are missing from the inputs, and each batch is
    one sample, repeated. So is each batch of samples of different sizes, each cut to its own size.

    Args:
        samples: a column, a constant or a state for every input, by name.
        inputs: inputs of the model.
        batch: samples in each array; the last batch is filled by repeating its last sample.
        first: number of the sample to begin with.

    Raises:
        AgentError: ``bad_job``; columns and inputs don't belong together, and the text says how.
    """
    n = check_samples(samples, inputs)
    step = 1 if samples.states or samples.lengths else batch
    tensors_by_name = {tensor.name: tensor for tensor in inputs}
    constants = {c.name: _read_constant(c, tensors_by_name[c.name]) for c in samples.constants}
    targets = [replace(c, name=name) for name, c in samples.get_targets().items()]
    sequence = [] if samples.sequence is None else [replace(samples.sequence, name=_SEQUENCE)]
    last: Optional[int] = None
    with (
        open_columns(samples.columns) as columns,
        open_columns(samples.lengths) as lengths,
        open_columns(targets) as opened,
        open_columns(sequence) as numbers,
    ):
        for start in range(first, n, step):
            rows = min(step, n - start)
            arrays = dict(constants)
            for name, column in columns.items():
                raw = column.read(start, rows)
                if name in lengths:
                    own = lengths[name].read(start, 1)
                    raw = np.ascontiguousarray(cut_padding(name, raw[0], own, least=1)[None])
                arrays[name] = stack_rows(
                    raw, tensors_by_name[name], samples.preprocess, column.column.axis, batch
                )
            truth = {name: column.read(start, rows) for name, column in opened.items()}
            number = int(numbers[_SEQUENCE].read(start, 1)[0]) if sequence else 0
            yield Batch(start, rows, arrays, truth, batch, number != last)
            last = number


def iter_runs(
    samples: Samples, model: LoadedModel, batch: int, first: int = 0
) -> Iterator[Tuple[Batch, Dict[str, NDArray[Any]]]]:
    """Run a model over samples and carry its states along; yield each batch with its outputs.

    The inputs of each batch hold the states that it was run with. The states of sample ``first``
    depend on earlier samples of its sequence: these are run as well, but not yielded.

    Raises:
        AgentError: as ``iter_batches``; errors of the runtime; an output that does not fit the
            input of its state.
    """
    tensors_by_name = {tensor.name: tensor for tensor in model.inputs}
    initial = {
        state.initial.name: _read_initial_state(state, tensors_by_name, batch)
        for state in samples.states
    }
    states = dict(initial)
    for batch_rows in iter_batches(
        samples, model.inputs, batch, _find_sequence_start(samples, first)
    ):
        states = dict(initial) if batch_rows.begins else states
        batch_rows = replace(batch_rows, inputs={**batch_rows.inputs, **states})
        outputs = model.run(batch_rows.inputs)
        for state in samples.states:
            name = state.initial.name
            states[name] = get_next_state(outputs, state, tensors_by_name[name])
        if batch_rows.start >= first:
            yield batch_rows, outputs


def _find_sequence_start(samples: Samples, first: int) -> int:
    """Return the sample where the sequence of sample ``first`` begins, if the model has states."""
    if not samples.states or first == 0:
        return first
    if samples.sequence is None:
        return 0
    with open_columns([samples.sequence]) as opened:
        numbers = opened[samples.sequence.name].read(0, first + 1)
    others = np.flatnonzero(numbers != numbers[-1])
    return int(others[-1]) + 1 if others.size else 0


def _read_initial_state(
    state: State, tensors_by_name: Dict[str, Tensor], batch: int
) -> NDArray[Any]:
    column = state.initial
    if column.name not in tensors_by_name:
        raise AgentError("bad_job", f"the model has no input {column.name}, which is a state")
    with open_columns([column]) as opened:
        row = opened[column.name].read(0, 1)
    return stack_rows(row, tensors_by_name[column.name], None, column.axis, batch)


def get_next_state(outputs: Arrays, state: State, tensor: Tensor) -> NDArray[Any]:
    """Return the output that is fed back to the input of a state.

    Raises:
        AgentError: ``bad_job``; there is no such output, or it does not fit the input.
    """
    if state.output not in outputs:
        raise AgentError("bad_job", f"the model has no output {state.output} for {tensor.name}")
    value = np.asarray(outputs[state.output])
    fits = len(value.shape) == len(tensor.shape) and all(
        isinstance(want, str) or want == have for want, have in zip(tensor.shape, value.shape)
    )
    if not fits or value.dtype != np.dtype(tensor.dtype):
        raise AgentError(
            "bad_job",
            f"output {state.output} is {value.dtype} {_format_shape(value.shape)}, but the input "
            f"{tensor.name} that it is fed to is {tensor.dtype} {_format_shape(tensor.shape)}",
        )
    return value


def _read_constant(column: Column, tensor: Tensor) -> NDArray[Any]:
    """Read the value of an input that is the same in every run."""
    row = replace(column, shape=(1, *column.shape), axis=-1)
    with open_columns([row]) as opened:
        return stack_rows(opened[column.name].read(0, 1), tensor, None, -1, 1)


def check_samples(samples: Samples, inputs: Sequence[Tensor]) -> int:
    """Check that samples belong to a model's inputs; return the number of samples.

    Raises:
        AgentError: ``bad_job``; other names than the inputs', or columns of different lengths.
    """
    states = [state.initial for state in samples.states]
    have = sorted(column.name for column in (*samples.columns, *samples.constants, *states))
    want = sorted(tensor.name for tensor in inputs)
    if have != want:
        raise AgentError(
            "bad_job",
            f"the data has the columns {', '.join(have)}; the model's inputs are {', '.join(want)}",
            hint="name each column after its model input",
        )
    unknown = {c.name for c in samples.lengths} - {c.name for c in samples.columns}
    if unknown:
        raise AgentError(
            "bad_job", f"the data has lengths of {min(unknown)} but not {min(unknown)} itself"
        )
    single = [c for c in (samples.label, samples.sequence) if c is not None]
    columns = (*samples.columns, *single, *samples.targets, *samples.lengths)
    if len({column.shape[0] for column in columns}) > 1:
        lengths_text = ", ".join(f"{column.name} {column.shape[0]}" for column in columns)
        raise AgentError("bad_job", f"columns of different lengths: {lengths_text}")
    n = columns[0].shape[0] if columns else 0
    if n == 0:
        raise AgentError("bad_job", "the data has no samples")
    return n


def stack_rows(
    rows: NDArray[Any],
    tensor: Tensor,
    preprocess: Optional[Preprocess],
    axis: int,
    batch: int,
) -> NDArray[Any]:
    """Convert rows to the array of one input: preprocess, cast, pad to ``batch``, move the axis.

    Args:
        rows: samples, first axis = samples.
        tensor: the input.
        preprocess: normalization of the rows, if any.
        axis: axis of the input along which samples are stacked; -1 to feed one row alone.
        batch: samples in the array; the last row is repeated.

    Raises:
        AgentError: ``bad_job``; as ``prepare_rows``, or the input has no such axis.
    """
    if axis >= max(1, len(tensor.shape)):
        raise AgentError(
            "bad_job", f"input {tensor.name} has no axis {axis}, which should be the sample axis"
        )
    if axis < 0:
        batched_tensor = Tensor(tensor.name, tensor.dtype, (1, *tensor.shape))
        value: NDArray[Any] = np.asarray(prepare_rows(rows[:1], batched_tensor, preprocess)[0])
        return value
    shape = tensor.shape
    first = Tensor(
        tensor.name, tensor.dtype, (*shape[axis : axis + 1], *shape[:axis], *shape[axis + 1 :])
    )
    stacked = pad_rows(prepare_rows(rows, first, preprocess), batch)
    return stacked if axis == 0 else np.ascontiguousarray(np.moveaxis(stacked, 0, axis))


def pad_rows(rows: NDArray[Any], batch: int) -> NDArray[Any]:
    """Repeat the last row until there are ``batch`` rows."""
    missing = batch - rows.shape[0]
    return rows if missing <= 0 else np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])


def prepare_rows(
    rows: NDArray[Any], tensor: Tensor, preprocess: Optional[Preprocess]
) -> NDArray[Any]:
    """Preprocess rows for a float input, cast them to the type of the input, and check their shape.

    Raises:
        AgentError: ``bad_job``; the cast would change values, or the shape does not fit.
    """
    dtype = np.dtype(tensor.dtype)
    if preprocess is not None and dtype.kind == "f":
        rows = _preprocess(rows, preprocess, tensor.name)
    rows = cast_values(rows, dtype, tensor.name)
    fits = len(rows.shape) == len(tensor.shape) and all(
        isinstance(want, str) or want == have
        for want, have in zip(tensor.shape[1:], rows.shape[1:])
    )
    if not fits:
        raise AgentError(
            "bad_job",
            f"input {tensor.name} has shape {_format_shape(tensor.shape)}, the data "
            f"{_format_shape(rows.shape)}",
            hint="the first axis of the data is the sample axis; channels_first converts NHWC "
            "images to NCHW",
        )
    return rows


def _preprocess(rows: NDArray[Any], preprocess: Preprocess, name: str) -> NDArray[Any]:
    mean, std = np.asarray(preprocess.mean, np.float32), np.asarray(preprocess.std, np.float32)
    for values in (mean, std):
        if values.size not in (1, rows.shape[-1]):
            raise AgentError(
                "bad_job",
                f"{name}: {values.size} values of mean or std for {rows.shape[-1]} channels",
            )
    scaled = rows.astype(np.float32)
    scaled *= np.float32(preprocess.scale)
    scaled -= mean
    scaled /= std
    if preprocess.channels_first and scaled.ndim == 4:
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
    return scaled


def cast_values(rows: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Cast the values of an input to a type, by which floats may be rounded but nothing else.

    Raises:
        AgentError: ``bad_job``; values change.
    """
    if rows.dtype == dtype:
        return rows
    with np.errstate(invalid="ignore", over="ignore"):  # such values are refused below
        cast = rows.astype(dtype)
    if np.can_cast(rows.dtype, dtype, "safe") or (rows.dtype.kind == dtype.kind == "f"):
        return cast
    # Both ways: -1 survives the cast to uint8 and back, and 2**53 + 1 equals its float neighbor.
    if not (np.array_equal(cast, rows) and np.array_equal(cast.astype(rows.dtype), rows)):
        raise AgentError(
            "bad_job",
            f"input {name} has type {dtype}; converting the data from {rows.dtype} changes values",
            hint="save the data in the type of the model input",
        )
    return cast


def _format_shape(shape: Sequence[object]) -> str:
    return f"[{', '.join(str(dim) for dim in shape)}]"
