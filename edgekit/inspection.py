"""A look at a model before anything is done to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.bridge.lowering import lower
from edgekit.bridge.settling import settled
from edgekit.errors import PassRefused
from edgekit.graphs.cost import Cost, cost
from edgekit.graphs.coverage import Obstacle
from edgekit.graphs.onnx_file import is_large, load, load_for_shapes, load_structure
from edgekit.graphs.reading import read_model
from edgekit.model import Model
from edgekit.profile import DeviceProfile, load_profile
from edgekit.project import load_project
from edgekit.runtimes import obstacles

_NO_COUNTERPART = "replace it before export, or choose a device with onnxruntime"


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
    crosses: bool = False  # an .onnx model on a device that runs .tflite alone


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
        obstacles=_obstacles(model, profile, dims) if profile else (),
        model_mib_limit=profile.budget.model_mib if profile else None,
        crosses=profile is not None and _crosses(model, profile),
    )


def _obstacles(
    model: Model, profile: DeviceProfile, dims: Mapping[str, int]
) -> tuple[Obstacle, ...]:
    """What keeps a model off a device; where that has LiteRT alone, what does not cross over."""
    if _crosses(model, profile):
        return tuple(_not_crossing(model, dims))
    return obstacles(model, profile)


def _crosses(model: Model, profile: DeviceProfile) -> bool:
    return model.format == "onnx" and set(profile.runtimes) == {"litert"}


def _not_crossing(model: Model, dims: Mapping[str, int]) -> Iterator[Obstacle]:
    """What has no counterpart in TFLite, found by trying; free dimensions count as 1."""
    structure = load_structure(model.path)
    if is_large(structure):
        yield Obstacle(what="over 2 GiB, more than a .tflite file can hold", fix="a smaller model")
        return
    try:
        lower(settled(load(model.path), dims))
    except PassRefused as refusal:
        yield Obstacle(what=f"as .tflite: {refusal.message}", fix=refusal.hint or _NO_COUNTERPART)
