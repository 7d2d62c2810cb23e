"""The model of a request: opening, sizes of its free dimensions, and how its inputs are fed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.cache.store import Store, get_default_root
from edgekit.config.entry_points import is_entry
from edgekit.config.project import Project
from edgekit.conversion.importers.source_opener import open_model
from edgekit.conversion.open_model import check_fed_sizes
from edgekit.data.dataset import Dataset
from edgekit.data.input_settings import Feeding, build_feeding
from edgekit.errors import UserError, did_you_mean
from edgekit.model import Model
from edgekit.onnx_graph.io import is_large, load, load_structure, save
from edgekit.pass_settings import ToOnnx, ToTflite
from edgekit.progress import Tick, ignore_progress
from edgekit.recipe import Step


def find_model(
    folder: Path,
    given: Path | None,
    project: Project,
    *,
    trusted: bool = False,
    tick: Tick = ignore_progress,
) -> Model:
    """Open the model of the request, else that of edgekit.toml; convert it if needed.

    Args:
        folder: The project folder.
        given: The model of the request.
        project: The settings of edgekit.toml.
        trusted: Whether a model file may run the code that it carries.
        tick: Progress callback of the conversion.

    Raises:
        UserError: No model is named, or it cannot be used.
    """
    if given is None and project.pipeline:
        names = ", ".join(project.pipeline.models)
        raise UserError(
            f"edgekit.toml has a [pipeline] of several models: {names}",
            hint="give the file of one of them as MODEL; 'edgekit build' without MODEL and "
            "build_pipeline() of the Python package take all together",
        )
    if given is None and project.model.path is None:
        raise UserError("no model", hint="give MODEL, or [model] path in edgekit.toml")
    tick("reading the model", 0, 0)
    return open_model(
        given or resolve_model(folder, str(project.model.path)),
        folder=folder,
        store=Store(get_default_root()),
        trusted=trusted or project.model.trust_pickle,
        tick=tick,
    )


def resolve_model(folder: Path, model: str | os.PathLike[str]) -> Path:
    """Resolve the path of a model of a project; ``module:function`` stays as it is."""
    file = folder / model
    return Path(model) if is_entry(os.fspath(model)) and not file.exists() else file


def with_dims(project: Project, model: Model, given: Mapping[str, int]) -> Project:
    """Return the project with the sizes of free dimensions from the command line.

    Raises:
        UserError: The model has no free dimension of that name.
    """
    free = model.signature.free_dimensions()
    for name in given:
        if name not in free:
            raise UserError(
                f"--dims {name}={given[name]}: {model.display_name} has no free dimension {name!r}"
                f"{did_you_mean(name, free)}",
                hint=f"its free dimensions: {', '.join(free) or 'none'}",
            )
    dims = {**project.model.dims, **given}
    check_fed_sizes(model, dims)
    return project.model_copy(update={"model": project.model.model_copy(update={"dims": dims})})


def read_feeding(folder: Path, project: Project, model: Model) -> Feeding:
    """Read how the model's inputs are fed from edgekit.toml.

    Raises:
        UserError: The settings do not fit the model.
    """
    table = project.model
    return build_feeding(model.signature, table.inputs, dims=table.dims, folder=folder)


def get_free_dims(model: Model, feeding: Feeding, dataset: Dataset | None) -> dict[str, int]:
    """Return the sizes that the samples give to free dimensions other than sample axes."""
    return feeding.get_free_sizes(model.signature, dataset.samples) if dataset else {}


def get_sizes(
    model: Model, feeding: Feeding, dims: Mapping[str, int], splits: Sequence[Dataset | None]
) -> dict[str, int]:
    """Return the sizes of free dimensions: those of the first split, and ``dims`` of the settings.

    Dimensions along which the samples of a split differ in size are left out.

    Raises:
        UserError: The settings give such a dimension a size.
    """
    known = get_free_dims(model, feeding, splits[0])
    for split in splits:
        varied = feeding.find_varied_sizes(model.signature, split.samples) if split else {}
        for name, (low, high) in varied.items():
            known.pop(name, None)
            if split and name in dims:
                raise UserError(
                    f"{name} = {dims[name]} (--dims, or dims in edgekit.toml): in {split.source}, "
                    f"{name} is from {low} to {high}",
                    hint="remove the setting, or give samples of one size",
                )
    return known | dict(dims)


def set_free_dims(step: Step, model: Model, feeding: Feeding, dims: Mapping[str, int]) -> Step:
    """Add the known sizes of free dimensions to a step that takes them."""
    settings = step.settings
    if not isinstance(settings, ToTflite | ToOnnx):
        return step
    free = {name for _, _, name in feeding.iter_free_axes(model.signature)}
    known = {n: s for n, s in dims.items() if n in free} | dict(settings.dims)
    return replace(step, settings=replace(settings, dims=tuple(sorted(known.items()))))


def embed_external_data(model: Model, store: Store) -> Model:
    """Return the model with its external data embedded, as it is sent, if one file can hold it."""
    if not model.beside or is_large(load_structure(model.path)):
        return model
    with store.scratch() as scratch:
        save(load(model.path), scratch / "model.onnx")
        path = store.put(scratch / "model.onnx")
    return replace(model, path=path, digest=path.name, beside=())


def check_output(project: Project, model: Model) -> None:
    """Check that the model has the outputs that edgekit.toml names."""
    names = [o.name for o in model.signature.outputs]
    scored, table = project.data.output, project.postprocess
    asked = [("data.output", scored)] if scored is not None else []
    asked += [("postprocess.outputs", name) for name in (table.outputs if table else ())]
    for key, name in asked:
        if name not in names:
            raise UserError(
                f"edgekit.toml: {key}: the model has no output {name!r}{did_you_mean(name, names)}",
                hint=f"its outputs: {', '.join(names)}",
            )
