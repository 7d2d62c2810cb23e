"""Values in other types: rounding to integers and back."""

from __future__ import annotations

from edgekit.bridge.graph import Op
from edgekit.bridge.lifted import inner_type, quantized
from edgekit.bridge.lifting import Lifting
from edgekit.bridge.lifts.activations import Rule


def dequantize(lifting: Lifting, op: Op) -> None:
    """DEQUANTIZE: integers are read as floats anyway, and floats of 16 bits as wider ones."""
    lifting.bind_same(op, lifting.tensor(op, 0))


def quantize(lifting: Lifting, op: Op) -> None:
    """QUANTIZE, from floats or from integers of another scale."""
    order = lifting.order(op, 0)
    lifting.bind(op, lifting.read(lifting.tensor(op, 0), order), order)


def cast(lifting: Lifting, op: Op) -> None:
    """CAST.

    Raises:
        PassRefused: of quantised integers, whose scale it leaves out.
    """
    x, made, order = lifting.tensor(op, 0), op.outputs[0], lifting.order(op, 0)
    if quantized(x) is not None or quantized(made) is not None:
        raise lifting.refusal(op, "takes quantised integers without their scale")
    name = lifting.read(x, order)
    dtype = inner_type(made)
    lifting.bind(op, name if inner_type(x) == dtype else lifting.cast(name, dtype), order)


LIFTS: dict[str, Rule] = {"CAST": cast, "DEQUANTIZE": dequantize, "QUANTIZE": quantize}
