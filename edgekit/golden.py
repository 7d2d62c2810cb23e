"""Golden samples: a few small inputs, and the outputs that a device must repeat on them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data import Dataset
from edgekit.profile import RuntimeName
from edgekit_agent.feeds import batch_size, batches
from edgekit_agent.health import Axes, positions, run_samples
from edgekit_agent.runtimes import Loaded, import_runtime

Arrays = Mapping[str, NDArray[Any]]

# Two samples whose outputs differ most, of so many.
_KEPT, _LOOKED_AT = 2, 8
# Values of a sample: one for so many bytes of the model, but no fewer and no more than these.
_BYTES_PER_VALUE, _FEWEST_VALUES, _MOST_VALUES = 2048, 64, 1024
# An output of more values a sample is compared at so many places.
_OUTPUT_VALUES = 128
# Sign, exponent and the first three bits of the fraction of a float of 16 bits.
_UPPER_DIGITS = np.uint16(0xFF80)
_HALF_MOST, _HALF_LEAST = 3e4, 1e-3


def golden_samples(
    path: Path, runtime: RuntimeName, threads: int, *, split: Dataset, model_bytes: int
) -> bytes:
    """Golden samples of a model as a file, from real samples.

    They travel with every update. So each is a coarse copy of a real sample, in blocks of one
    value, as fine as a small part of the model's size allows, and its floats are rounded to 16
    bits; samples on which the coarse copy leaves the range where the model has finite outputs
    stay as they are. The outputs are those of this very input.

    Args:
        path: the model.
        runtime: what runs it here.
        threads: for the runtime.
        split: real samples.
        model_bytes: the size of the model's file.
    """
    loaded = import_runtime(runtime)(str(path), threads)
    real, constants, axes = _inputs(loaded, split.first(_LOOKED_AT))
    run = partial(_outputs, loaded, constants, axes)
    most = min(max(model_bytes // _BYTES_PER_VALUE, _FEWEST_VALUES), _MOST_VALUES)
    wanted = run(real)
    rounded = {name: _rounded(values) for name, values in real.items()}
    coarse = {name: _coarse(values, most) for name, values in rounded.items()}
    for fed in (coarse, rounded, real):
        made = run(fed)
        if _as_finite(made, wanted):
            break
    kept = _most_different(made, len(next(iter(fed.values()))))
    inputs = {name: values[kept] for name, values in fed.items()}
    outputs = run(inputs)
    arrays = {f"input:{name}": values for name, values in inputs.items()}
    arrays |= {f"axis:{name}": np.array([axis]) for name, axis in axes.items() if axis}
    arrays |= {f"constant:{name}": value[None] for name, value in constants.items()}
    arrays |= dict(_expected(name, values) for name, values in outputs.items())
    buffer = BytesIO()
    np.savez_compressed(buffer, **{k: arrays[k] for k in sorted(arrays)})  # type: ignore[arg-type]
    return buffer.getvalue()


def _inputs(loaded: Loaded, split: Dataset) -> tuple[dict[str, NDArray[Any]], Arrays, Axes]:
    """Samples as the model takes them, the first axis theirs; constants; the axes of samples."""
    samples = split.samples
    batch = batch_size(samples, loaded.inputs) or 1
    axes = {column.name: column.axis for column in samples.columns}
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in axes}
    constants: dict[str, NDArray[Any]] = {}
    for part in batches(samples, loaded.inputs, batch):
        for name, values in part.inputs.items():
            if name not in axes:
                constants[name] = values
                continue
            rows = values[None] if axes[name] < 0 else np.moveaxis(values, axes[name], 0)
            parts[name].append(rows[: part.rows])
    return {name: np.concatenate(rows) for name, rows in parts.items()}, constants, {**axes}


def _outputs(loaded: Loaded, constants: Arrays, axes: Axes, inputs: Arrays) -> Arrays:
    fed, known = {**inputs, **constants}, {**axes, **dict.fromkeys(constants)}
    return run_samples(loaded, fed, known, lambda *_: None)


def _coarse(values: NDArray[Any], most: int) -> NDArray[Any]:
    """Samples in blocks of one value, at most so many blocks each."""
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
    return _short(values) if max(blocks, default=1) > 1 else values


def _short(values: NDArray[Any]) -> NDArray[Any]:
    """Floats of 16 bits with the lower half of their digits cut off, which deflate well."""
    if values.dtype != np.float16:
        return values
    return (values.view(np.uint16) & _UPPER_DIGITS).view(np.float16)


def _rounded(values: NDArray[Any]) -> NDArray[Any]:
    """Floats in 16 bits, where these have the range for it."""
    if values.dtype.kind != "f" or values.dtype.itemsize <= np.dtype(np.float16).itemsize:
        return values
    finite = np.isfinite(values)
    size = float(np.abs(values[finite]).max()) if finite.any() else 0.0
    return values.astype(np.float16) if _HALF_LEAST < size < _HALF_MOST else values


def _as_finite(made: Arrays, real: Arrays) -> bool:
    """Whether outputs are finite wherever the real samples' are."""
    return all(
        np.isfinite(made[name]).mean() >= np.isfinite(values).mean()
        for name, values in real.items()
        if values.dtype.kind == "f"
    )


def _most_different(outputs: Arrays, count: int) -> list[int]:
    """The samples whose outputs are furthest apart."""
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
            key=lambda pair: sum(_distance(r, *pair) for r in scaled),
        )
    )


def _distance(rows: NDArray[np.float64], one: int, other: int) -> float:
    return float(np.sum((rows[one] - rows[other]) ** 2))


def _expected(name: str, values: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    """An output as it is stored: all of it, or of a large one evenly spaced places."""
    flat = values.reshape(len(values), -1)
    if flat.shape[1] <= _OUTPUT_VALUES:
        return f"output:{name}", _rounded(values)
    return f"picked:{name}", _rounded(flat[:, positions(flat.shape[1], _OUTPUT_VALUES)])
