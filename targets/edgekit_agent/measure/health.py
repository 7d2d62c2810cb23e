"""Health check of a model: run its golden samples and compare with the host. Needs numpy."""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, List, Optional, Tuple, Union

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.limits import MOST_GOLDEN_BYTES
from edgekit_agent.measure.feeds import find_fixed_batch, stack_rows
from edgekit_agent.measure.model_loading import load_model
from edgekit_agent.measure.relative_error import compute_relative_rms
from edgekit_agent.runtimes import LoadedModel
from edgekit_agent.wire import Progress
from edgekit_agent.worker_jobs import HealthJob
from edgekit_agent.worker_results import Health

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.runtimes import Arrays

# Axis along which samples are stacked, by input; None for an input of one value.
Axes = Dict[str, Optional[int]]

# Exceptions when a damaged file of arrays is read; MemoryError if a header claims a huge array.
_DAMAGE = (
    ValueError,
    zipfile.BadZipFile,
    AttributeError,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    tokenize.TokenError,  # numpy parses the headers as Python
    zlib.error,
)

# Error of an output of another shape or with non-finite numbers; JSON has no infinity.
INCOMPARABLE = 1e9


def check_health(job: HealthJob, progress: Progress) -> Health:
    """Compare the outputs of the golden samples with those of the host; the largest error counts.

    The error of an output is its relative RMS error.

    Raises:
        AgentError: ``bad_job`` for a damaged file of golden samples; errors of the runtime.
    """
    path = os.path.expanduser(job.golden_samples)
    golden = read_golden_samples(path)
    progress("load", 0, 0)
    model = load_model(job.model).model
    return _compare(model, golden, path, job.max_relative_error, progress)


def check_model(
    model: LoadedModel, path: str, max_relative_error: float, progress: Progress
) -> Health:
    """Compare the outputs of a loaded model for golden samples with those of the host.

    Args:
        model: the model.
        path: file of the golden samples.
        max_relative_error: largest error of a healthy model.
        progress: called with the number of samples done.

    Raises:
        AgentError: ``bad_job`` for a damaged file of golden samples; errors of the runtime.
    """
    return _compare(model, read_golden_samples(path), path, max_relative_error, progress)


def _compare(
    model: LoadedModel,
    golden: Tuple[Arrays, Axes, Arrays, Arrays],
    path: str,
    max_relative_error: float,
    progress: Progress,
) -> Health:
    inputs, axes, expected, picked = golden
    missing = {t.name for t in model.inputs} ^ set(inputs) | (
        (set(expected) | set(picked)) - {t.name for t in model.outputs}
    )
    if missing:
        raise AgentError(
            "bad_job",
            f"{path}: these golden samples belong to another model; the model lacks "
            f"{', '.join(sorted(missing))}",
        )
    outputs = run_samples(model, inputs, axes, progress)
    errors = {name: _compute_error(outputs[name], values) for name, values in expected.items()}
    errors.update({name: _compute_picked_error(outputs[name], v) for name, v in picked.items()})
    worst = max(errors, key=lambda name: errors[name][0])
    figure, output = errors[worst]
    healthy = figure <= max_relative_error
    detail = "" if healthy else f"output {worst} {output}, the limit is {max_relative_error:g}"
    return Health(healthy, figure, detail)


def choose_positions(size: int, count: int) -> NDArray[np.int64]:
    """Return ``count`` evenly spaced indices of a flat output of ``size`` values.

    A large output is compared at these alone.
    """
    positions: NDArray[np.int64] = np.arange(count, dtype=np.int64) * size // count
    return positions


def read_golden_samples(path: str) -> Tuple[Arrays, Axes, Arrays, Arrays]:
    """Read inputs, the sample axis of each, complete outputs, and outputs at some positions.

    ``axis:NAME`` holds the axis where it is not the first, ``constant:NAME`` the one value of an
    input, ``picked:NAME`` an output at some positions; see ``choose_positions``.
    """
    arrays = read_golden_arrays(path)
    inputs, outputs, picked = (
        _select_by_prefix(arrays, p) for p in ("input:", "output:", "picked:")
    )
    for prefix, side in (("input:", inputs), ("output:", {**outputs, **picked})):
        if not side or any(v.ndim == 0 or not v.size for v in side.values()):
            raise AgentError(
                "bad_job", f"{path}: not valid golden samples: the arrays {prefix}NAME are missing"
            )
    axes: Axes = {name: int(arrays.get(f"axis:{name}", (0,))[0]) for name in inputs}
    constants = {
        name: np.asarray(v[0]) for name, v in _select_by_prefix(arrays, "constant:").items()
    }
    axes.update(dict.fromkeys(constants))
    return {**inputs, **constants}, axes, outputs, picked


def read_golden_arrays(path: str) -> Dict[str, NDArray[Any]]:
    """Read the arrays of a file of golden samples after checking their sizes.

    Raises:
        AgentError: ``bad_job``: it is no such file, or too large.
    """
    try:
        check_golden_size(path)
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except _DAMAGE as error:
        raise AgentError("bad_job", f"{path}: not a file of golden samples: {error}") from error


def check_golden_size(file: Union[str, BinaryIO]) -> None:
    """Check the declared sizes of the arrays of golden samples.

    Args:
        file: a path or an open file.

    Raises:
        ValueError: the arrays are larger than golden samples may be.
        zipfile.BadZipFile: it is no zip file.
    """
    with zipfile.ZipFile(file) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > MOST_GOLDEN_BYTES:
        raise ValueError(f"expands to {size} bytes, more than the limit of {MOST_GOLDEN_BYTES}")


def _select_by_prefix(arrays: Arrays, prefix: str) -> Arrays:
    return {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}


def run_samples(model: LoadedModel, inputs: Arrays, axes: Axes, progress: Progress) -> Arrays:
    """Compute the outputs of all samples, at the model's own batch size (1 if it takes any).

    Args:
        model: the model.
        inputs: samples of each input, or its one value.
        axes: the axis of each input along which samples are stacked; ``None`` for one value.
        progress: called with the number of samples done.
    """
    stacks = {name: axis for name, axis in axes.items() if axis is not None}
    batch, n = (
        find_fixed_batch(stacks, model.inputs) or 1,
        min(len(inputs[name]) for name in stacks),
    )
    parts: Dict[str, List[NDArray[Any]]] = {tensor.name: [] for tensor in model.outputs}
    for start in range(0, n, batch):
        rows = min(batch, n - start)
        outputs = model.run(
            {
                tensor.name: stack_rows(
                    inputs[tensor.name][start : start + rows],
                    tensor,
                    None,
                    stacks[tensor.name],
                    batch,
                )
                if tensor.name in stacks
                else inputs[tensor.name]
                for tensor in model.inputs
            }
        )
        for name, values in outputs.items():
            array = np.asarray(values)
            # An output without a batch axis is one row.
            parts[name].append(array[:rows] if array.shape[:1] == (batch,) else array[None])
        progress("health", start + rows, n)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _compute_picked_error(actual: NDArray[Any], expected: NDArray[Any]) -> Tuple[float, str]:
    flat = actual.reshape(len(actual), -1)
    if flat.shape[1] < expected.shape[1]:
        return INCOMPARABLE, f"has shape {actual.shape}"
    return _compute_error(flat[:, choose_positions(flat.shape[1], expected.shape[1])], expected)


def _compute_error(actual: NDArray[Any], expected: NDArray[Any]) -> Tuple[float, str]:
    if actual.size != expected.size or actual.shape[1:] != expected.shape[1:]:
        return INCOMPARABLE, f"has shape {actual.shape} instead of {expected.shape}"
    result, reference = actual.astype(np.float64), expected.astype(np.float64)
    # Non-finite values, such as masks of minus infinity, must equal those of the host.
    finite = np.isfinite(reference)
    if not np.isfinite(result[finite]).all():
        return INCOMPARABLE, "is not finite"
    if not np.array_equal(result[~finite], reference[~finite], equal_nan=True):
        return INCOMPARABLE, "differs where the expected output is not finite"
    if not finite.any():
        return 0.0, ""
    with np.errstate(over="ignore"):
        relative = min(compute_relative_rms(reference[finite], result[finite]), INCOMPARABLE)
    return relative, f"has a relative RMS error of {relative:.3g}"
