"""Table of passes: settings, function, requirements and promises of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.data.input_settings import Feeding
from edgekit.model import Format, Model
from edgekit.pass_settings import (
    Clean,
    Distil,
    Float16,
    LowRank,
    PluginSettings,
    PruneChannels,
    PruneWeights,
    QuantizeDynamic,
    QuantizeStatic,
    QuantizeWeights,
    Settings,
    ToOnnx,
    ToTflite,
)
from edgekit.progress import Tick
from edgekit.recipe import Step
from edgekit_agent.samples import Samples


@dataclass(frozen=True, kw_only=True)
class Work:
    """Resources of one pass run: scratch folder, calibration samples, progress and notes.

    ``progress`` shows how far the pass is. ``note`` tells the user a fact that stays with the
    result, such as a layer that was left unchanged, and why. A pass fits to the samples of
    ``fitting`` only; the ``unseen`` samples are held out to measure the output error.

    ``original`` is the model before the first step that compressed it. ``resume`` is a folder of
    this pass run for checkpoints: it outlives an interruption, and is removed after a success.
    """

    scratch: Path
    calibration: Samples | None
    progress: Tick
    seed: int = 0
    feeding: Feeding = field(default_factory=Feeding)  # facts of edgekit.toml about the inputs
    seen: tuple[Samples, ...] = ()  # calibration samples without the unseen ones; empty = all
    unseen: tuple[Samples, ...] = ()
    notes: list[str] = field(default_factory=list)
    original: Model | None = None  # an .onnx file
    resume: Path | None = None

    @property
    def fitting(self) -> tuple[Samples, ...]:
        """Return the calibration samples that a pass may fit to, in parts; empty without any."""
        return self.seen or ((self.calibration,) if self.calibration is not None else ())

    def note(self, text: str) -> None:
        """Tell the user one fact about the result, in one plain sentence; repeats are dropped."""
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True, kw_only=True)
class Promise:
    """Contract of a pass: properties of every file that it returns, checked by the runner.

    The runner also checks that the file differs from the input, loads, has the same inputs and
    outputs, holds no NaN, and that its outputs are finite wherever those of the input model are,
    also for several samples at once and for other sizes of free dimensions.

    Args:
        max_relative_error: bound of the RMS error of each output over its own RMS on calibration
            samples. The default separates only a broken result from a poor one, which the gate
            judges.
        min_correlation: least correlation of every float output with the original's over the
            samples; a constant output has 0.
        exact: the pass computes the same up to rounding, on any inputs.
        stores: element types; the file must hold tensors of at least one of them.
        fewer_float_weights: the bytes of float weights fall, unless ``stores`` were there before.
        fewer_macs: one sample takes fewer multiply-accumulates, as far as the file tells.
        sparser: least share of zeros in the float weights of layers and embeddings. An increase
            is enough where N:M fits only some layers.
        saves: share of the removed bytes of float weights by which the file must shrink.
        max_growth: largest file size relative to the original where no weights are removed.
        may_find_nothing: an unchanged file is a success.
        may_fold_infinities: a value that the graph computed may be stored, infinity among them.
    """

    max_relative_error: float = 3.0
    min_correlation: float = 0.02
    exact: bool = False
    stores: tuple[str, ...] = ()
    fewer_float_weights: bool = False
    fewer_macs: bool = False
    sparser: float = 0.0
    saves: float = 0.0
    max_growth: float = 1.0
    may_find_nothing: bool = False
    may_fold_infinities: bool = False


# Distribution whose version decides what gradients compute.
TENSORFLOW = "tensorflow-cpu"

# Packages that every pass needs, and those that read and write .tflite files.
_LITERT = ("numpy", "onnx", "onnxruntime", "ai-edge-litert", "flatbuffers")

# Integers of 8 bits take a quarter of the floats; scales and biases come on top of them.
INT8_WEIGHTS = Promise(stores=("int8",), fewer_float_weights=True, saves=0.5)

# A file of another runtime that computes the same, up to the order of sums. A larger file is
# reported in a note.
CONVERSION = Promise(
    max_relative_error=1e-4, exact=True, max_growth=math.inf, may_fold_infinities=True
)


PassFunction = Callable[[Model, Any, Work], Path]


@dataclass(frozen=True, kw_only=True)
class PassSpec:
    """Entry of the pass table: settings, function, requirements and promises of a pass.

    Args:
        settings: frozen dataclass of the settings; every field has a default.
        function: function of model, settings and work that returns the path of the new file, or
            its name as ``module:function``.
        summary: the pass in one line.
        version: number that changes whenever the pass makes another file of the same input.
        formats: formats that the pass takes.
        needs_calibration: the pass reads calibration samples.
        tools: distributions whose versions decide the bytes of the result.
        promise: properties of every result.
        holds_out_from: with fewer calibration samples, none is held out.
        reads_constants: constant inputs of edgekit.toml may be folded into the file.
        asks: setting of how much is removed; lost outputs are then no fault.
        needs_original: the pass reads the model before the first step that compressed it, with
            which its result is compared; it also gets a folder for checkpoints.
        plugin: distribution and version of the plugin that offers the pass; set by edgekit.
    """

    settings: type[Settings] | type[PluginSettings]
    function: str | PassFunction
    summary: str
    version: int
    formats: tuple[Format, ...] = ("onnx",)
    needs_calibration: bool = False
    tools: tuple[str, ...] = field(default=("numpy", "onnx", "onnxruntime"))
    promise: Promise = field(default_factory=Promise)
    holds_out_from: int = 12
    reads_constants: bool = False
    asks: str = ""
    needs_original: bool = False
    plugin: str = ""


PASSES: dict[str, PassSpec] = {
    "clean": PassSpec(
        settings=Clean,
        function="edgekit.compression.clean:clean",
        summary="fold constants and BatchNorm, remove operators without effect",
        version=4,
        reads_constants=True,
        promise=Promise(
            max_relative_error=1e-3,
            exact=True,
            max_growth=1.05,
            may_find_nothing=True,
            may_fold_infinities=True,
        ),
    ),
    "prune-channels": PassSpec(
        settings=PruneChannels,
        function="edgekit.compression.pruning.structured:prune_channels",
        summary="remove channels, heads, neurons and residual layers, and refit the remaining "
        "weights",
        version=8,
        reads_constants=True,
        needs_calibration=True,
        asks="remove",
        promise=Promise(fewer_float_weights=True, fewer_macs=True, saves=0.5),
    ),
    "low-rank": PassSpec(
        settings=LowRank,
        function="edgekit.compression.low_rank.factorize:factorize_layers",
        summary="factorize large matrix products and convolutions, with ranks chosen by output "
        "error",
        version=9,
        reads_constants=True,
        needs_calibration=True,
        asks="keep",
        promise=Promise(fewer_float_weights=True, fewer_macs=True, saves=0.5),
    ),
    "prune-weights": PassSpec(
        settings=PruneWeights,
        function="edgekit.compression.pruning.unstructured:prune_weights",
        summary="set single weights to zero and refit the others; reduces the download size",
        version=8,
        reads_constants=True,
        needs_calibration=True,
        asks="sparsity",
        promise=Promise(),
    ),
    "quantize-weights": PassSpec(
        settings=QuantizeWeights,
        function="edgekit.compression.quantization.few_bits.weight_only:quantize_weights",
        summary="quantize weights to few bits by GPTQ, more bits in sensitive layers; "
        "activations stay float",
        version=19,
        reads_constants=True,
        needs_calibration=True,
        asks="bits",
        promise=Promise(stores=("int8", "uint8", "int4"), fewer_float_weights=True, saves=0.5),
    ),
    "quantize-static": PassSpec(
        settings=QuantizeStatic,
        function="edgekit.compression.quantization.static:quantize_static",
        summary="quantize weights and activations to 8 bits (QDQ), with ranges from calibration "
        "samples",
        version=26,
        reads_constants=True,
        needs_calibration=True,
        holds_out_from=64,  # ranges are few parameters, and few samples miss extremes
        promise=INT8_WEIGHTS,
    ),
    "quantize-dynamic": PassSpec(
        settings=QuantizeDynamic,
        function="edgekit.compression.quantization.dynamic:quantize_dynamic",
        summary="quantize MatMul, Gemm and embeddings to 8 bits, activations at run time",
        version=17,
        reads_constants=True,
        promise=INT8_WEIGHTS,
    ),
    "distil": PassSpec(
        settings=Distil,
        function="edgekit.compression.distillation.distil:distil",
        summary="recover accuracy: the weights learn to reproduce the outputs of the original",
        version=1,
        reads_constants=True,
        needs_calibration=True,
        needs_original=True,
        tools=("numpy", "onnx", "onnxruntime", TENSORFLOW),
        promise=Promise(max_growth=1.05, may_find_nothing=True),
    ),
    "float16": PassSpec(
        settings=Float16,
        function="edgekit.compression.quantization.float16:store_as_float16",
        summary="store weights in 16 bits, widened at load; halves the file size",
        version=5,
        promise=Promise(max_relative_error=1e-2, stores=("float16",)),
    ),
    "to-tflite": PassSpec(
        settings=ToTflite,
        function="edgekit.compression.to_tflite:to_tflite",
        summary="convert to .tflite, float or int8 as given, with a fixed batch size",
        version=12,
        reads_constants=True,
        tools=_LITERT,
        promise=CONVERSION,
    ),
    "to-onnx": PassSpec(
        settings=ToOnnx,
        function="edgekit.compression.to_onnx:to_onnx",
        summary="convert to .onnx, float or int8 (QDQ) as given",
        version=4,
        formats=("tflite",),
        tools=_LITERT,
        promise=CONVERSION,
    ),
}


def build_step(settings: Settings) -> Step:
    """Return the recipe step that runs the pass of these settings."""
    name, spec = next((n, s) for n, s in PASSES.items() if s.settings is type(settings))
    return Step(name=name, version=spec.version, settings=settings)
