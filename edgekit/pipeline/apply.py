"""Application of a single pass to a model, with the checks of a build.

The output file is written completely or not at all.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edgekit.bundle.layer_report import LayerCost, read_layers
from edgekit.cache.store import Store, get_default_root
from edgekit.compression.all_passes import get_pass
from edgekit.compression.checks.agreement import Agreement
from edgekit.compression.checks.crash_reports import format_crash_hint, write_crash
from edgekit.compression.pass_specs import Work
from edgekit.compression.step_runner import StepResult, run_checked
from edgekit.config.output_folders import check_output_file
from edgekit.config.profile import choose_weight_bits, load_profile
from edgekit.config.project import FILE_NAME, Project, load_project
from edgekit.conversion.importers.source import detect_source, list_files
from edgekit.conversion.model_facts import compute_cost
from edgekit.errors import PassCrash, PassRefused, UserError
from edgekit.model import Format, Model
from edgekit.pass_settings import LowRank, PruneChannels, ToOnnx, ToTflite
from edgekit.pipeline.model_settings import (
    embed_external_data,
    find_model,
    get_free_dims,
    read_feeding,
    set_free_dims,
    with_dims,
)
from edgekit.pipeline.recovery.original_model import (
    compute_job_key,
    convert_original,
    find_original,
)
from edgekit.pipeline.slowdown import describe_slowdown
from edgekit.pipeline.splits import open_calibration
from edgekit.pipeline.transfer_size import get_transfer_bytes
from edgekit.progress import Tick
from edgekit.recipe import Step, set_weight_bits
from edgekit_agent.files import open_atomic


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """Path, digest and sizes of a model file."""

    path: Path
    digest: str
    bytes: int
    transfer_bytes: int


@dataclass(frozen=True, kw_only=True)
class ApplyResult:
    """Result of a single pass.

    ``agreement`` is ``None`` if the pass left the file unchanged. ``macs`` are the
    multiply-accumulates before and after a pass that reduces them, if all shapes are known.
    ``notes`` are remarks of the pass for the user.
    """

    step: Step
    before: FileFacts
    after: FileFacts
    agreement: Agreement | None
    layers: tuple[LayerCost, ...]
    macs: tuple[int, int] | None
    seconds: float
    notes: tuple[str, ...] = ()


def apply(
    step: Step,
    path: Path,
    out: Path,
    *,
    data: str | None,
    folder: Path,
    tick: Tick,
    trusted: bool = False,
    dims: Mapping[str, int] | None = None,
    teacher: Path | None = None,
    seed: int | None = None,
) -> ApplyResult:
    """Run a pass on a model, check the result and write it.

    Args:
        step: The pass and its settings.
        path: The model.
        out: The output file; an existing regular file is replaced once the result is checked.
        data: Calibration samples; ``None`` = those of edgekit.toml in ``folder``, if any.
        folder: The project folder, and the base of a relative ``data``.
        tick: Progress callback: stage, amount done, total amount.
        trusted: Whether a model file may run the code that it carries.
        dims: Sizes of free dimensions; they override those of edgekit.toml.
        teacher: The original model, for a pass that reads it.
        seed: Seed of every random choice; ``None`` = that of edgekit.toml.

    Raises:
        UserError: The request or one of its inputs is wrong.
        PassRefused: The pass does not apply to this model.
        PassError: The pass broke its contract or crashed; nothing is written.
    """
    project = load_project(folder)
    model = find_model(folder, path, project, trusted=trusted, tick=tick)
    project = with_dims(project, model, dims or {})
    step = _set_weight_bits(step, project)
    original = find_original(step, teacher, model, folder, trusted=trusted, tick=tick)
    source = data or project.data.calibration
    _check_out(out, _iter_inputs(path, model, folder, source))
    if teacher is not None and original is not None:
        _check_out(out, _iter_inputs(teacher, original, folder, source))
    _check_suffix(out, _predict_format(step, model))
    feeding = read_feeding(folder, project, model)
    calibration = open_calibration(
        source,
        model,
        feeding,
        folder=folder,
        settings=project.data.preprocess,
        files=project.data.files,
        tick=tick,
    )
    sizes = get_free_dims(model, feeding, calibration) | project.model.dims
    store = Store(get_default_root())
    started = time.monotonic()
    with store.scratch() as scratch:
        work = Work(
            scratch=scratch,
            calibration=calibration.samples if calibration else None,
            progress=lambda what, n, of: tick(f"{step.name}: {what}", n, of),
            seed=project.build.seed if seed is None else seed,
            feeding=feeding,
        )
        tick(step.name, 0, 0)
        whole = embed_external_data(model, store)
        step = set_free_dims(step, model, feeding, sizes)
        if original is None:
            made = _run_pass(step, whole, work, store)
        else:
            work = replace(work, original=convert_original(original, work, store))
            with store.checkpoints(compute_job_key(step, whole, work, calibration)) as resumed:
                made = _run_pass(step, whole, replace(work, resume=resumed), store)
        _check_suffix(out, made.model.format)
        if made.model.beside:
            raise PassRefused("the result is larger than 2 GiB, the limit of one file")
        layers = read_layers(scratch)
        tick("timing", 0, 0)
        slower = made.agreement and describe_slowdown(
            whole,
            made.model,
            work.calibration,
            seed=work.seed,
            feeding=feeding,
            tick=partial(tick, "timing"),
        )
        macs = _count_macs(step, whole, made.model, sizes)
        seconds = time.monotonic() - started
        tick("writing", 0, 0)
        with open_atomic(str(out)) as target, made.model.path.open("rb") as result:
            shutil.copyfileobj(result, target, 1 << 20)
        after = _measure_file(made.model, out, store, tick)
    return ApplyResult(
        step=step,
        before=_measure_file(whole, path, store, tick),
        after=after,
        agreement=made.agreement,
        layers=layers,
        macs=macs,
        seconds=seconds,
        notes=(*made.notes, *([slower] if slower else [])),
    )


def _predict_format(step: Step, model: Model) -> Format | None:
    """Return the format of the result; ``None`` if a plugin decides it or the pass will refuse."""
    spec = get_pass(step.name)
    if spec.plugin or model.format not in spec.formats:
        return None
    if isinstance(step.settings, ToTflite):
        return "tflite"
    return "onnx" if isinstance(step.settings, ToOnnx) else model.format


def _check_suffix(out: Path, form: Format | None) -> None:
    """Check that the suffix of the output fits the format of the result.

    Raises:
        UserError: It does not; says which one does.
    """
    if form is not None and out.suffix.lower() != f".{form}":
        fitting = out.with_suffix(f".{form}").name
        raise UserError(f"{out}: the result is a .{form} file", hint=f"name it {fitting}")


def _run_pass(step: Step, model: Model, work: Work, store: Store) -> StepResult:
    try:
        return run_checked(step, model, work)
    except PassCrash as crash:
        hint = format_crash_hint(crash, write_crash(crash, store.root))
        raise PassCrash(crash.message, report=crash.report, hint=hint) from crash


def _set_weight_bits(step: Step, project: Project) -> Step:
    """Set the bits of int8 weights for the device of the project, if it names one."""
    device = project.build.device
    bits = choose_weight_bits(load_profile(device) if device is not None else None)
    return set_weight_bits(step, bits)


def _count_macs(
    step: Step, before: Model, after: Model, dims: Mapping[str, int]
) -> tuple[int, int] | None:
    if not isinstance(step.settings, PruneChannels | LowRank):
        return None
    old, new = (compute_cost(model, dims) for model in (before, after))
    return None if old.unknown or new.unknown else (old.macs, new.macs)


def _measure_file(model: Model, path: Path, store: Store, tick: Tick) -> FileFacts:
    transferred = get_transfer_bytes(model, store, tick)
    return FileFacts(path=path, digest=model.digest, bytes=model.bytes, transfer_bytes=transferred)


def _iter_inputs(path: Path, model: Model, folder: Path, source: str | None) -> Iterator[Path]:
    """Yield the files that the command reads and must therefore not replace."""
    yield path
    converted = detect_source(path, folder=folder, trusted=False)
    yield from list_files(converted) if converted else ()
    yield from model.beside
    yield folder / FILE_NAME
    if source is not None:
        yield folder / source


def _check_out(out: Path, inputs: Iterator[Path]) -> None:
    """Check that the result may be written to ``out``.

    Raises:
        UserError: The folder is missing, or ``out`` is not a regular file or is read by the
            command.
    """
    check_output_file(out)
    if not out.exists():
        return
    for read in inputs:
        if read.exists() and (read.samefile(out) or read.resolve() in out.resolve().parents):
            raise UserError(f"{out}: the command reads it, so it is not replaced")
