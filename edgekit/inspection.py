"""A look at a model before anything is done to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet

from edgekit.bridge.graph import LiteGraph
from edgekit.bridge.litecost import lite_cost
from edgekit.bridge.versions import too_new
from edgekit.errors import UserError
from edgekit.graphs.cost import Cost, cost
from edgekit.graphs.coverage import Obstacle, tflite_obstacles
from edgekit.graphs.onnx_file import load_for_shapes
from edgekit.graphs.reading import read_model
from edgekit.intake import obstacles
from edgekit.model import Model
from edgekit.profile import DeviceProfile, RuntimeSpec, load_profile
from edgekit.project import load_project


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a model is; with a device, also what keeps it off that device."""

    model: Model
    bytes: int
    cost: Cost | None  # None where the operators of a .tflite file were not read
    unread: str  # why not
    dims: dict[str, int]
    device: str | None
    obstacles: tuple[Obstacle, ...]
    model_mib_limit: float | None


def inspect(path: Path, *, device: str | None, folder: Path) -> Inspection:
    """Look at a model.

    Raises:
        UserError: the model or the profile cannot be read.
    """
    model = read_model(path)
    profile = load_profile(device) if device else None
    dims = load_project(folder).model.dims
    found, unread, hindering = None, "", obstacles(model, profile) if profile else ()
    if model.format == "onnx":
        found = cost(load_for_shapes(path), dims)
    else:
        graph, unread = _lite_graph(path)
        found = lite_cost(graph) if graph else None
        hindering = _lite_obstacles(graph, profile) if graph and profile else hindering
    return Inspection(
        model=model,
        bytes=model.bytes,
        cost=found,
        unread=unread,
        dims=dims,
        device=profile.name if profile else None,
        obstacles=hindering,
        model_mib_limit=profile.budget.model_mib if profile else None,
    )


def _lite_graph(path: Path) -> tuple[LiteGraph | None, str]:
    """The graph of a file that the runtime takes, or why it is beyond what is read here."""
    from edgekit.bridge.flatbuffer import read_lite  # ONNX files need no litert

    try:
        return read_lite(path.read_bytes()), ""
    except UserError as error:
        return None, error.message


def _lite_obstacles(graph: LiteGraph, profile: DeviceProfile) -> tuple[Obstacle, ...]:
    found = tflite_obstacles(profile, lite_cost(graph).ops)
    runtime = profile.runtimes.get("litert")
    if runtime is None or not _is_old(runtime):
        return found
    fix = "replace it before export, or give the device a newer runtime"
    return (*found, *(Obstacle(what=line, fix=fix) for line in too_new(graph)))


def _is_old(runtime: RuntimeSpec) -> bool:
    """Whether a device has tflite-runtime 2.14 and can have nothing newer."""
    allowed = SpecifierSet(runtime.version)
    return allowed.contains("2.14.0") and not allowed.contains("99")
