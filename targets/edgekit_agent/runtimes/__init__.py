"""Runtimes that can run a model, by name, and the interface of a loaded model."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Dict, Mapping, Protocol, Tuple, Union

from edgekit_agent.failures import AgentError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Arrays = Dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model. A free dimension is its name, or ``?`` where it has none."""

    name: str
    dtype: str  # name of a numpy type
    shape: Tuple[Union[int, str], ...]


class LoadedModel(Protocol):
    """A model that is ready to run."""

    inputs: Tuple[Tensor, ...]
    outputs: Tuple[Tensor, ...]
    version: str  # of the runtime

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run one inference.

        Raises:
            AgentError: ``model_failed``; the runtime failed.
        """
        ...


@dataclass(frozen=True)
class Package:
    """A Python package that brings a runtime."""

    runtime: str
    module: str
    distribution: str


PACKAGES = (
    Package("onnxruntime", "onnxruntime", "onnxruntime"),
    Package("litert", "ai_edge_litert", "ai-edge-litert"),
    Package("litert", "tflite_runtime", "tflite-runtime"),
)

# "module:function"; importing the module imports the runtime.
TABLE = {
    "onnxruntime": "edgekit_agent.runtimes.ort:load",
    "litert": "edgekit_agent.runtimes.litert:load",
}


def import_runtime(name: str) -> Callable[[str, int], LoadedModel]:
    """Import a runtime; return its function that loads ``(path, threads)``.

    Raises:
        AgentError: ``bad_job`` for an unknown name, ``missing_runtime`` if it can't be imported.
    """
    if name not in TABLE:
        raise AgentError("bad_job", f"unknown runtime {name!r}; known: {', '.join(TABLE)}")
    module, function = TABLE[name].split(":")
    try:
        load: Callable[[str, int], LoadedModel] = getattr(importlib.import_module(module), function)
    except ImportError as error:
        package_names = " or ".join(p.distribution for p in PACKAGES if p.runtime == name)
        raise AgentError(
            "missing_runtime",
            f"cannot import {name}: {error}",
            hint=f"install {package_names}; 'edgekit push' installs it on the device",
        ) from error
    return load
