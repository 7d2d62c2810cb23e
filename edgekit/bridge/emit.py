"""From an ONNX graph to the bytes of a .tflite file, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from onnx import ModelProto

from edgekit.bridge.flatbuffer import write_lite
from edgekit.bridge.folding import fold
from edgekit.bridge.fusing import fuse
from edgekit.bridge.lowering import lower
from edgekit.bridge.quantising import quantise
from edgekit.bridge.settling import settled
from edgekit.errors import PassRefused

Precision = Literal["same", "float16", "dynamic", "int16x8"]
Target = Literal["litert", "tflite-runtime"]


def emitted(
    proto: ModelProto,
    dims: Mapping[str, int],
    *,
    precision: Precision = "same",
    target: Target = "litert",
) -> bytes:
    """The .tflite file of an ONNX model, its batch fixed to 1.

    Args:
        proto: float, or int8 as QDQ; external data loaded.
        dims: sizes of free dimensions by name, the batch apart.
        precision: ``same`` keeps floats and makes of QDQ integers with the same scales;
            ``float16`` stores weights in 16 bits; ``dynamic`` stores them in 8 bits and quantises
            activations at run time; ``int16x8`` makes of QDQ 16-bit activations and 8-bit weights.
        target: ``tflite-runtime`` keeps to the operators and versions that 2.14 knows.

    Raises:
        PassRefused: an operator has no counterpart; names the node and says what to do.
    """
    if precision != "same" or target != "litert":
        raise PassRefused(f"{precision} for {target} is not there yet")
    graph = lower(settled(proto, dims))
    fold(graph)
    fuse(graph)
    fold(graph)
    quantise(graph)
    fold(graph)
    return write_lite(graph)
