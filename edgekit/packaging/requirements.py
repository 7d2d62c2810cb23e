"""Python packages that an app needs on the device: runtimes, numpy, and readers of its inputs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgekit.bundle.manifest import Manifest
from edgekit.remote.python_tags import DevicePython
from edgekit.remote.wheel_download import WheelRequest
from edgekit.remote.wheels import NUMPY_ARCHES, list_candidates

# Packages of which inference imports nothing but numpy: the rest of their requirements (protobuf,
# huggingface-hub and others) concerns conversion, training and downloads.
LEAVES = frozenset({"onnxruntime", "ai-edge-litert", "tflite-runtime", "tokenizers", "pillow"})
READERS = {"image": "pillow", "text": "tokenizers"}


def list_requests(
    manifests: Sequence[Manifest],
    python: DevicePython,
    *,
    inputs: Collection[str],
    requires: Sequence[str],
) -> tuple[WheelRequest, ...]:
    """Return the possible sets of packages of an app, the preferred one first.

    Args:
        manifests: Manifests of the models.
        python: Python of the device.
        inputs: Kinds of inputs of the models: ``image``, ``audio``, ``text`` or ``form``.
        requires: Further requirements of the app.

    Raises:
        DeviceError: A runtime has no wheel for the device.
    """
    choices: dict[str, tuple[WheelRequest, ...]] = {}
    for manifest in manifests:
        name = manifest.runtime.name
        if name not in choices:
            spec = manifest.profile.runtimes[name]
            choices[name] = list_candidates(name, spec, python, manifest.runtime.version)
    readers = sorted(READERS[kind] for kind in inputs if kind in READERS)
    provided = frozenset(readers if python.arch not in NUMPY_ARCHES else ())
    further = [*(name for name in readers if name not in provided), *requires]
    rounds = max(len(each) for each in choices.values())
    return tuple(
        _merge([each[min(turn, len(each) - 1)] for each in choices.values()], further, provided)
        for turn in range(rounds)
    )


def _merge(
    requests: Sequence[WheelRequest], further: Sequence[str], provided: frozenset[str]
) -> WheelRequest:
    asked = [r for request in requests for r in request.requirements]
    return WheelRequest(
        requirements=tuple(dict.fromkeys([*asked, *further])),
        provided=provided.union(*(request.provided for request in requests)),
        leaves=LEAVES,
    )


def get_names(request: WheelRequest) -> frozenset[str]:
    """Return the normalized names of the required packages."""
    return frozenset(canonicalize_name(Requirement(r).name) for r in request.requirements)
