"""Choice of the runtimes of a build, and obstacles of the original model on the device."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from edgekit.compatibility.device_operators import (
    Obstacle,
    find_onnx_obstacles,
    find_tflite_obstacles,
)
from edgekit.config.profile import FORMATS, DeviceProfile, RuntimeName, get_runtime
from edgekit.errors import UserError, make_missing_extra_error
from edgekit.model import Format, Model
from edgekit.onnx_graph.io import load_structure
from edgekit.pass_settings import Target
from edgekit.remote.wheels import TFLITE, choose_litert_packages
from edgekit.tflite.runtime_support import list_version_conflicts
from edgekit.tflite.weight_stats import count_tflite_ops

_LITERT_MISSING = (
    "litert is not installed here, so no .tflite candidates were built: pip "
    "install 'edgekit[litert]'"
)
_OLD_RUNTIME = "replace it before export, or give the device a newer runtime"


@dataclass(frozen=True, kw_only=True)
class Runtimes:
    """Runtimes that a build may use.

    Attributes:
        names: Runtimes that the device has and that this machine can run as well.
        obstacles: Reasons why the original cannot run on the device and serves as reference only.
        notes: Remarks on the choice for the user.
    """

    names: tuple[RuntimeName, ...]
    obstacles: tuple[Obstacle, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def formats(self) -> tuple[Format, ...]:
        """Return the file formats of the runtimes."""
        return tuple(FORMATS[name] for name in self.names)


def get_lite_target(profile: DeviceProfile) -> Target:
    """Return which of the two packages of ``litert`` the device has."""
    spec = profile.runtimes.get("litert")
    only_old = spec is not None and choose_litert_packages(spec.version) == (TFLITE,)
    return "tflite-runtime" if only_old else "litert"


def find_obstacles(model: Model, profile: DeviceProfile) -> tuple[Obstacle, ...]:
    """Find the reasons why a model cannot run on a device."""
    return (*_find_operator_obstacles(model, profile), *_find_version_obstacles(model, profile))


def _find_operator_obstacles(model: Model, profile: DeviceProfile) -> tuple[Obstacle, ...]:
    if model.format == "tflite":
        return find_tflite_obstacles(profile, count_tflite_ops(model.path))
    return find_onnx_obstacles(load_structure(model.path), profile)


def _find_version_obstacles(model: Model, profile: DeviceProfile) -> tuple[Obstacle, ...]:
    """Find features that a device's old runtime lacks and that a rewritten model may avoid."""
    if model.format != "tflite" or get_lite_target(profile) == "litert":
        return ()
    from edgekit.tflite.flatbuffer import read_lite  # ONNX files need no litert

    try:
        graph = read_lite(model.path.read_bytes())
    except UserError:
        return ()  # edgekit cannot read the file but the runtime here can: the device decides
    return tuple(Obstacle(what=line, fix=_OLD_RUNTIME) for line in list_version_conflicts(graph))


def choose_runtimes(model: Model, profile: DeviceProfile, asked: RuntimeName | None) -> Runtimes:
    """Choose the runtimes of the profile, or the requested one, as far as this machine has them.

    Raises:
        UserError: The device lacks the requested runtime, no runtime is left, or the original
            cannot run on the device and cannot be converted.
    """
    if asked is not None and asked not in profile.runtimes:
        raise UserError(
            f"{profile.name} has no {asked} ({', '.join(profile.runtimes)} only)",
            hint="choose another --runtime, or --runtime auto",
        )
    names = (asked,) if asked is not None else tuple(profile.runtimes)
    notes: tuple[str, ...] = ()
    if "litert" in names and importlib.util.find_spec("ai_edge_litert") is None:
        if names == ("litert",):
            raise make_missing_extra_error("ai-edge-litert", "litert")
        names, notes = tuple(n for n in names if n != "litert"), (_LITERT_MISSING,)
    own = get_runtime(model)
    lasting = _find_operator_obstacles(model, profile)
    found = (*lasting, *_find_version_obstacles(model, profile))
    if not found and own not in names:
        why = f"--runtime {names[0]} does not run .{model.format} files"
        found = (
            Obstacle(
                what=why, fix="use --runtime auto: the build converts the model for that runtime"
            ),
        )
    if lasting and not any(name != own for name in names):
        raise UserError(
            f"{Path(model.display_name).name} cannot run on {profile.name}:",
            details=[f"{o.what}: {o.fix}" for o in lasting],
        )
    return Runtimes(names=names, obstacles=found, notes=notes)
