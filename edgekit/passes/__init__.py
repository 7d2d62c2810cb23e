"""The table of passes: what each takes, needs and depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.model import Format, Model
from edgekit.progress import Tick
from edgekit.recipe import (
    Clean,
    Float16,
    QuantizeDynamic,
    QuantizeStatic,
    QuantizeWeights,
    Settings,
    Step,
)
from edgekit_agent.records import Samples


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a pass may use: a folder of its own, calibration samples, and a place to report to."""

    scratch: Path
    calibration: Samples | None
    progress: Tick
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class PassSpec:
    """A row of the table.

    ``max_relative_error`` bounds the relative RMS error of the outputs against the input model
    on calibration samples; ``None`` where only the gate can judge.
    """

    settings: type[Settings]
    function: str  # "module:function" of (Model, settings, Work) -> Path
    summary: str
    version: int
    formats: tuple[Format, ...] = ("onnx",)
    needs_calibration: bool = False
    tools: tuple[str, ...] = field(default=("numpy", "onnx", "onnxruntime"))
    max_relative_error: float | None = None
    may_find_nothing: bool = False  # an unchanged file is a success


PASSES: dict[str, PassSpec] = {
    "clean": PassSpec(
        settings=Clean,
        function="edgekit.passes.clean:clean",
        summary="fold constants and BatchNorm, drop what has no effect",
        version=1,
        max_relative_error=1e-3,
        may_find_nothing=True,
    ),
    "weights": PassSpec(
        settings=QuantizeWeights,
        function="edgekit.passes.quantize_weights:quantize_weights",
        summary="weights of 2 to 8 bits by GPTQ in an int8 container, activations float",
        version=1,
        needs_calibration=True,
    ),
    "quantize": PassSpec(
        settings=QuantizeStatic,
        function="edgekit.passes.quantize_static:quantize_static",
        summary="8-bit weights and activations as QDQ, ranges from calibration samples",
        version=5,
        needs_calibration=True,
    ),
    "quantize-dynamic": PassSpec(
        settings=QuantizeDynamic,
        function="edgekit.passes.quantize_dynamic:quantize_dynamic",
        summary="8-bit MatMul, Gemm and embeddings, activations quantised at run time",
        version=4,
    ),
    "float16": PassSpec(
        settings=Float16,
        function="edgekit.passes.float16:float16",
        summary="weights stored in 16 bits and widened at load, half the file",
        version=1,
        max_relative_error=1e-2,
    ),
}


def step(settings: Settings) -> Step:
    """The step that runs the pass of these settings."""
    name, spec = next((n, s) for n, s in PASSES.items() if s.settings is type(settings))
    return Step(name=name, version=spec.version, settings=settings)


PassFunction = Callable[[Model, Any, Work], Path]
