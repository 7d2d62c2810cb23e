"""Reading and checking of the inputs of a ``[pipeline]``, and those of the build of one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edgekit.cache.store import Store, get_default_root
from edgekit.compatibility.runtimes import choose_runtimes
from edgekit.config.output_folders import check_writable
from edgekit.config.profile import DeviceProfile, load_profile
from edgekit.config.project import PipelineTable, Project, load_project
from edgekit.config.user_modules import read_code
from edgekit.conversion.importers.source_opener import open_model
from edgekit.data.dataset import Dataset, open_dataset
from edgekit.data.input_settings import build_feeding
from edgekit.data.readers import read_table
from edgekit.errors import UserError, did_you_mean
from edgekit.model import Model, Signature, TensorSpec
from edgekit.pipeline.accuracy.evaluation_split import check_overlap, prepare_combined_evaluation
from edgekit.pipeline.accuracy.tallies import Scoring
from edgekit.pipeline.budget_checks import Limits
from edgekit.pipeline.combination.models import CombinedModels, CombinedPart, check_function
from edgekit.pipeline.combination.recorded_inputs import RecordedInputs, record_inputs
from edgekit.pipeline.model_settings import embed_external_data, get_sizes, resolve_model
from edgekit.pipeline.recovery.effort import choose_learning
from edgekit.pipeline.request import (
    BuildInputs,
    Request,
    check_out,
    choose_device,
    complete_recipe,
    make_limits,
)
from edgekit.progress import Tick
from edgekit.signing.releases import Signer, get_signer
from edgekit_agent.worker_results import Tally

# Samples on which inputs are recorded if there are none for calibration.
_RECORDED = 32


@dataclass(frozen=True, kw_only=True)
class CombinedInputs:
    """Checked inputs of the build of several models that are combined."""

    request: Request
    project: Project
    table: PipelineTable
    profile: DeviceProfile
    signer: Signer | None
    store: Store
    combined: CombinedModels  # all originals
    calibration: Dataset | None
    evaluation: Dataset
    scoring: Scoring | None
    limits: Limits
    out: Path
    notes: tuple[str, ...] = ()


def read_combined_inputs(request: Request, tick: Tick) -> CombinedInputs:
    """Read and check everything that the build of a ``[pipeline]`` needs.

    Args:
        request: Request of the user.
        tick: Progress callback.

    Raises:
        UserError: Request, models, function, data or profile are wrong.
    """
    project = load_project(request.folder)
    table = project.pipeline
    if table is None:
        raise UserError(
            f"{request.folder / 'edgekit.toml'}: there is no [pipeline]",
            hint="name a function and its models: [pipeline] run and [pipeline.models.NAME]",
        )
    if project.model.path is not None:
        raise UserError("edgekit.toml: [pipeline] and [model] path exclude each other")
    profile = load_profile(choose_device(request, project))
    signer, store = get_signer(project.release), Store(get_default_root())
    check_writable(store.root, hint="set EDGEKIT_CACHE to use another folder for the cache")
    files, code_digest = check_function(table.run, request.folder)
    if table.on_device:
        read_code(table.run, files, request.folder)  # fail before anything is built
    models = {name: _open(name, request, table, store, tick) for name in table.models}
    out = request.out or request.folder / "build" / profile.name
    for name, model in models.items():
        check_out(out / name, model, profile.name)
    source = request.evaluation or project.data.evaluation
    if source is None:
        raise UserError(
            "no evaluation data", hint="give --eval EVAL, or [data] evaluation in edgekit.toml"
        )
    inputs = _find_inputs(source, request.folder, project, table, next(iter(models.values())), tick)
    opened = partial(
        open_dataset,
        signature=inputs,
        folder=request.folder,
        cache=store.root,
        settings=project.data.preprocess,
        files=project.data.files,
        tick=tick,
    )
    split = opened(source, targets="optional")
    given = request.data or project.data.calibration
    calibration = opened(given, targets="none") if given else None
    shared = check_overlap(calibration, split)
    combined = CombinedModels(
        run=table.run,
        folder=request.folder,
        files=files,
        code_digest=code_digest,
        models=models,
        inputs=inputs.inputs,
    )
    evaluation = prepare_combined_evaluation(
        split,
        combined,
        project,
        inputs=inputs,
        folder=request.folder,
        metric=request.metric,
        store=store,
        tick=tick,
    )
    return CombinedInputs(
        request=request,
        project=project,
        table=table,
        profile=profile,
        signer=signer,
        store=store,
        combined=combined,
        calibration=calibration,
        evaluation=evaluation.dataset,
        scoring=evaluation.scoring,
        limits=make_limits(request, project, profile, evaluation.scoring),
        out=out,
        notes=(*shared, *evaluation.notes),
    )


def _open(name: str, request: Request, table: PipelineTable, store: Store, tick: Tick) -> Model:
    settings = table.models[name]
    if settings.path is None:
        raise UserError(f"edgekit.toml: pipeline.models.{name}.path: missing")
    tick(f"reading model {name}", 0, 0)
    model = open_model(
        resolve_model(request.folder, settings.path),
        folder=request.folder,
        store=store,
        trusted=request.trust_pickle or settings.trust_pickle,
        tick=tick,
    )
    return embed_external_data(model, store)


def _find_inputs(
    source: str,
    folder: Path,
    project: Project,
    table: PipelineTable,
    first: Model,
    tick: Tick,
) -> Signature:
    """Return a signature with the arrays of a sample as inputs, the samples along the first axis.

    Raises:
        UserError: The data lack an array that ``[pipeline] inputs`` names.
    """
    if not table.inputs:
        specs = (_free_first_axis(spec, first.signature) for spec in first.signature.inputs)
        return Signature(inputs=tuple(specs), outputs=())
    columns = read_table(
        source,
        folder=folder,
        cache=get_default_root(),
        settings=project.data.preprocess,
        gray=False,
        size=None,
        most=None,
        files=project.data.files,
        inputs=[],
        tick=tick,
    ).columns
    found = {column.name: column for column in columns}
    if len(table.inputs) == 1 and table.inputs[0] not in found and "x" in found:
        found[table.inputs[0]] = found["x"]
    for name in table.inputs:
        if name not in found:
            raise UserError(
                f"edgekit.toml: pipeline.inputs: {source} has no array {name!r}"
                f"{did_you_mean(name, list(found))}",
                hint=f"its arrays: {', '.join(found) or 'none'}",
            )
    specs = (
        TensorSpec(name=name, dtype=found[name].dtype, shape=("samples", *found[name].shape[1:]))
        for name in table.inputs
    )
    return Signature(inputs=tuple(specs), outputs=())


def _free_first_axis(spec: TensorSpec, signature: Signature) -> TensorSpec:
    """Return an input with a free sample axis, in front of its own axes if it has none."""
    has_axis = bool(spec.shape) and signature.sample_axis(spec) == 0
    is_batch = has_axis and (spec.shape[0] == 1 or not isinstance(spec.shape[0], int))
    return replace(spec, shape=("samples", *(spec.shape[1:] if is_batch else spec.shape)))


def make_part_inputs(
    given: CombinedInputs,
    name: str,
    combined: CombinedModels,
    reference: Tally | None,
    tick: Tick,
) -> BuildInputs:
    """Return the inputs of the build of one model, while the others stay as they are.

    Args:
        given: The checked inputs of all models.
        name: Name of the model.
        combined: The combination with the compressed models of earlier builds.
        reference: Statistics of the combination of all originals; ``None`` if these are.
        tick: Progress callback.

    Raises:
        UserError: The device runs no file of this model, or the model is never run.
    """
    request, project, table = given.request, given.project, given.table.models[name]
    model = given.combined.models[name]
    recorded = _record_part(given, combined, name, tick)
    asked = request.runtime or project.build.runtime
    feeding = build_feeding(
        model.signature,
        table.inputs,
        dims=table.dims,
        folder=request.folder,
        table=f"pipeline.models.{name}",
    )
    seed = project.build.seed if request.seed is None else request.seed
    dims = get_sizes(model, feeding, table.dims, (recorded.dataset,))
    recipe = request.recipe
    return BuildInputs(
        with_samples=request.with_samples or project.build.examples,
        project=project,
        profile=given.profile,
        model=model,
        runtimes=choose_runtimes(model, given.profile, None if asked == "auto" else asked),
        calibration=recorded.dataset if given.calibration else None,
        evaluation=given.evaluation,
        feeding=feeding,
        scoring=given.scoring,
        limits=given.limits,
        on=request.on,
        out=given.out / name,
        seed=seed,
        learning=choose_learning(request.effort, request.minutes, project.build),
        store=given.store,
        recipe=complete_recipe(recipe, model, feeding, dims, seed, given.profile)
        if recipe
        else None,
        signer=given.signer,
        part=CombinedPart(
            name=name,
            originals=given.combined,
            combined=combined,
            samples=recorded.dataset,
            calls=recorded.calls,
            on_device=given.table.on_device,
            reference=reference,
        ),
    )


def record_originals(given: CombinedInputs, tick: Tick) -> Mapping[str, RecordedInputs]:
    """Record the inputs that each model gets from the originals.

    Raises:
        UserError: The function or a model fails on a sample, or a model is never run.
    """
    return _record(given, given.combined, tick)


def _record(
    given: CombinedInputs, combined: CombinedModels, tick: Tick
) -> Mapping[str, RecordedInputs]:
    source = given.calibration or given.evaluation.first(_RECORDED)
    return record_inputs(combined, source, store=given.store, tick=tick)


def _record_part(
    given: CombinedInputs, combined: CombinedModels, name: str, tick: Tick
) -> RecordedInputs:
    """Record the inputs of a model; from the originals if compressed models leave it without any.

    Raises:
        UserError: The function or an original fails on a sample, or a model is never run.
    """
    try:
        return _record(given, combined, tick)[name]
    except UserError as error:
        if combined.digest == given.combined.digest:
            raise
        original = record_originals(given, tick)[name]
        note = (
            f"model {name}: calibrated on what the originals give it, as the models compressed "
            f"before it fail on the samples for calibration: {error.message}"
        )
        dataset = replace(original.dataset, notes=(*original.dataset.notes, note))
        return replace(original, dataset=dataset)
