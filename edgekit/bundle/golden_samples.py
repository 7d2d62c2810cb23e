"""Golden samples: a few small inputs with the outputs that a device must reproduce."""

from __future__ import annotations

import itertools
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.golden_inputs import (
    Arrays,
    InputRows,
    fill_blocks,
    read_input_rows,
    round_to_half,
)
from edgekit.bundle.sample_statistics import (
    FEWEST_SAMPLES,
    Array,
    CodeStatistics,
    InputStatistics,
    KnownStatistics,
)
from edgekit.bundle.synthetic_samples import Look, draw_samples
from edgekit.config.profile import RuntimeName
from edgekit.config.project import GoldenKind
from edgekit.data.dataset import Dataset
from edgekit.errors import UserError
from edgekit_agent.failures import AgentError
from edgekit_agent.measure.health import Axes, check_golden_size, choose_positions, run_samples
from edgekit_agent.runtimes import LoadedModel, import_runtime

# Number of samples to keep (those with the most different outputs), and to choose from.
_KEPT, _LOOKED_AT = 2, 8
# Most samples, and most bytes of them, whose statistics are computed.
_MOST_SAMPLES, _MOST_BYTES = 64, 1 << 24
# One value of a sample for this many bytes of the model, between the two bounds.
_BYTES_PER_VALUE, _FEWEST_VALUES, _MOST_VALUES = 2048, 64, 1024
# Larger outputs are compared at this many positions only.
_OUTPUT_VALUES = 128
# Looks of synthetic samples, drawn in turn until the outputs differ enough. The contrasts below 1
# are for models whose outputs are not finite else; the last one draws the average sample.
_LOOKS = (
    Look(smoothing=1.5),
    Look(),
    Look(contrast=2.0, smoothing=1.5),
    Look(contrast=2.0),
    Look(contrast=0.5),
    Look(contrast=0.25),
    Look(contrast=0.0),
)
# Difference of the outputs of two synthetic samples relative to the mean one of real samples: with
# the first share no more samples are drawn, and below the second one the user is told.
_ENOUGH_SPREAD, _LEAST_SPREAD = 0.5, 0.25
# Squared distances up to this share of the largest one are those of equal samples, computed in
# float32.
_RESOLUTION = 1e-5


class NoGoldenSamples(UserError):
    """A model has outputs that are not finite on each synthetic golden sample."""


@dataclass(frozen=True, kw_only=True)
class GoldenSamples:
    """A file of golden samples, with a remark for the user; empty if there is none."""

    data: bytes
    note: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Choice:
    """Inputs to keep, and the difference of their outputs relative to that of real samples."""

    inputs: Arrays
    spread: float


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
    path: Path,
    runtime: RuntimeName,
    threads: int,
    *,
    split: Dataset,
    model_bytes: int,
    kind: GoldenKind = "synthetic",
    seed: int = 0,
    known: KnownStatistics | None = None,
) -> GoldenSamples:
    """Make the golden samples of a model as one .npz file.

    They are part of every update, so they are kept small: constant in blocks, with floats rounded
    to 16 bits. If the model has non-finite outputs on such inputs, finer ones are used. The outputs
    are computed from the stored inputs.

    Args:
        path: The model.
        runtime: Runtime on this machine.
        threads: Number of threads.
        split: Real samples.
        model_bytes: Size of the model file.
        kind: ``synthetic`` draws inputs from statistics over the samples; ``calibration`` copies
            samples coarsely.
        seed: Seed of the draws.
        known: Statistics of the inputs of other models, to which those of this one are added.

    Raises:
        NoGoldenSamples: The model has non-finite outputs on each synthetic sample.
    """
    loaded = import_runtime(runtime)(str(path), threads)
    real = read_input_rows(loaded, split.first(_LOOKED_AT), sizes_of=_LOOKED_AT)
    run = partial(_run, loaded, real)
    wanted = run(real.rows)
    most = min(max(model_bytes // _BYTES_PER_VALUE, _FEWEST_VALUES), _MOST_VALUES)
    note = ""
    if kind == "calibration":
        coarse, outputs = next(_iter_runs(run, real.rows, wanted, most))
        kept = _pick_most_different(outputs, real.count)
        inputs: Arrays = {name: values[kept] for name, values in coarse.items()}
    else:
        many = read_input_rows(
            loaded, split.first(_count_affordable(real)), sizes_of=_LOOKED_AT
        ).rows
        known = known or KnownStatistics()
        statistics = {name: known.compute(values) for name, values in many.items()}
        inputs, note = _make_synthetic(run, many, wanted, statistics, most=most, seed=seed)
    return GoldenSamples(data=_encode(inputs, run(inputs), real), note=note)


def _count_affordable(real: InputRows) -> int:
    row_bytes = sum(values[0].nbytes for values in real.rows.values())
    return int(max(min(_MOST_SAMPLES, _MOST_BYTES // max(row_bytes, 1)), FEWEST_SAMPLES))


def _encode(inputs: Arrays, outputs: Arrays, real: InputRows) -> bytes:
    arrays = {f"input:{name}": values for name, values in inputs.items()}
    arrays |= {f"axis:{name}": np.array([axis]) for name, axis in real.axes.items() if axis}
    arrays |= {f"constant:{name}": value[None] for name, value in real.constants.items()}
    arrays |= dict(_select_expected(name, values) for name, values in outputs.items())
    buffer = BytesIO()
    np.savez_compressed(buffer, **{k: arrays[k] for k in sorted(arrays)})  # type: ignore[arg-type]
    return buffer.getvalue()


def _run(loaded: LoadedModel, real: InputRows, inputs: Arrays) -> Arrays:
    fed = {**inputs, **real.constants}
    known: Axes = {**real.axes, **dict.fromkeys(real.constants)}
    return run_samples(loaded, fed, known, lambda *_: None)


def _iter_runs(
    run: partial[Arrays], exact: Arrays, wanted: Arrays, most: int
) -> Iterator[tuple[Arrays, Arrays]]:
    """Yield inputs and outputs of samples on which the outputs are as finite as wanted.

    The coarsest samples come first, and the exact ones last.
    """
    rounded = {name: round_to_half(values) for name, values in exact.items()}
    coarse = {name: fill_blocks(values, most) for name, values in rounded.items()}
    for fed in (coarse, rounded):
        outputs = run(fed)
        if _are_as_finite(outputs, wanted):
            yield fed, outputs
    yield exact, run(exact)


def _make_synthetic(
    run: partial[Arrays],
    real: Arrays,
    wanted: Arrays,
    statistics: dict[str, InputStatistics],
    *,
    most: int,
    seed: int,
) -> tuple[Arrays, str]:
    """Draw samples whose outputs are finite and differ about as much as those of real samples."""
    rng = np.random.default_rng(seed)
    best: _Choice | None = None
    for look in _LOOKS:
        if best is not None and (look.contrast < 1 or best.spread >= _ENOUGH_SPREAD):
            break
        drawn = {
            name: draw_samples(each, _LOOKED_AT, rng, look) for name, each in statistics.items()
        }
        compared = real if look.contrast >= 1 else None  # the average sample is near to all
        found = _choose(run, drawn, wanted, most, compared, statistics)
        if found is not None and (best is None or found.spread > best.spread):
            best = found
    if best is None:
        raise NoGoldenSamples(
            "the model has outputs that are not finite on each synthetic golden sample, even on "
            "the average of the samples",
            hint='[golden] samples = "calibration" in edgekit.toml takes coarse copies of samples, '
            "which are then part of the bundle",
        )
    if best.spread >= _LEAST_SPREAD:
        return best.inputs, ""
    return best.inputs, (
        "the outputs of the synthetic golden samples differ by "
        f"{best.spread:.0%} of the difference of real samples, so that the health check of devices "
        'may overlook more; [golden] samples = "calibration" takes coarse copies of samples'
    )


def _choose(
    run: partial[Arrays],
    drawn: Arrays,
    wanted: Arrays,
    most: int,
    real: Arrays | None,
    statistics: dict[str, InputStatistics],
) -> _Choice | None:
    """Choose the two samples whose outputs differ most; ``None`` if outputs are not finite."""
    try:
        fed, outputs = next(_iter_runs(run, drawn, wanted, most))
    except AgentError:
        return None  # the runtime refuses such inputs
    if not _are_as_finite(outputs, wanted):
        return None
    far = _find_distant(fed, real, statistics) if real else np.arange(_LOOKED_AT)
    if len(far) < _KEPT:
        return None
    kept = far[_pick_most_different({n: v[far] for n, v in outputs.items()}, len(far))]
    spread = _compute_spread({n: v[kept] for n, v in outputs.items()}, wanted)
    return _Choice(inputs={name: values[kept] for name, values in fed.items()}, spread=spread)


def _find_distant(
    drawn: Arrays, real: Arrays, statistics: dict[str, InputStatistics]
) -> NDArray[np.int64]:
    """Return the draws that are no nearer to a real sample than real samples are to each other.

    All draws are returned if none is, as with a few categories, where each sample is frequent.
    """
    among, others = (
        np.sum([_compare(rows[name], real[name], each) for name, each in statistics.items()], 0)
        for rows in (real, drawn)
    )
    apart = among[among > _RESOLUTION * among.max()]
    far = np.flatnonzero(others.min(1) >= (apart.min() if apart.size else 0.0))
    return far if len(far) >= _KEPT else np.arange(len(others))


def _compare(one: NDArray[Any], other: NDArray[Any], found: InputStatistics) -> Array:
    """Compute the squared distances of samples, in standard deviations or unequal codes."""
    if isinstance(found, CodeStatistics):
        flat = [values.reshape(len(values), -1) for values in (one, other)]
        return np.array([(row != flat[1]).sum(1) for row in flat[0]], np.float64)
    scale = np.where(found.std > 0, found.std, 1.0)
    left, right = (
        ((values - found.mean) / scale).reshape(len(values), -1).astype(np.float32)
        for values in (one, other)
    )
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
    return np.asarray(np.maximum(squares, 0.0), np.float64)


def _compute_spread(kept: Arrays, wanted: Arrays) -> float:
    """Return the difference of the kept outputs relative to the mean one of real samples.

    It is 1 if the outputs of all real samples are equal.
    """
    count = len(next(iter(wanted.values())))
    pairs = list(itertools.combinations(range(count), 2))
    found = expected = 0.0
    for name, values in wanted.items():
        if len(values) != count or len(kept[name]) != _KEPT:
            continue
        rows, own = _flatten(values), _flatten(kept[name])
        scale = float(np.sum(rows**2)) or 1.0
        expected += math.fsum(_compute_distance(rows, *pair) for pair in pairs) / scale
        found += len(pairs) * _compute_distance(own, 0, 1) / scale
    return math.sqrt(found / expected) if expected > 0 else 1.0


def _flatten(values: NDArray[Any]) -> Array:
    """Return one row of finite numbers for each sample."""
    rows = values.astype(np.float64).reshape(len(values), -1)
    return np.nan_to_num(rows, posinf=0.0, neginf=0.0)


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
    rows = [_flatten(values) for values in outputs.values() if len(values) == count]
    scaled = [r / (np.sqrt(np.mean(r**2)) or 1.0) / np.sqrt(r.shape[1]) for r in rows if r.size]
    return list(
        max(
            itertools.combinations(range(count), _KEPT),
            key=lambda pair: sum(_compute_distance(r, *pair) for r in scaled),
        )
    )


def _compute_distance(rows: Array, one: int, other: int) -> float:
    return float(np.sum((rows[one] - rows[other]) ** 2))


def _select_expected(name: str, values: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    """Select the stored part of an output: all of it, or evenly spaced positions of a large one."""
    flat = values.reshape(len(values), -1)
    if flat.shape[1] <= _OUTPUT_VALUES:
        return f"output:{name}", round_to_half(values)
    # In C order, unlike an index of the second axis: other orders cannot be read as samples.
    picked = flat.take(choose_positions(flat.shape[1], _OUTPUT_VALUES), axis=1)
    return f"picked:{name}", round_to_half(picked)
