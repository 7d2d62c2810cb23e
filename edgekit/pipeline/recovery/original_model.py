"""The original of a compressed model, for a pass that reads both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.cache.store import Store
from edgekit.compression.all_passes import get_pass, get_tools
from edgekit.compression.pass_specs import Work, build_step
from edgekit.compression.step_runner import make_missing_original_error, run_step
from edgekit.config.project import Project
from edgekit.data.dataset import Dataset
from edgekit.errors import UserError
from edgekit.model import Model, TensorSpec
from edgekit.pass_settings import ToOnnx
from edgekit.pipeline.model_settings import embed_external_data, find_model
from edgekit.pipeline.tool_versions import get_tool_version
from edgekit.progress import Tick
from edgekit.recipe import Recipe, Step, compute_candidate_key


def find_original(
    step: Step, path: Path | None, model: Model, folder: Path, *, trusted: bool, tick: Tick
) -> Model | None:
    """Open the original model of a step that reads it; ``None`` for other steps.

    Args:
        step: The step.
        path: The original model.
        model: The compressed model.
        folder: The project folder.
        trusted: Whether a model file may run the code that it carries.
        tick: Progress callback.

    Raises:
        PassRefused: The step needs the original, and none is given.
        UserError: The original cannot be read, has other inputs or outputs than the model, or a
            package that the step needs is missing.
    """
    if not get_pass(step.name).needs_original:
        return None
    if path is None:
        raise make_missing_original_error(step)
    for tool in get_tools(step):
        get_tool_version(tool)
    original = find_model(folder, path, Project(), trusted=trusted, tick=tick)
    for kind, wanted, found in (
        ("inputs", original.signature.inputs, model.signature.inputs),
        ("outputs", original.signature.outputs, model.signature.outputs),
    ):
        _check_same(kind, wanted, found)
    return original


def _check_same(kind: str, wanted: Sequence[TensorSpec], found: Sequence[TensorSpec]) -> None:
    if {(t.name, t.dtype) for t in wanted} != {(t.name, t.dtype) for t in found}:
        raise UserError(
            f"the student has other {kind} than the teacher: {_format(found)}, "
            f"not {_format(wanted)}",
            hint="give both the same names and types",
        )
    others = {spec.name: spec for spec in found}
    for spec in wanted:
        if not _fits(spec, others[spec.name], is_input=kind == "inputs"):
            raise UserError(
                f"the student has other sizes than the teacher: {others[spec.name]}, not {spec}",
                hint="give both the same sizes, and the number of samples free or fixed in both",
            )


def _fits(wanted: TensorSpec, found: TensorSpec, *, is_input: bool) -> bool:
    """Return whether two models can have values of the same sizes.

    Runs of the same samples need the same fixed number of them, or any number in both.
    """
    if not (wanted.shape and found.shape):
        return True  # scalars, or of unknown rank
    if len(wanted.shape) != len(found.shape):
        return False
    pairs = list(zip(wanted.shape, found.shape, strict=True))
    if is_input and len({isinstance(size, int) for size in pairs[0]}) > 1:
        return False
    return all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))


def _format(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(map(str, specs))


def convert_original(original: Model, work: Work, store: Store) -> Model:
    """Return the original as an .onnx file that holds its weights.

    Raises:
        PassRefused: It cannot be converted.
    """
    whole = embed_external_data(original, store)
    if whole.format == "onnx":
        return whole
    folder = work.scratch / "original"
    folder.mkdir()
    return run_step(build_step(ToOnnx()), whole, replace(work, scratch=folder, notes=[]))


def compute_job_key(step: Step, model: Model, work: Work, calibration: Dataset | None) -> str:
    """Compute the key of a step that reads an original, under which its checkpoints are kept."""
    splits = {"calibration": calibration.digest} if calibration else {}
    if work.original is not None:
        splits["original"] = work.original.digest
    return compute_candidate_key(
        Recipe(name=step.name, steps=(step,), seed=work.seed),
        source=model.digest,
        splits=splits | {"inputs": work.feeding.digest},
        tools={name: get_tool_version(name) for name in get_tools(step)},
    )
