"""Functions for a single model file: inspect it, apply a pass to it, and recover its accuracy."""

from __future__ import annotations

from edgekit.api.arguments import (
    AnyStep,
    Count,
    Device,
    Minutes,
    PassSettings,
    Sizes,
    resolve_data,
    resolve_device,
    resolve_folder,
)
from edgekit.api.failures import convert_failures
from edgekit.api.passes import warn_of_old_names
from edgekit.argument_checks import AnyPath, check_arguments
from edgekit.compression.recipe_parser import check_step, resolve_pass_name, validate_step
from edgekit.errors import ArgumentError
from edgekit.inspection.summary import Inspection
from edgekit.inspection.summary import inspect as inspect_model
from edgekit.old_names import OldNames
from edgekit.pipeline.apply import ApplyResult
from edgekit.pipeline.apply import apply as apply_step
from edgekit.pipeline.model_settings import resolve_model
from edgekit.progress import Tick, ignore_progress


@check_arguments
def inspect(
    model: AnyPath,
    *,
    device: Device | None = None,
    prunable: bool = False,
    dims: Sizes | None = None,
    trust_pickle: bool = False,
    folder: AnyPath = ".",
    progress: Tick = ignore_progress,
) -> Inspection:
    """Read the signature, the operators and the cost of a model.

    Relative paths are resolved from ``folder``.

    Args:
        model: A model file, a SavedModel folder or ``module:function``.
        device: Device to check the model against: a name, a .toml file or a profile.
        prunable: Whether to find the structures that can be pruned as well.
        dims: Sizes of free dimensions by name; they override those of edgekit.toml.
        trust_pickle: Whether the model file may run the code that it carries.
        folder: The project folder, which may hold an edgekit.toml.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Returns:
        Facts of the model. Attributes: ``model`` with its ``signature`` and ``digest``; ``bytes``;
        ``cost`` with parameters, multiply-accumulates, peak memory and operators; ``obstacles`` on
        the device; ``prunable``, the structures that can be pruned.

    Raises:
        UserError: The model, the profile or edgekit.toml cannot be used.

    Examples:
        >>> import edgekit
        >>> seen = edgekit.inspect("model.onnx", device="tablet")
        >>> [str(tensor) for tensor in seen.model.signature.inputs]
        ['image float32 [N, 1, 8, 8]']
        >>> seen.cost.macs, seen.obstacles
        (4775936, ())
    """
    base = resolve_folder(folder)
    with convert_failures():
        return inspect_model(
            resolve_model(base, model),
            device=resolve_device(base, device),
            folder=base,
            trusted=trust_pickle,
            structure=prunable,
            dims=dict(dims or {}),
            tick=progress,
        )


@check_arguments
def apply(
    step: AnyStep,
    model: AnyPath,
    out: AnyPath,
    *,
    settings: PassSettings | None = None,
    data: AnyPath | None = None,
    dims: Sizes | None = None,
    trust_pickle: bool = False,
    folder: AnyPath = ".",
    progress: Tick = ignore_progress,
) -> ApplyResult:
    """Run one pass on a model, check the result and write it.

    Relative paths are resolved from ``folder``. The output is written completely or not at all.

    Args:
        step: Name of a pass (see ``list_passes``), or a step with its settings.
        model: A model file, a SavedModel folder or ``module:function``; it stays as it is.
        out: The file to write; an existing file is replaced.
        settings: Settings of the pass by name; the others have their defaults.
        data: Calibration samples; by default those of edgekit.toml, if any.
        dims: Sizes of free dimensions by name; they override those of edgekit.toml.
        trust_pickle: Whether the model file may run the code that it carries.
        folder: The project folder, which may hold an edgekit.toml.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Returns:
        Facts of the result. Attributes: ``before`` and ``after``, each with path, digest, size and
        transfer size; ``agreement`` with the original's outputs, ``None`` if the file is the same;
        ``layers``; ``macs`` before and after; ``notes``; ``seconds``.

    Raises:
        UserError: An argument or one of the files is wrong.
        PassRefused: The pass does not apply to this model.
        PassError: The pass broke its contract or crashed; nothing is written.

    Examples:
        >>> import edgekit
        >>> done = edgekit.apply("float16", "model.onnx", "half.onnx")
        >>> done.after.path.name, max(done.agreement.relative_errors.values()) < 0.01
        ('half.onnx', True)
    """
    old_names = OldNames()
    if isinstance(step, str):
        name = resolve_pass_name(step, old_names=old_names)
        step = validate_step(name, settings or {}, where=f"{name}: ", old_names=old_names)
    elif settings:
        raise ArgumentError("settings", "the step has settings already")
    else:
        step = check_step(step, old_names=old_names)
    warn_of_old_names(old_names)
    base = resolve_folder(folder)
    with convert_failures():
        return apply_step(
            step,
            resolve_model(base, model),
            base / out,
            data=resolve_data(data),
            folder=base,
            tick=progress,
            trusted=trust_pickle,
            dims=dict(dims or {}),
        )


@check_arguments
def distil(
    teacher: AnyPath,
    student: AnyPath,
    out: AnyPath,
    *,
    minutes: Minutes | None = None,
    settings: PassSettings | None = None,
    data: AnyPath | None = None,
    dims: Sizes | None = None,
    seed: Count | None = None,
    trust_pickle: bool = False,
    folder: AnyPath = ".",
    progress: Tick = ignore_progress,
) -> ApplyResult:
    """Recover the accuracy of a compressed model: it learns to reproduce the original's outputs.

    The student may also be a smaller model of another architecture with the same inputs and
    outputs. Labels are not needed. Relative paths are resolved from ``folder``. The output is
    written completely or not at all; an interrupted call is resumed by the same call. Needs
    TensorFlow: ``pip install 'edgekit[tensorflow]'``.

    Args:
        teacher: The original: a model file, a SavedModel folder or ``module:function``.
        student: The model that learns; it stays as it is.
        out: The file to write; an existing file is replaced.
        minutes: Expected time of the learning on two cores; by default that of the pass ``distil``.
        settings: Further settings of the pass by name.
        data: Calibration samples; by default those of edgekit.toml.
        dims: Sizes of free dimensions by name; they override those of edgekit.toml.
        seed: Seed of every random choice; by default that of edgekit.toml.
        trust_pickle: Whether the model files may run the code that they carry.
        folder: The project folder, which may hold an edgekit.toml.
        progress: Called with a stage, the amount done and the total (0 = unknown).

    Returns:
        Facts of the result, as of ``apply``: ``before`` is the student's file, and ``agreement``
        that of the result with the teacher's outputs, ``None`` if the student learned nothing.

    Raises:
        UserError: An argument or one of the files is wrong, or TensorFlow is missing.
        PassRefused: The student cannot learn from the teacher.
        PassError: The pass broke its contract or crashed; nothing is written.

    Examples:
        >>> import edgekit
        >>> _ = edgekit.apply("prune-channels", "model.onnx", "small.onnx", data="calib.npz")
        >>> done = edgekit.distil(
        ...     "model.onnx", "small.onnx", "learned.onnx", data="calib.npz", minutes=0.1
        ... )
        >>> done.after.path.name
        'learned.onnx'
    """
    old_names = OldNames()
    given = dict(settings or {})
    if minutes is not None:
        if "minutes" in given:
            raise ArgumentError(("minutes", "settings"), "both give the minutes")
        given["minutes"] = minutes
    step = validate_step("distil", given, where="distil: ", old_names=old_names)
    warn_of_old_names(old_names)
    base = resolve_folder(folder)
    with convert_failures():
        return apply_step(
            step,
            resolve_model(base, student),
            base / out,
            teacher=resolve_model(base, teacher),
            data=resolve_data(data),
            folder=base,
            tick=progress,
            trusted=trust_pickle,
            dims=dict(dims or {}),
            seed=seed,
        )
