"""Inspection of a model: signature, operators, cost, and obstacles on a device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.compatibility.device_operators import Obstacle
from edgekit.compatibility.runtimes import find_obstacles
from edgekit.config.profile import DeviceProfile, load_profile
from edgekit.config.project import Project, load_project
from edgekit.conversion.model_facts import compute_cost, list_operators_to_build_in
from edgekit.conversion.onnx_to_tflite.convert_graph import convert_nodes
from edgekit.conversion.onnx_to_tflite.static_shapes import fix_shapes
from edgekit.data.input_settings import Array, build_feeding
from edgekit.errors import PassRefused, UserError
from edgekit.inspection.prunable import PrunableStructure, find_prunable
from edgekit.model import Model
from edgekit.onnx_graph.cost import Cost
from edgekit.onnx_graph.io import is_large, load, load_structure
from edgekit.onnx_graph.rewrites.constant_inputs import fix_inputs
from edgekit.onnx_graph.runs.accepted_sizes import refuse_bad_sizes
from edgekit.pipeline.model_settings import find_model, with_dims
from edgekit.progress import Tick, ignore_progress

_NO_COUNTERPART = "replace it before export, or choose a device with onnxruntime"


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Facts of a model; with a device, also the obstacles on that device."""

    model: Model
    bytes: int
    cost: Cost | None  # None if the operators of a .tflite file could not be read
    unread: str  # the reason, if they could not be read
    dims: dict[str, int]
    device: str | None
    obstacles: tuple[Obstacle, ...]
    model_mib_limit: float | None
    crosses: bool = False  # whether an .onnx model must be converted: the device runs only .tflite
    prunable: PrunableStructure | None = None  # only on request
    custom: tuple[str, ...] = ()  # custom operators, which the runtime must have built in


def inspect(
    path: Path,
    *,
    device: str | DeviceProfile | None,
    folder: Path,
    trusted: bool = False,
    structure: bool = False,
    dims: Mapping[str, int] | None = None,
    tick: Tick = ignore_progress,
) -> Inspection:
    """Inspect a model; a model of another tool is converted to ONNX first.

    Args:
        path: The model, as the user named it.
        device: Profile of the device to check the model against.
        folder: The project folder.
        trusted: Whether a model file may run the code that it carries.
        structure: Whether to find the prunable structure as well.
        dims: Sizes of free dimensions; they override those of edgekit.toml.
        tick: Progress callback.

    Raises:
        UserError: The model or the profile cannot be read.
    """
    project = load_project(folder)
    model = find_model(folder, path, project, trusted=trusted, tick=tick)
    profile = load_profile(device) if device else None
    sizes = with_dims(project, model, dims or {}).model.dims
    tick("counting MACs", 0, 0)
    found, unread = _compute_cost(model, sizes)
    tick("finding prunable parts" if structure else "checking operators", 0, 0)
    return Inspection(
        model=model,
        bytes=model.bytes,
        cost=found,
        unread=unread,
        dims=sizes,
        device=profile.name if profile else None,
        obstacles=_find_obstacles(model, profile, sizes, project, folder) if profile else (),
        model_mib_limit=profile.budget.model_mib if profile else None,
        crosses=profile is not None and _needs_conversion(model, profile),
        prunable=find_prunable(model, sizes) if structure else None,
        custom=list_operators_to_build_in(model),
    )


def _compute_cost(model: Model, dims: Mapping[str, int]) -> tuple[Cost | None, str]:
    """Compute the cost; return the reason if edgekit cannot read the graph of a .tflite file."""
    try:
        return compute_cost(model, dims), ""
    except UserError as error:
        if model.format == "onnx":
            raise
        return None, error.message


def _find_obstacles(
    model: Model, profile: DeviceProfile, dims: Mapping[str, int], project: Project, folder: Path
) -> tuple[Obstacle, ...]:
    """Find the obstacles on a device, or those of the conversion if the device has only LiteRT."""
    if _needs_conversion(model, profile):
        return tuple(
            _iter_conversion_obstacles(model, dims, _read_constants(model, project, folder))
        )
    return find_obstacles(model, profile)


def _needs_conversion(model: Model, profile: DeviceProfile) -> bool:
    return model.format == "onnx" and set(profile.runtimes) == {"litert"}


def _read_constants(model: Model, project: Project, folder: Path) -> Mapping[str, Array]:
    """Return the inputs of a model that edgekit.toml makes constant; it may be of another model."""
    names = {spec.name for spec in model.signature.inputs}
    tables = {
        name: table
        for name, table in project.model.inputs.items()
        if name in names and table.constant is not None
    }
    return build_feeding(model.signature, tables, dims={}, folder=folder).constants


def _iter_conversion_obstacles(
    model: Model, dims: Mapping[str, int], constants: Mapping[str, Array]
) -> Iterator[Obstacle]:
    """Find the obstacles of a conversion to TFLite by trying it; free dimensions count as 1."""
    if is_large(load_structure(model.path)):
        yield Obstacle(
            what="the model is larger than 2 GiB, the limit of a .tflite file",
            fix="use a smaller model, or a device with onnxruntime",
        )
        return
    try:
        with refuse_bad_sizes(model, dims):
            proto = load(model.path)
            fix_inputs(proto, constants)
            convert_nodes(fix_shapes(proto, dims))
    except PassRefused as refusal:
        yield Obstacle(what=f"as .tflite: {refusal.message}", fix=refusal.hint or _NO_COUNTERPART)
