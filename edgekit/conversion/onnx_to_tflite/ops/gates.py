"""Activations that recurrent nodes name in their attributes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Tensor

Activation = Callable[[TfliteGraphBuilder, Tensor], Tensor]
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


def read_activations(
    builder: TfliteGraphBuilder, node: NodeProto, side: int, sides: int
) -> list[Activation]:
    """Read the activations of one direction of a recurrent node.

    If the node has ``clip``, the activations of the gates and of the candidate clip their input.
    The output activation of an LSTM reads the cell as it is.

    Args:
        builder: the conversion in progress.
        node: an LSTM, GRU or RNN.
        side: index of the direction.
        sides: number of directions.

    Raises:
        PassRefused: ONNX has no activation of a name.
    """
    usual = _USUAL[node.op_type]
    stated = get_attribute(node, "activations")
    names = [n.decode() if isinstance(n, bytes) else n for n in stated or usual * sides]
    alphas, betas = (
        list(get_attribute(node, "activation_alpha", [])),
        list(get_attribute(node, "activation_beta", [])),
    )
    activations: list[Activation] = []
    count = len(usual)
    for index, name in enumerate(names):
        activation = next(
            (k for k in (*_NUMBERS, *_PLAIN, "Softsign", "Softplus") if k.lower() == name.lower()),
            None,
        )
        if activation is None:
            raise builder.refusal(node, f"has the unknown activation {name}")
        alpha, beta = _NUMBERS.get(activation, (None, None))
        if alpha is not None and alphas:
            alpha = alphas.pop(0)
        if beta is not None and betas:
            beta = betas.pop(0)
        apply = partial(
            _apply_activation, activation=activation, alpha=alpha or 0.0, beta=beta or 0.0
        )
        clip = get_attribute(node, "clip")
        reads_gates = index % count < _ACTIVATIONS_OF_GATES
        activations.append(
            partial(_clip_input, bound=float(clip), after=apply) if clip and reads_gates else apply
        )
    return activations[side * count : (side + 1) * count]


_PLAIN = {"Relu": "RELU", "Sigmoid": "LOGISTIC", "Tanh": "TANH"}


def _clip_input(
    builder: TfliteGraphBuilder, tensor: Tensor, *, bound: float, after: Activation
) -> Tensor:
    return after(builder, _clamp(builder, tensor, -bound, bound))


def _clamp(builder: TfliteGraphBuilder, tensor: Tensor, least: float, most: float) -> Tensor:
    return _emit_with_number(
        builder, "MINIMUM", _emit_with_number(builder, "MAXIMUM", tensor, least), most
    )


def _emit_with_number(
    builder: TfliteGraphBuilder, op_type: str, tensor: Tensor, number: float
) -> Tensor:
    return builder.emit(op_type, [tensor, builder.float32(number)], tensor.shape)


def _apply_activation(
    builder: TfliteGraphBuilder, tensor: Tensor, *, activation: str, alpha: float, beta: float
) -> Tensor:
    shape = tensor.shape
    if activation in _PLAIN:
        return builder.emit(_PLAIN[activation], [tensor], shape)
    if activation == "Affine":
        return _emit_with_number(
            builder, "ADD", _emit_with_number(builder, "MUL", tensor, alpha), beta
        )
    if activation == "ScaledTanh":
        inner = builder.emit("TANH", [_emit_with_number(builder, "MUL", tensor, beta)], shape)
        return _emit_with_number(builder, "MUL", inner, alpha)
    if activation == "HardSigmoid":
        inner = _emit_with_number(
            builder, "ADD", _emit_with_number(builder, "MUL", tensor, alpha), beta
        )
        return _clamp(builder, inner, 0.0, 1.0)
    if activation == "LeakyRelu":
        return builder.emit("LEAKY_RELU", [tensor], shape, options={"alpha": alpha})
    if activation == "ThresholdedRelu":
        above = builder.emit("GREATER", [tensor, builder.float32(alpha)], shape, dtype="bool")
        return builder.emit("SELECT_V2", [above, tensor, builder.float32(0.0)], shape)
    return _apply_soft_activation(builder, tensor, activation, alpha)


def _apply_soft_activation(
    builder: TfliteGraphBuilder, tensor: Tensor, activation: str, alpha: float
) -> Tensor:
    """Compute Elu, Softsign or Softplus."""
    shape = tensor.shape
    if activation == "Softsign":
        size = _emit_with_number(builder, "ADD", builder.emit("ABS", [tensor], shape), 1.0)
        return builder.emit("DIV", [tensor, size], shape)
    if activation == "Softplus":  # max(x, 0) + log(1 + exp(-|x|)) does not overflow
        falling = builder.emit("NEG", [builder.emit("ABS", [tensor], shape)], shape)
        inner = _emit_with_number(builder, "ADD", builder.emit("EXP", [falling], shape), 1.0)
        return builder.emit(
            "ADD",
            [builder.emit("RELU", [tensor], shape), builder.emit("LOG", [inner], shape)],
            shape,
        )
    positive = builder.emit("RELU", [tensor], shape)
    negative = builder.emit("ELU", [_emit_with_number(builder, "MINIMUM", tensor, 0.0)], shape)
    return builder.emit(
        "ADD", [positive, _emit_with_number(builder, "MUL", negative, alpha)], shape
    )
