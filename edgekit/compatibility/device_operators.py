"""Check of a model's operators, opset and IR version against the runtimes of a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import ModelProto

from edgekit.config.profile import DeviceProfile, RuntimeSpec
from edgekit.onnx_graph.cost import count_ops
from edgekit.onnx_graph.io import get_opset


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """Reason why a device cannot run a model, with the fix."""

    what: str
    fix: str


def find_onnx_obstacles(proto: ModelProto, profile: DeviceProfile) -> tuple[Obstacle, ...]:
    """Find the reasons why a device cannot run an ONNX graph.

    Args:
        proto: the model.
        profile: the device.

    Returns:
        The obstacles; empty if the device can run the graph.
    """
    spec = profile.runtimes.get("onnxruntime")
    if spec is None:
        return (
            Obstacle(
                what=f"{profile.name} has no runtime for ONNX ({', '.join(profile.runtimes)} only)",
                fix="convert it to .tflite: 'edgekit build' does so, or 'edgekit apply to-tflite'",
            ),
        )
    return (
        *_check_opset(proto, spec),
        *_check_ir_version(proto, spec),
        *_check_operators(count_ops(proto), spec),
    )


def find_tflite_obstacles(
    profile: DeviceProfile, ops: Mapping[str, int] | None = None
) -> tuple[Obstacle, ...]:
    """Find the reasons why a device cannot run a .tflite file.

    Args:
        profile: the device.
        ops: number of nodes by operator; ``None`` if the file was not read.

    Returns:
        The obstacles; empty if the device can run the file.
    """
    if "litert" in profile.runtimes:
        return _check_operators(ops or {}, profile.runtimes["litert"])
    what = f"{profile.name} has no runtime for TFLite ({', '.join(profile.runtimes)} only)"
    fix = "convert it to .onnx: 'edgekit build' does so, or 'edgekit apply to-onnx'"
    return (Obstacle(what=what, fix=fix),)


def _check_opset(proto: ModelProto, spec: RuntimeSpec) -> tuple[Obstacle, ...]:
    version = get_opset(proto)
    if spec.opset_max is None or version <= spec.opset_max:
        return ()
    what = f"opset {version} is above {spec.opset_max}, the limit of the device's onnxruntime"
    fix = (
        f"export the model with opset_version={spec.opset_max}, or install a newer runtime and "
        "raise opset_max in the profile"
    )
    return (Obstacle(what=what, fix=fix),)


def _check_ir_version(proto: ModelProto, spec: RuntimeSpec) -> tuple[Obstacle, ...]:
    if spec.ir_max is None or proto.ir_version <= spec.ir_max:
        return ()
    what = (
        f"IR version {proto.ir_version} is above {spec.ir_max}, the limit of the device's "
        "onnxruntime"
    )
    fix = f"load it with onnx, set model.ir_version = {spec.ir_max}, and save it"
    return (Obstacle(what=what, fix=fix),)


def _check_operators(ops: Mapping[str, int], spec: RuntimeSpec) -> tuple[Obstacle, ...]:
    return tuple(
        Obstacle(
            what=f"operator {name} ({count} nodes) is not allowed by the device profile",
            fix="replace it before export, or change the profile if the device can run it",
        )
        for name, count in ops.items()
        if name in spec.forbidden or (spec.allowed is not None and name not in spec.allowed)
    )
