"""A look at a model before anything is done to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.graphs.cost import Cost, cost
from edgekit.graphs.coverage import Obstacle
from edgekit.graphs.onnx_file import load_for_shapes
from edgekit.intake import find_model, obstacles
from edgekit.model import Model
from edgekit.profile import load_profile
from edgekit.progress import Tick, silent
from edgekit.project import load_project


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a model is; with a device, also what keeps it off that device."""

    model: Model
    bytes: int
    cost: Cost | None  # None for .tflite, whose graph is not read
    dims: dict[str, int]
    device: str | None
    obstacles: tuple[Obstacle, ...]
    model_mib_limit: float | None


def inspect(
    path: Path,
    *,
    device: str | None,
    folder: Path,
    trusted: bool = False,
    tick: Tick = silent,
) -> Inspection:
    """Look at a model, as ONNX where it is of another tool.

    Args:
        path: the model, as the user named it.
        device: profile to hold it against.
        folder: the project's.
        trusted: whether a model file may run the code that it carries.
        tick: called when the model is converted.

    Raises:
        UserError: the model or the profile cannot be read.
    """
    project = load_project(folder)
    model = find_model(folder, path, project, trusted=trusted, tick=tick)
    profile = load_profile(device) if device else None
    dims = project.model.dims
    return Inspection(
        model=model,
        bytes=model.bytes,
        cost=cost(load_for_shapes(model.path), dims) if model.format == "onnx" else None,
        dims=dims,
        device=profile.name if profile else None,
        obstacles=obstacles(model, profile) if profile else (),
        model_mib_limit=profile.budget.model_mib if profile else None,
    )
