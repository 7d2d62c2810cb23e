"""Constraints of TFLite's integer kernels on the scales of their inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scales = Literal["free", "same", "fixed"]
Activations = Literal["int8", "int16"]


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Constraints of an operator that runs on integers.

    Args:
        scales: ``free``: input and output scales may differ. ``same``: all scales are equal.
            ``fixed``: the kernel prescribes the output scale.
        real_inputs: Positions of the inputs that hold quantized values; ``None`` for all. The
            others are indices, axes, sizes and the like.
        commutes: Quantization before and after the operator gives the same result, because it only
            moves or selects values.
        requantize_first: Inputs must be requantized to one scale before the operator, because it
            has several of them or adds values of its own.
        multiplies: The accumulator's scale is the product of the input scales.
        fixed: Prescribed scale and zero point by output type.
        has_int16: There is a kernel for 16-bit activations.
    """

    scales: Scales = "free"
    real_inputs: tuple[int, ...] | None = None
    commutes: bool = False
    requantize_first: bool = False
    multiplies: bool = False
    fixed: dict[Activations, tuple[float, int]] | None = None
    has_int16: bool = True


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Constraints of an operator with stored int8 weights and a bias in the accumulator's scale.

    Args:
        axis: Axis of the weights along which scales may differ.
        image: Position of the input with the activations.
        weight: Position of the weights.
        bias: Position of the bias.
        needs_bias: The kernel requires a bias, if only of zeros.
    """

    axis: int
    image: int = 0
    weight: int = 1
    bias: int = 2
    needs_bias: bool = True


def _build_moving_kernel(*real_inputs: int, has_int16: bool = True) -> Kernel:
    return Kernel(
        scales="same", real_inputs=real_inputs or (0,), commutes=True, has_int16=has_int16
    )


def _build_fixed_kernel(int8: tuple[float, int], int16: tuple[float, int] | None) -> Kernel:
    fixed: dict[Activations, tuple[float, int]] = {"int8": int8}
    if int16 is not None:
        fixed["int16"] = int16
    return Kernel(scales="fixed", real_inputs=(0,), fixed=fixed, has_int16=int16 is not None)


_ONE = Kernel(real_inputs=(0,))
_TABLE_LOOKUP = Kernel(real_inputs=(0,), has_int16=False)
_CHOICE = Kernel(scales="same", commutes=True, requantize_first=True)

# Source: TensorFlow Lite 8-bit quantization specification, and the Prepare functions of
# tensorflow/lite/kernels.
KERNELS: dict[str, Kernel] = {
    "ADD": Kernel(),
    "SUB": Kernel(),
    "MUL": Kernel(multiplies=True),
    "SQUARED_DIFFERENCE": Kernel(has_int16=False),
    "BATCH_MATMUL": Kernel(multiplies=True),
    "MEAN": _ONE,
    "SUM": Kernel(real_inputs=(0,), has_int16=False),
    "LEAKY_RELU": _ONE,
    "RELU": _ONE,
    "RELU6": _ONE,
    "RELU_N1_TO_1": Kernel(real_inputs=(0,), has_int16=False),
    "PRELU": Kernel(has_int16=False),
    "HARD_SWISH": Kernel(real_inputs=(0,), has_int16=False),
    "GELU": _TABLE_LOOKUP,
    "ELU": _TABLE_LOOKUP,
    "EXP": _TABLE_LOOKUP,
    "ABS": _TABLE_LOOKUP,
    "SOFTMAX": _build_fixed_kernel((1 / 256, -128), (1 / 32768, 0)),
    "LOGISTIC": _build_fixed_kernel((1 / 256, -128), (1 / 32768, 0)),
    "TANH": _build_fixed_kernel((1 / 128, 0), (1 / 32768, 0)),
    "L2_NORMALIZATION": _build_fixed_kernel((1 / 128, 0), None),
    "LOG_SOFTMAX": _build_fixed_kernel((16 / 256, 127), None),
    "AVERAGE_POOL_2D": Kernel(scales="same", real_inputs=(0,)),
    "RESIZE_BILINEAR": Kernel(scales="same", real_inputs=(0,)),
    "MAX_POOL_2D": _build_moving_kernel(),
    "REDUCE_MAX": _build_moving_kernel(has_int16=False),
    "REDUCE_MIN": _build_moving_kernel(has_int16=False),
    "RESHAPE": _build_moving_kernel(),
    "TRANSPOSE": _build_moving_kernel(),
    "SLICE": _build_moving_kernel(),
    "STRIDED_SLICE": _build_moving_kernel(),
    "GATHER": _build_moving_kernel(),
    "GATHER_ND": _build_moving_kernel(),
    "SPLIT": _build_moving_kernel(1),
    "SPLIT_V": _build_moving_kernel(has_int16=False),
    "UNPACK": _build_moving_kernel(has_int16=False),
    "TILE": _build_moving_kernel(has_int16=False),
    "BROADCAST_TO": _build_moving_kernel(has_int16=False),
    "REVERSE_V2": _build_moving_kernel(has_int16=False),
    "DEPTH_TO_SPACE": _build_moving_kernel(has_int16=False),
    "SPACE_TO_DEPTH": _build_moving_kernel(has_int16=False),
    "BATCH_TO_SPACE_ND": _build_moving_kernel(has_int16=False),
    "SPACE_TO_BATCH_ND": _build_moving_kernel(has_int16=False),
    "RESIZE_NEAREST_NEIGHBOR": _build_moving_kernel(),
    "PAD": _build_moving_kernel(),
    "MIRROR_PAD": _build_moving_kernel(has_int16=False),
    "PADV2": Kernel(scales="same", real_inputs=(0, 2), commutes=True, requantize_first=True),
    "CONCATENATION": _CHOICE,
    "PACK": Kernel(scales="same", commutes=True, requantize_first=True, has_int16=False),
    "MAXIMUM": _CHOICE,
    "MINIMUM": _CHOICE,
    "SELECT_V2": Kernel(scales="same", real_inputs=(1, 2), commutes=True, requantize_first=True),
}

LAYERS: dict[str, Layer] = {
    "CONV_2D": Layer(axis=0),
    "DEPTHWISE_CONV_2D": Layer(axis=3),
    "FULLY_CONNECTED": Layer(axis=0, needs_bias=False),
    "TRANSPOSE_CONV": Layer(axis=0, image=2, weight=1, bias=3, needs_bias=False),
}
