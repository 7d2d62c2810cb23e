"""A look at a model before anything is done to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.graphs.cost import Cost, cost
from edgekit.graphs.coverage import Obstacle
from edgekit.graphs.onnx_file import load_for_shapes
from edgekit.graphs.reading import read_model
from edgekit.model import Model
from edgekit.profile import load_profile
from edgekit.project import load_project
from edgekit.runtimes import obstacles


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


def inspect(path: Path, *, device: str | None, folder: Path) -> Inspection:
    """Look at a model.

    Raises:
        UserError: the model or the profile cannot be read.
    """
    model = read_model(path)
    profile = load_profile(device) if device else None
    dims = load_project(folder).model.dims
    return Inspection(
        model=model,
        bytes=model.bytes,
        cost=cost(load_for_shapes(path), dims) if model.format == "onnx" else None,
        dims=dims,
        device=profile.name if profile else None,
        obstacles=obstacles(model, profile) if profile else (),
        model_mib_limit=profile.budget.model_mib if profile else None,
    )
