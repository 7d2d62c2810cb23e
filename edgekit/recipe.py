"""Recipes: the settings of every pass as data, and the key of what a recipe will make."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal


@dataclass(frozen=True)
class Within:
    """Bounds of a setting, both allowed; written beside its type, ``Annotated[int, Within(1)]``."""

    low: float
    high: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a value lies between them."""
        return self.low <= value and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        if self.high is None:
            return f"of at least {self.low:g}"
        return f"from {self.low:g} to {self.high:g}"


SampleCount = Annotated[int, Within(1)]
Estimator = Literal["minmax", "average", "percentile", "entropy", "mse"]
Ranges = Literal["auto", "minmax", "average", "percentile", "entropy", "mse"]
IntegerBits = Literal[7, 8]
WeightBits = Literal["auto", 7, 8]
FloatLayers = Literal["auto", "none"]
Precision = Literal["same", "float16", "dynamic", "int16x8"]
Kind = Literal["channels", "heads", "neurons", "layers"]
# The two packages that are the runtime "litert".
Target = Literal["litert", "tflite-runtime"]


@dataclass(frozen=True, kw_only=True)
class Clean:
    """Fold constants, BatchNorm, scales and shifts; drop no-ops. Bit-exact up to rounding."""


@dataclass(frozen=True, kw_only=True)
class QuantizeStatic:
    """Static int8 as QDQ: unsigned 8-bit activations, signed per-channel weights.

    ``ranges`` says how an activation's range is taken from the calibration samples:
    ``minmax`` all of it, ``average`` the moving average of each sample's extremes,
    ``percentile`` all but the ``100 - percentile`` most extreme values, ``entropy`` the range
    whose histogram diverges least, ``mse`` the one with the least squared error, and ``auto`` for
    each value the one of these that makes the least error in what reads the value, on samples
    that no range was taken from. ``bias_correction`` makes up for what rounding and clipping
    shift on average, ``equalise`` evens out the channels between two layers. Each refinement is
    made only where it lowers the error of the model's outputs on such samples by more than its
    noise; ``auto`` ranges are those of ``minmax`` otherwise.

    With ``float_layers=auto`` the few layers stay float whose 8-bit form makes most of the error,
    at most a fifth of the arithmetic; with ``none`` all layers are 8-bit.

    Weights of 7 bits saturate nowhere; those of 8 are for processors with 8-bit dot products
    (VNNI) and for Arm. ``auto`` is 8 where the device of the project, if it names one, and this
    machine are such, else 7.
    """

    ranges: Ranges = "auto"
    weight_bits: WeightBits = "auto"
    percentile: Annotated[float, Within(50, 100)] = 99.99
    max_samples: SampleCount = 512
    bias_correction: bool = True
    equalise: bool = True
    float_layers: FloatLayers = "auto"


@dataclass(frozen=True, kw_only=True)
class QuantizeDynamic:
    """Dynamic int8: activations quantised at run time, 8-bit embeddings.

    ``weight_bits`` as in ``quantize``.
    """

    weight_bits: WeightBits = "auto"


@dataclass(frozen=True, kw_only=True)
class QuantizeWeights:
    """Weights of few bits by GPTQ; activations stay float.

    ``bits`` is what a weight takes on average. With the ``entropy`` grid these are bits on the way
    to the device, where frequent integers take fewer of them, and integers are as many as 8 bits
    hold; with the ``fixed`` grid they are the width of the integers, 2 to 8. ``most_bytes``, where
    given, takes the place of ``bits``: as many as a file of that transfer size has room for.

    ``allocation`` says which layers get more: ``measured`` those that the outputs depend on, by
    their divergence on held-out samples, ``uniform`` none. ``widths`` sets single layers by name
    (32 = left float); ``bits`` then is the average of the others.

    ``container`` is what the device runs: ``int8`` integers, which the runtime restores to floats
    when it loads the file and static or dynamic int8 takes over, or ``native`` kernels for 2, 4
    and 8 bits with a scale per ``block`` inputs (MatMulNBits, GatherBlockQuantized, INT4 for
    convolutions and recurrent layers), always of fixed width.
    ``weight_bits`` as in ``quantize``.
    """

    bits: Annotated[float, Within(1, 8)] = 4.0
    most_bytes: Annotated[int, Within(1)] | None = None
    grid: Literal["entropy", "fixed"] = "entropy"
    allocation: Literal["measured", "uniform"] = "measured"
    widths: tuple[tuple[str, float], ...] = ()
    container: Literal["int8", "native"] = "int8"
    block: Literal[16, 32, 64, 128] = 32
    weight_bits: WeightBits = "auto"
    max_samples: SampleCount = 256


@dataclass(frozen=True, kw_only=True)
class Float16:
    """Weights stored in 16 bits and widened when the model is loaded; all else stays float32."""


@dataclass(frozen=True, kw_only=True)
class ToTflite:
    """The same graph as a .tflite file, its batch and all its sizes fixed.

    ``precision`` says what its numbers are: ``same`` keeps floats, and makes of the QDQ of
    ``quantize`` integer kernels with the very scales; ``float16`` stores weights in 16 bits,
    ``dynamic`` in 8 bits with activations quantised at run time; ``int16x8`` makes of QDQ 16-bit
    activations and 8-bit weights, which is slow and exact.

    ``target`` is the runtime: ``tflite-runtime`` keeps to what version 2.14 of it knows.

    ``dims`` are the sizes of free dimensions by name, the first axis of each input apart, which
    is the batch; where nobody says, those of the samples. One without a name is called after its
    input and axis: ``x.2``.
    """

    precision: Precision = "same"
    target: Target = "litert"
    dims: tuple[tuple[str, Annotated[int, Within(1)]], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ToOnnx:
    """The same graph as an .onnx file, from a .tflite file.

    ``dims`` are the sizes of inputs that the file states as 1 and means to be resized, by name:
    ``x.1`` for the second axis of x; where nobody says, those of the samples.
    """

    dims: tuple[tuple[str, Annotated[int, Within(1)]], ...] = ()


@dataclass(frozen=True, kw_only=True)
class PruneChannels:
    """Fewer channels, attention heads, neurons and residual layers; the graph really gets smaller.

    ``remove`` is the part that goes: of the multiply-accumulates, or with ``of=units`` of the
    groups of each layer. ``kinds`` says what may go.

    ``score`` ranks the groups of a layer: ``second-order`` by the error that is left once the
    consumers are refitted, ``fisher`` and ``taylor`` by gradients (needs TensorFlow),
    ``magnitude`` by their weights. ``allocation`` shares it out among the layers: ``measured`` by
    the divergence of the outputs on held-out samples, ``score`` by the scores alone, ``uniform``
    the same part of each. Residual layers go as a whole where that does less damage by measure;
    with ``of=units`` they stay.

    Widths that were multiples of ``align`` stay so, wide ones multiples of twice that; what a
    convolution pads its channels to counts as work that is left. ``repair`` refits by least
    squares every layer to what it made before, on calibration samples.
    """

    remove: Annotated[float, Within(0.01, 0.95)] = 0.25
    of: Literal["macs", "units"] = "macs"
    kinds: tuple[Kind, ...] = ("channels", "heads", "neurons", "layers")
    score: Literal["second-order", "fisher", "taylor", "magnitude"] = "second-order"
    allocation: Literal["measured", "score", "uniform"] = "measured"
    align: Annotated[int, Within(1, 64)] = 8
    repair: bool = True
    max_samples: SampleCount = 512


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Single weights set to zero, the others made up for them; the file travels lighter.

    ``sparsity`` is the part of the weights of all layers and embeddings that becomes zero; with
    ``pattern`` N:M it is N of each M inputs that stay, in every layer whose inputs per output
    (channels of the group times kernel, in the order they are stored) are a multiple of M, and
    ``sparsity`` is left alone or says the same.
    ``score`` is ``second-order`` (zeros and what is left are found together, for the inputs that
    calibration samples make) or ``magnitude`` (the smallest go, the others stay as they are).
    ``allocation`` says which layers lose more: ``measured`` those that the outputs depend on
    least, by their divergence on held-out samples, ``uniform`` none.

    The runtimes multiply by zeros as by any number: no latency is gained.
    """

    sparsity: Annotated[float, Within(0.05, 0.95)] = 0.5
    pattern: Literal["none", "1:2", "2:4", "4:8", "1:4"] = "none"
    score: Literal["second-order", "magnitude"] = "second-order"
    allocation: Literal["measured", "uniform"] = "measured"
    max_samples: SampleCount = 256


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """Each large product as two thin ones, where that saves multiply-accumulates and bytes.

    ``keep`` is the part of the parameters that the layers taken keep together, or with ``of=macs``
    that of their multiply-accumulates, which in early convolutions are many. ``layers`` are
    patterns (``*ffn*``) of names of nodes, weights or biases; all that are large enough where
    none is given. ``score`` is ``activations`` (the error that the layer's own inputs make of it)
    or ``plain`` (that of the weights alone).

    ``allocation`` shares the parameters out: ``measured`` by the divergence of the outputs on
    held-out samples, ``error`` by what each layer's own outputs lose, ``uniform`` the same part
    to each. ``repair`` refits the second of two thin layers by least squares to what the first
    one really gives it.
    """

    keep: Annotated[float, Within(0.05, 0.95)] = 0.5
    of: Literal["parameters", "macs"] = "parameters"
    layers: tuple[str, ...] = ()
    score: Literal["activations", "plain"] = "activations"
    allocation: Literal["measured", "error", "uniform"] = "measured"
    repair: bool = True
    max_samples: SampleCount = 256


Settings = (
    Clean
    | PruneChannels
    | LowRank
    | Prune
    | QuantizeStatic
    | QuantizeDynamic
    | QuantizeWeights
    | Float16
    | ToTflite
    | ToOnnx
)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One pass of a recipe: its name in the passes table, its version and its settings."""

    name: str
    version: int
    settings: Settings

    def as_json(self) -> dict[str, Any]:
        """The step as what ``json.dumps`` takes."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named list of steps, run one after the other."""

    name: str
    steps: tuple[Step, ...] = field(default=())
    seed: int = 0


def with_weight_bits(step: Step, bits: IntegerBits) -> Step:
    """The step with so many bits for int8 weights where it leaves them open."""
    settings = step.settings
    if not isinstance(settings, QuantizeStatic | QuantizeDynamic | QuantizeWeights):
        return step
    if settings.weight_bits != "auto":
        return step
    fixed = dataclasses.replace(settings, weight_bits=bits)
    return dataclasses.replace(step, settings=fixed)


def candidate_key(
    recipe: Recipe, *, source: str, splits: dict[str, str], tools: dict[str, str]
) -> str:
    """Hash of everything that decides a candidate's bytes, known before it is made.

    Args:
        recipe: steps with their versions and settings, and the seed.
        source: digest of the source model.
        splits: digest of each data split that the steps read, by the split's name.
        tools: version of each package that the steps use, by its name.
    """
    facts = {
        "source": source,
        "splits": splits,
        "steps": [step.as_json() for step in recipe.steps],
        "seed": recipe.seed,
        "tools": tools,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
