"""Settings of every pass, as frozen dataclasses with bounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from pydantic_core import CoreSchema


@dataclass(frozen=True)
class Bounds:
    """Inclusive bounds of a setting, annotated to its type: ``Annotated[int, Bounds(1)]``."""

    low: float
    high: float | None = None

    def holds(self, value: float) -> bool:
        """Return whether a value lies within the bounds."""
        return self.low <= value and (self.high is None or value <= self.high)

    def check(self, value: float) -> float:
        """Return a value within the bounds.

        Raises:
            ValueError: It is outside.
        """
        if not self.holds(value):
            raise ValueError(f"must be {self}")
        return value

    def __get_pydantic_core_schema__(
        self, source: object, handler: Callable[[object], CoreSchema]
    ) -> CoreSchema:
        """Have pydantic check the bounds after the type."""
        from pydantic_core import core_schema  # recipes alone need no pydantic

        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __str__(self) -> str:
        if self.high is None:
            return f"of at least {self.low:g}"
        return f"from {self.low:g} to {self.high:g}"


SampleCount = Annotated[int, Bounds(1)]


Estimator = Literal["minmax", "average", "percentile", "entropy", "mse"]


Ranges = Literal["auto", "minmax", "average", "percentile", "entropy", "mse"]


IntegerBits = Literal[7, 8]


WeightBits = Literal["auto", 7, 8]


FloatLayers = Literal["auto", "none"]


Precision = Literal["same", "float16", "dynamic", "int16x8"]


Kind = Literal["channels", "heads", "neurons", "layers"]


# The two packages of the runtime "litert".
Target = Literal["litert", "tflite-runtime"]


@dataclass(frozen=True, kw_only=True)
class Clean:
    """Fold constants, BatchNorm, scales and shifts; drop no-ops. Bit-exact up to rounding."""


@dataclass(frozen=True, kw_only=True)
class QuantizeStatic:
    """Static int8 as QDQ: unsigned 8-bit activations, signed per-channel weights.

    ``ranges`` selects the estimator of an activation's range from the calibration samples:
    ``minmax`` takes the full range, ``average`` the moving average of each sample's extremes,
    ``percentile`` all but the ``100 - percentile`` most extreme values, ``entropy`` the range whose
    histogram diverges least, ``mse`` the range of least squared error. ``auto`` chooses for each
    tensor the estimator that causes the least error in the layers that read it, on samples that no
    range was taken from. ``bias_correction`` compensates the mean shift that rounding and clipping
    cause. ``equalize`` applies cross-layer equalization. Each refinement is kept only if it lowers
    the error of the model's outputs on such samples by more than its noise; otherwise ``auto``
    ranges are those of ``minmax``.

    With ``float_layers=auto``, the few layers whose quantization causes most of the error stay
    float, at most a fifth of the arithmetic; with ``none`` all layers are 8-bit.

    Weights of 7 bits never saturate; weights of 8 bits are for processors with 8-bit dot products
    (VNNI) and for Arm. ``auto`` is 8 if this machine and the device of the project, if it names
    one, are of these kinds, else 7.
    """

    ranges: Ranges = "auto"
    weight_bits: WeightBits = "auto"
    percentile: Annotated[float, Bounds(50, 100)] = 99.99
    max_samples: SampleCount = 512
    bias_correction: bool = True
    equalize: bool = True
    float_layers: FloatLayers = "auto"


@dataclass(frozen=True, kw_only=True)
class QuantizeDynamic:
    """Dynamic int8: activations quantized at run time, 8-bit embeddings.

    ``weight_bits`` as in ``quantize-static``.
    """

    weight_bits: WeightBits = "auto"


@dataclass(frozen=True, kw_only=True)
class QuantizeWeights:
    """Low-bit weights by GPTQ; activations stay float.

    ``bits`` is the average number of bits per weight. With the ``entropy`` grid, these are bits of
    the packed file, in which frequent integers take fewer bits, and the integers have up to 8 bits.
    With the ``fixed`` grid, they are the width of the integers, 2 to 8. ``most_bytes`` replaces
    ``bits``: as many bits as a file of that transfer size can hold.

    ``allocation`` decides which layers get more bits: ``measured`` those that the outputs depend on
    most, by their divergence on held-out samples; ``uniform`` none. ``widths`` sets single layers
    by name (32 = float); ``bits`` is then the average of the others.

    ``container`` is the storage on the device: ``int8`` integers, which the runtime dequantizes to
    floats when it loads the file, or which static or dynamic int8 uses; or ``native`` kernels for
    2, 4 and 8 bits with a scale per ``block`` inputs (MatMulNBits, GatherBlockQuantized, INT4 for
    convolutions and recurrent layers), always of fixed width. ``weight_bits`` as in
    ``quantize-static``.
    """

    bits: Annotated[float, Bounds(1, 8)] = 4.0
    most_bytes: Annotated[int, Bounds(1)] | None = None
    grid: Literal["entropy", "fixed"] = "entropy"
    allocation: Literal["measured", "uniform"] = "measured"
    widths: tuple[tuple[str, float], ...] = ()
    container: Literal["int8", "native"] = "int8"
    block: Literal[16, 32, 64, 128] = 32
    weight_bits: WeightBits = "auto"
    max_samples: SampleCount = 256


@dataclass(frozen=True, kw_only=True)
class Float16:
    """Weights stored in 16 bits and converted to float32 at load; all else stays float32."""


@dataclass(frozen=True, kw_only=True)
class ToTflite:
    """Conversion to a .tflite file with a fixed batch and fixed sizes.

    ``precision`` is the number format: ``same`` keeps floats, and converts the QDQ of
    ``quantize-static`` to integer kernels with the same scales; ``float16`` stores weights in 16
    bits; ``dynamic`` stores them in 8 bits and quantizes activations at run time; ``int16x8``
    converts QDQ to 16-bit activations and 8-bit weights, which is slow and accurate.

    ``target`` is the runtime: ``tflite-runtime`` restricts the file to features of version 2.14.

    ``dims`` are the sizes of free dimensions by name, except the first axis of each input, which is
    the batch; by default those of the samples. A dimension without a name is called after its input
    and axis: ``x.2``.
    """

    precision: Precision = "same"
    target: Target = "litert"
    dims: tuple[tuple[str, Annotated[int, Bounds(1)]], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ToOnnx:
    """Conversion of a .tflite file to an .onnx file.

    ``dims`` are the sizes of resizable input dimensions, which the file states as 1, by name:
    ``x.1`` for the second axis of x; by default those of the samples.
    """

    dims: tuple[tuple[str, Annotated[int, Bounds(1)]], ...] = ()


@dataclass(frozen=True, kw_only=True)
class PruneChannels:
    """Structured pruning: fewer channels, attention heads, neurons and residual layers.

    ``remove`` is the share to remove: of the multiply-accumulates, or with ``of=units`` of the
    groups of each layer. ``kinds`` selects the structures that may be removed.

    ``score`` ranks the groups of a layer: ``second-order`` by the error that remains after the
    consumers are refitted, ``fisher`` and ``taylor`` by gradients (needs TensorFlow), ``magnitude``
    by their weights. ``allocation`` distributes the share over the layers: ``measured`` by the
    divergence of the outputs on held-out samples, ``score`` by the scores, ``uniform`` the same
    share in each. Residual layers are removed as a whole if that measurably does less damage; with
    ``of=units`` they stay.

    Widths that are multiples of ``align`` stay multiples of it, wide ones of twice that; channels
    that a convolution pads count as remaining work. ``repair`` refits every layer by least squares
    to its original outputs, on calibration samples.
    """

    remove: Annotated[float, Bounds(0.01, 0.95)] = 0.25
    of: Literal["macs", "units"] = "macs"
    kinds: tuple[Kind, ...] = ("channels", "heads", "neurons", "layers")
    score: Literal["second-order", "fisher", "taylor", "magnitude"] = "second-order"
    allocation: Literal["measured", "score", "uniform"] = "measured"
    align: Annotated[int, Bounds(1, 64)] = 8
    repair: bool = True
    max_samples: SampleCount = 512


@dataclass(frozen=True, kw_only=True)
class PruneWeights:
    """Unstructured pruning: single weights set to zero, others refitted; the download is smaller.

    ``sparsity`` is the share of zeros in the weights of all layers and embeddings. With ``pattern``
    N:M, N of each M consecutive inputs are kept, in every layer whose inputs per output (channels
    of the group times kernel, in storage order) are a multiple of M; ``sparsity`` must then stay at
    its default or agree. ``score`` is ``second-order`` (zeros and remaining weights are optimized
    together for the inputs of calibration samples) or ``magnitude`` (the smallest are removed, the
    others unchanged). ``allocation`` decides which layers lose more: ``measured`` those that the
    outputs depend on least, by their divergence on held-out samples; ``uniform`` none.

    The runtimes multiply by zeros as by any number, so latency does not improve.
    """

    sparsity: Annotated[float, Bounds(0.05, 0.95)] = 0.5
    pattern: Literal["none", "1:2", "2:4", "4:8", "1:4"] = "none"
    score: Literal["second-order", "magnitude"] = "second-order"
    allocation: Literal["measured", "uniform"] = "measured"
    max_samples: SampleCount = 256


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """Low-rank factorization: two thin products replace a large one if that saves MACs and bytes.

    ``keep`` is the share of the parameters that the selected layers keep in total, or with
    ``of=macs`` of their multiply-accumulates, which are many in early convolutions. ``layers`` are
    patterns (``*ffn*``) of names of nodes, weights or biases; by default all layers that are large
    enough. ``score`` is ``activations`` (the error for the layer's own inputs) or ``plain`` (the
    error of the weights).

    ``allocation`` distributes the parameters: ``measured`` by the divergence of the outputs on
    held-out samples, ``error`` by the error of each layer's own outputs, ``uniform`` the same share
    for each. ``repair`` refits the second thin layer by least squares to the actual outputs of the
    first.
    """

    keep: Annotated[float, Bounds(0.05, 0.95)] = 0.5
    of: Literal["parameters", "macs"] = "parameters"
    layers: tuple[str, ...] = ()
    score: Literal["activations", "plain"] = "activations"
    allocation: Literal["measured", "error", "uniform"] = "measured"
    repair: bool = True
    max_samples: SampleCount = 256


@dataclass(frozen=True, kw_only=True)
class Distil:
    """Knowledge distillation: the weights learn to reproduce the outputs of the original model.

    The original is the teacher, the compressed model the student (Hinton 2015); labels are not
    needed. ``steps`` is the number of learning steps; 0 stands for as many as fit into ``minutes``
    on this machine (at most 5,000, or 300 rounds through the samples), so that only a given number
    makes the result depend on the seed alone.
    ``batch`` is the number of samples in a step; 0 stands for 8 to 64, fewer for a model of more
    arithmetic. ``rate`` is the largest change of a weight in one step, relative to the RMS of its
    tensor; 0 stands for 0.01, for 0.003 where weights are stored as integers, and for less with
    fewer than 2,000 steps or 64 samples in each.

    With ``features``, inner values that have the same name in both models are matched, too. With
    ``augment``, samples are changed at random, in ways that leave most answers of the teacher the
    same.
    """

    minutes: Annotated[float, Bounds(0.05, 600)] = 5.0
    steps: Annotated[int, Bounds(0, 10_000_000)] = 0
    batch: Annotated[int, Bounds(0, 1024)] = 0
    rate: Annotated[float, Bounds(0, 0.1)] = 0.0
    features: bool = True
    augment: bool = True
    max_samples: SampleCount = 8192


Settings = (
    Clean
    | PruneChannels
    | LowRank
    | PruneWeights
    | Distil
    | QuantizeStatic
    | QuantizeDynamic
    | QuantizeWeights
    | Float16
    | ToTflite
    | ToOnnx
)


class PluginSettings(Protocol):
    """Settings of a plugin's pass: a frozen dataclass whose fields have defaults."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
