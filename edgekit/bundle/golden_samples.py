"""Golden samples: a few small inputs with the outputs that a device must reproduce."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgekit.config.profile import RuntimeName
from edgekit.data.dataset import Dataset
from edgekit.errors import UserError
from edgekit_agent.measure.feeds import find_batch_size, iter_batches
from edgekit_agent.measure.health import Axes, check_golden_size, choose_positions, run_samples
from edgekit_agent.runtimes import LoadedModel, import_runtime

Arrays = Mapping[str, NDArray[Any]]

# Number of samples to keep (those with the most different outputs), and to choose from.
_KEPT, _LOOKED_AT = 2, 8
# One value of a sample for this many bytes of the model, between the two bounds.
_BYTES_PER_VALUE, _FEWEST_VALUES, _MOST_VALUES = 2048, 64, 1024
# Larger outputs are compared at this many positions only.
_OUTPUT_VALUES = 128
# Sign, exponent and the upper three bits of the fraction of a float16.
_UPPER_DIGITS = np.uint16(0xFF80)
_HALF_MOST, _HALF_LEAST = 3e4, 1e-3


def check_golden_samples(file: str | BinaryIO, where: str) -> None:
    """Check that golden samples unpack to no more than a device accepts.

    Args:
        file: The .npz file, as a path or open.
        where: Name of the file for the message.

    Raises:
        UserError: They are larger, or the file is not a zip file.
    """
    try:
        check_golden_size(file)
    except (ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{where}: not valid golden samples: {error}", hint="build again"
        ) from error


def make_golden_samples(
    path: Path, runtime: RuntimeName, threads: int, *, split: Dataset, model_bytes: int
) -> bytes:
    """Make the golden samples of a model as one .npz file, from real samples.

    They are part of every update, so they are kept small: each is a coarse copy of a real sample,
    in constant blocks, with floats rounded to 16 bits. If the model has non-finite outputs on the
    coarse copies, finer copies or the real samples are used. The outputs are computed from the
    stored inputs.

    Args:
        path: The model.
        runtime: Runtime on this machine.
        threads: Number of threads.
        split: Real samples.
        model_bytes: Size of the model file.
    """
    loaded = import_runtime(runtime)(str(path), threads)
    real, constants, axes = _read_inputs(loaded, split.first(_LOOKED_AT))
    run = partial(_run, loaded, constants, axes)
    most = min(max(model_bytes // _BYTES_PER_VALUE, _FEWEST_VALUES), _MOST_VALUES)
    wanted = run(real)
    rounded = {name: _round_to_half(values) for name, values in real.items()}
    coarse = {name: _fill_blocks(values, most) for name, values in rounded.items()}
    for fed in (coarse, rounded, real):
        made = run(fed)
        if _are_as_finite(made, wanted):
            break
    kept = _pick_most_different(made, len(next(iter(fed.values()))))
    inputs = {name: values[kept] for name, values in fed.items()}
    outputs = run(inputs)
    arrays = {f"input:{name}": values for name, values in inputs.items()}
    arrays |= {f"axis:{name}": np.array([axis]) for name, axis in axes.items() if axis}
    arrays |= {f"constant:{name}": value[None] for name, value in constants.items()}
    arrays |= dict(_select_expected(name, values) for name, values in outputs.items())
    buffer = BytesIO()
    np.savez_compressed(buffer, **{k: arrays[k] for k in sorted(arrays)})  # type: ignore[arg-type]
    return buffer.getvalue()


def _read_inputs(
    loaded: LoadedModel, split: Dataset
) -> tuple[dict[str, NDArray[Any]], Arrays, Axes]:
    """Read samples with the sample axis first; also return the constants and the sample axes."""
    samples = split.samples
    batch = find_batch_size(samples, loaded.inputs) or 1
    axes = {column.name: column.axis for column in samples.columns}
    parts: list[Arrays] = []
    constants: dict[str, NDArray[Any]] = {}
    for part in iter_batches(samples, loaded.inputs, batch):
        rows: dict[str, NDArray[Any]] = {}
        for name, values in part.inputs.items():
            if name not in axes:
                constants[name] = values
                continue
            first = values[None] if axes[name] < 0 else np.moveaxis(values, axes[name], 0)
            rows[name] = first[: part.rows]
        parts.append(rows)
    if samples.lengths:
        parts = _cut_to_smallest(parts)
    joined = {name: np.concatenate([each[name] for each in parts]) for name in axes}
    return joined, constants, {**axes}


def _cut_to_smallest(parts: Sequence[Arrays]) -> list[Arrays]:
    """Cut samples to the size of the smallest one; leave out those that are shorter somewhere."""
    smallest = min(parts, key=lambda part: sum(values.size for values in part.values()))
    sizes = {name: values.shape for name, values in smallest.items()}
    cuts = {name: tuple(slice(size) for size in shape) for name, shape in sizes.items()}
    cut = [{name: values[cuts[name]] for name, values in part.items()} for part in parts]
    return [part for part in cut if all(part[name].shape == sizes[name] for name in sizes)]


def _run(loaded: LoadedModel, constants: Arrays, axes: Axes, inputs: Arrays) -> Arrays:
    fed, known = {**inputs, **constants}, {**axes, **dict.fromkeys(constants)}
    return run_samples(loaded, fed, known, lambda *_: None)


def _fill_blocks(values: NDArray[Any], most: int) -> NDArray[Any]:
    """Make samples constant in blocks, with at most a given number of blocks each."""
    shape = values.shape[1:]
    blocks = [1] * len(shape)
    counts = list(shape)
    while np.prod(counts, dtype=np.int64) > most:
        widest = int(np.argmax(counts))
        blocks[widest] *= 2
        counts[widest] = -(-shape[widest] // blocks[widest])
    for axis, (block, size) in enumerate(zip(blocks, shape, strict=True), 1):
        if block > 1:
            first = np.arange(size) // block * block
            values = values.take(first, axis=axis)
    return _cut_digits(values) if max(blocks, default=1) > 1 else values


def _cut_digits(values: NDArray[Any]) -> NDArray[Any]:
    """Clear the lower digits of float16 values, so that they compress well."""
    if values.dtype != np.float16:
        return values
    return (values.view(np.uint16) & _UPPER_DIGITS).view(np.float16)


def _round_to_half(values: NDArray[Any]) -> NDArray[Any]:
    """Round floats to float16 if their range allows it."""
    if values.dtype.kind != "f" or values.dtype.itemsize <= np.dtype(np.float16).itemsize:
        return values
    finite = np.isfinite(values)
    size = float(np.abs(values[finite]).max()) if finite.any() else 0.0
    return values.astype(np.float16) if _HALF_LEAST < size < _HALF_MOST else values


def _are_as_finite(made: Arrays, real: Arrays) -> bool:
    """Return whether outputs are finite at least as often as those of the real samples."""
    return all(
        np.isfinite(made[name]).mean() >= np.isfinite(values).mean()
        for name, values in real.items()
        if values.dtype.kind == "f"
    )


def _pick_most_different(outputs: Arrays, count: int) -> list[int]:
    """Pick the two samples whose outputs differ most."""
    if count <= _KEPT:
        return list(range(count))
    rows = [
        np.nan_to_num(v.astype(np.float64), posinf=0.0, neginf=0.0).reshape(count, -1)
        for v in outputs.values()
        if len(v) == count
    ]
    scaled = [r / (np.sqrt(np.mean(r**2)) or 1.0) / np.sqrt(r.shape[1]) for r in rows if r.size]
    return list(
        max(
            itertools.combinations(range(count), _KEPT),
            key=lambda pair: sum(_compute_distance(r, *pair) for r in scaled),
        )
    )


def _compute_distance(rows: NDArray[np.float64], one: int, other: int) -> float:
    return float(np.sum((rows[one] - rows[other]) ** 2))


def _select_expected(name: str, values: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    """Select the stored part of an output: all of it, or evenly spaced positions of a large one."""
    flat = values.reshape(len(values), -1)
    if flat.shape[1] <= _OUTPUT_VALUES:
        return f"output:{name}", _round_to_half(values)
    return f"picked:{name}", _round_to_half(
        flat[:, choose_positions(flat.shape[1], _OUTPUT_VALUES)]
    )
