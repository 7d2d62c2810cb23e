"""apply(): one pass by hand, its result checked as in a build and written whole or not at all."""

from __future__ import annotations

import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgekit.convert.naming import files_of, source_of
from edgekit.errors import PassCrash, PassRefused, UserError
from edgekit.evaluate import transferred_bytes
from edgekit.graphs.cost import cost
from edgekit.graphs.onnx_file import load_for_shapes
from edgekit.intake import (
    feeding_in,
    find_model,
    free_dims,
    in_one_file,
    open_calibration,
    sized,
    with_dims,
)
from edgekit.layers import LayerCost, read_layers
from edgekit.model import Model
from edgekit.passes import Work
from edgekit.passes.agreement import Agreement
from edgekit.passes.crash import crash_hint, write_crash
from edgekit.passes.running import Made, run_checked
from edgekit.profile import load_profile, weight_bits
from edgekit.progress import Tick
from edgekit.project import FILE_NAME, Project, load_project
from edgekit.recipe import LowRank, PruneChannels, Step, with_weight_bits
from edgekit.slowdown import describe_slowdown
from edgekit.store import Store, default_root
from edgekit_agent.files import whole_file


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """A model file and what it weighs."""

    path: Path
    digest: str
    bytes: int
    transfer_bytes: int


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What one pass made; ``agreement`` is ``None`` where the file is the same.

    ``macs`` are the multiply-accumulates before and after, of a pass that is there to lower them,
    where all shapes are known. ``notes`` are facts that the pass tells the user.
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
) -> Applied:
    """Run a pass on a model and write what it makes.

    Args:
        step: the pass and its settings.
        path: the model.
        out: where the result goes; a regular file there is replaced, once the result is checked.
        data: calibration samples; ``None`` = those of edgekit.toml in ``folder``, if any.
        folder: the project's; what ``data`` is relative to.
        tick: called with what is being done, how much of it is done, and of how much.
        trusted: whether a model file may run the code that it carries.
        dims: sizes of free dimensions, before those of edgekit.toml.

    Raises:
        UserError: something is wrong with the request or its inputs.
        PassRefused: the pass does not apply to this model.
        PassError: the pass broke a promise or crashed; nothing is written.
    """
    project = load_project(folder)
    model = find_model(folder, path, project, trusted=trusted, tick=tick)
    project = with_dims(project, model, dims or {})
    step = _with_bits(step, project)
    source = data or project.data.calibration
    _check_out(out, _inputs(path, model, folder, source))
    feeding = feeding_in(folder, project, model)
    calibration = open_calibration(
        source, model, feeding, folder=folder, settings=project.data.preprocess, tick=tick
    )
    sizes = free_dims(model, feeding, calibration) | project.model.dims
    store = Store(default_root())
    started = time.monotonic()
    with store.scratch() as scratch:
        work = Work(
            scratch=scratch,
            calibration=calibration.samples if calibration else None,
            progress=lambda what, n, of: tick(f"{step.name}: {what}", n, of),
            seed=project.build.seed,
            feeding=feeding,
        )
        tick(step.name, 0, 0)
        whole = in_one_file(model, store)
        made = _run(sized(step, model, feeding, sizes), whole, work, store)
        if made.model.beside:
            raise PassRefused("what it makes is over 2 GiB, more than one file can hold")
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
        macs = _macs(step, whole, made.model, sizes)
        seconds = time.monotonic() - started
        tick("writing", 0, 0)
        with whole_file(str(out)) as target, made.model.path.open("rb") as result:
            shutil.copyfileobj(result, target, 1 << 20)
        after = _facts(made.model, out, store, tick)
    return Applied(
        step=step,
        before=_facts(whole, path, store, tick),
        after=after,
        agreement=made.agreement,
        layers=layers,
        macs=macs,
        seconds=seconds,
        notes=(*made.notes, *([slower] if slower else [])),
    )


def _run(step: Step, model: Model, work: Work, store: Store) -> Made:
    try:
        return run_checked(step, model, work)
    except PassCrash as crash:
        hint = crash_hint(write_crash(crash, store.root))
        raise PassCrash(crash.message, report=crash.report, hint=hint) from crash


def _with_bits(step: Step, project: Project) -> Step:
    """The step with the bits of int8 weights that the project's device, if any, takes."""
    device = project.build.device
    bits = weight_bits(load_profile(device) if device is not None else None)
    return with_weight_bits(step, bits)


def _macs(
    step: Step, before: Model, after: Model, dims: Mapping[str, int]
) -> tuple[int, int] | None:
    if not isinstance(step.settings, PruneChannels | LowRank):
        return None
    old, new = (cost(load_for_shapes(model.path), dims) for model in (before, after))
    return None if old.unknown or new.unknown else (old.macs, new.macs)


def _facts(model: Model, path: Path, store: Store, tick: Tick) -> FileFacts:
    transferred = transferred_bytes(model, store, tick)
    return FileFacts(path=path, digest=model.digest, bytes=model.bytes, transfer_bytes=transferred)


def _inputs(path: Path, model: Model, folder: Path, source: str | None) -> Iterator[Path]:
    """The files that the command reads, and so must not replace."""
    yield path
    converted = source_of(path, folder=folder, trusted=False)
    yield from files_of(converted) if converted else ()
    yield from model.beside
    yield folder / FILE_NAME
    if source is not None:
        yield folder / source


def _check_out(out: Path, inputs: Iterator[Path]) -> None:
    """That the result may be written there.

    Raises:
        UserError: no folder, not a regular file, or one that the command reads.
    """
    if not out.parent.is_dir():
        raise UserError(f"{out}: no folder {out.parent}", hint="make it first")
    try:
        mode = out.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise UserError(f"{out}: there is something else than a regular file, which stays")
    for read in inputs:
        if read.exists() and (read.samefile(out) or read.resolve() in out.resolve().parents):
            raise UserError(f"{out}: the command reads it, so it is not replaced")
