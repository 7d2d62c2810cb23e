"""Activations that recurrent nodes name in their attributes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
from edgekit.tflite.ir import Tensor

Activation = Callable[[Lowering, Tensor], Tensor]
_USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
# The first two activations of a direction read gates; the third one reads the cell of an LSTM.
_ACTIVATIONS_OF_GATES = 2
# Default alphas and betas of onnxruntime.
_NUMBERS = {
    "Affine": (0.0, 0.0),
    "Elu": (1.0, None),
    "HardSigmoid": (0.2, 0.5),
    "LeakyRelu": (0.01, None),
    "ScaledTanh": (0.0, 0.0),
    "ThresholdedRelu": (0.0, None),
}


def read_activations(low: Lowering, node: NodeProto, side: int, sides: int) -> list[Activation]:
    """Read the activations of one direction of a recurrent node.

    If the node has ``clip``, the activations of the gates and of the candidate clip their input.
    The output activation of an LSTM reads the cell as it is.

    Args:
        low: the conversion in progress.
        node: an LSTM, GRU or RNN.
        side: index of the direction.
        sides: number of directions.

    Raises:
        PassRefused: ONNX has no activation of a name.
    """
    usual = _USUAL[node.op_type]
    given = get_attribute(node, "activations")
    names = [n.decode() if isinstance(n, bytes) else n for n in given or usual * sides]
    alphas, betas = (
        list(get_attribute(node, "activation_alpha", [])),
        list(get_attribute(node, "activation_beta", [])),
    )
    made: list[Activation] = []
    count = len(usual)
    for at, name in enumerate(names):
        kind = next(
            (k for k in (*_NUMBERS, *_PLAIN, "Softsign", "Softplus") if k.lower() == name.lower()),
            None,
        )
        if kind is None:
            raise low.refusal(node, f"has the unknown activation {name}")
        alpha, beta = _NUMBERS.get(kind, (None, None))
        if alpha is not None and alphas:
            alpha = alphas.pop(0)
        if beta is not None and betas:
            beta = betas.pop(0)
        apply = partial(_apply_activation, kind=kind, alpha=alpha or 0.0, beta=beta or 0.0)
        clip = get_attribute(node, "clip")
        reads_gates = at % count < _ACTIVATIONS_OF_GATES
        made.append(
            partial(_clip_input, bound=float(clip), after=apply) if clip and reads_gates else apply
        )
    return made[side * count : (side + 1) * count]


_PLAIN = {"Relu": "RELU", "Sigmoid": "LOGISTIC", "Tanh": "TANH"}


def _clip_input(low: Lowering, tensor: Tensor, *, bound: float, after: Activation) -> Tensor:
    return after(low, _clamp(low, tensor, -bound, bound))


def _clamp(low: Lowering, tensor: Tensor, least: float, most: float) -> Tensor:
    return _emit_with_number(low, "MINIMUM", _emit_with_number(low, "MAXIMUM", tensor, least), most)


def _emit_with_number(low: Lowering, kind: str, tensor: Tensor, number: float) -> Tensor:
    return low.emit(kind, [tensor, low.float32(number)], tensor.shape)


def _apply_activation(
    low: Lowering, tensor: Tensor, *, kind: str, alpha: float, beta: float
) -> Tensor:
    shape = tensor.shape
    if kind in _PLAIN:
        return low.emit(_PLAIN[kind], [tensor], shape)
    if kind == "Affine":
        return _emit_with_number(low, "ADD", _emit_with_number(low, "MUL", tensor, alpha), beta)
    if kind == "ScaledTanh":
        inner = low.emit("TANH", [_emit_with_number(low, "MUL", tensor, beta)], shape)
        return _emit_with_number(low, "MUL", inner, alpha)
    if kind == "HardSigmoid":
        inner = _emit_with_number(low, "ADD", _emit_with_number(low, "MUL", tensor, alpha), beta)
        return _clamp(low, inner, 0.0, 1.0)
    if kind == "LeakyRelu":
        return low.emit("LEAKY_RELU", [tensor], shape, options={"alpha": alpha})
    if kind == "ThresholdedRelu":
        above = low.emit("GREATER", [tensor, low.float32(alpha)], shape, dtype="bool")
        return low.emit("SELECT_V2", [above, tensor, low.float32(0.0)], shape)
    return _apply_soft_activation(low, tensor, kind, alpha)


def _apply_soft_activation(low: Lowering, tensor: Tensor, kind: str, alpha: float) -> Tensor:
    """Compute Elu, Softsign or Softplus."""
    shape = tensor.shape
    if kind == "Softsign":
        size = _emit_with_number(low, "ADD", low.emit("ABS", [tensor], shape), 1.0)
        return low.emit("DIV", [tensor, size], shape)
    if kind == "Softplus":  # max(x, 0) + log(1 + exp(-|x|)) does not overflow
        falling = low.emit("NEG", [low.emit("ABS", [tensor], shape)], shape)
        inner = _emit_with_number(low, "ADD", low.emit("EXP", [falling], shape), 1.0)
        return low.emit(
            "ADD", [low.emit("RELU", [tensor], shape), low.emit("LOG", [inner], shape)], shape
        )
    positive = low.emit("RELU", [tensor], shape)
    negative = low.emit("ELU", [_emit_with_number(low, "MINIMUM", tensor, 0.0)], shape)
    return low.emit("ADD", [positive, _emit_with_number(low, "MUL", negative, alpha)], shape)
