"""An ONNX graph as a TensorFlow function whose initializers are variables.

Distillation of a model into a smaller one, on inputs without labels::

    teacher, student = GraphFunction(original), GraphFunction(smaller)
    optimizer = tf.keras.optimizers.Adam(1e-4)
    variables = list(student.variables_by_name.values())

    @tf.function
    def step(x):
        wanted = teacher({"x": x})["y"]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(student({"x": x})["y"] - wanted))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return loss

    for x in batches:
        step(x)
    learned = write_back(smaller, student)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from edgekit.errors import PassRefused, UserError, make_missing_extra_error

try:
    import tensorflow as tf
except ImportError as error:
    raise make_missing_extra_error("tensorflow", "tensorflow") from error

from edgekit.conversion.onnx_to_tflite.convert_graph import convert_nodes_with_values
from edgekit.conversion.onnx_to_tflite.static_shapes import fix_shapes
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.tflite.ir import Array
from edgekit.training.tf_function import parameters as stored
from edgekit.training.tf_function.execute import Plan, Run, check_supported, propagate_scales
from edgekit.training.tf_function.export import write_parameters
from edgekit.training.tf_function.integer_uses import find_fixed_scales, find_uses
from edgekit.training.tf_function.stored_integers import (
    copy_with_stored_scales,
    replace_with_floats,
)

Feeds = Mapping[str, Any]
_Signature = tuple[tuple[str, tuple[int, ...]], ...]


class GraphFunction:
    """A model that TensorFlow computes and differentiates, for any batch size and any fixed shape.

    Weights and biases are rounded to what the file stores. Activations are rounded as in QDQ and in
    dynamic quantization, except the state of an integer LSTM. Gradients pass straight through all
    rounding where no value is clipped. Normalization uses its stored statistics.

    Args:
        proto: Model with external data loaded, of floats or quantized; not changed.
        learn_scales: Make the scales of weights and activations variables too, with the gradients
            of LSQ (Esser 2020, learned step size quantization). Scales of inputs and of softmax
            and its like stay.

    Attributes:
        variables_by_name: Float initializers that have an axis, in ONNX's layout, as float32. A
            weight stored as integers has its dequantized values here, which are rounded to its grid
            whenever the graph reads them.
        scales_by_name: Scales by initializer; empty unless they are learned.
        parameters: The variables together with the grids to which they are rounded.
    """

    def __init__(self, proto: ModelProto, *, learn_scales: bool = False) -> None:
        proto = copy_with_stored_scales(proto)
        index = GraphIndex(proto)
        uses = find_uses(index)
        grids = {name: places[0].grid for name, places in uses.items()}
        scale_names = {use.grid.scale for places in uses.values() for use in places}
        self.parameters = stored.find_parameters(proto, grids, scale_names)
        fixed = find_fixed_scales(index, uses)
        first = stored.find_learnable_scales(proto, grids, fixed) if learn_scales else {}
        self._first_scales: dict[str, Array] = first
        self._bias_factors = stored.find_bias_factors(proto)
        self._shared_scales = stored.find_shared_scales(proto)
        self._stored_scales = _read_factors(proto, self._bias_factors) if first else {}
        replace_with_floats(index, uses)
        self._proto = proto
        self.scales_by_name: dict[str, Any] = {k: tf.Variable(v) for k, v in first.items()}
        self.variables_by_name: dict[str, Any] = {
            name: parameter.variable for name, parameter in self.parameters.items()
        }
        self._plans: dict[_Signature, Plan] = {}

    # AutoGraph would rewrite the generated code as well, which takes seconds and gains nothing.
    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
    def __call__(self, feeds: Feeds, *, taps: Sequence[str] = ()) -> dict[str, Any]:
        """Compute the outputs, and inner values asked for, by their ONNX names, in ONNX's layout.

        Args:
            feeds: An array or tensor of known shape for each input.
            taps: Names of inner values; ``tape.gradient`` with respect to one covers the part of
                the graph after it.

        Raises:
            UserError: An input is missing or has no fixed shape, or a tap is not in the graph.
            PassRefused: An operator cannot be computed; the message names the node.
        """
        shapes = self._check_inputs(feeds)
        plan = self._get_plan(shapes)
        inputs = {
            name: tf.cast(feeds[name], tensor.dtype) for name, tensor in plan.graph.inputs.items()
        }
        scales = self.scales()
        weight_scales = self._add_bias_scales(scales)

        def read(name: str) -> Any:  # noqa: ANN401 - TensorFlow has no types
            parameter = self.parameters.get(name)
            if parameter is None:
                return None
            grid = parameter.grid
            return parameter.read(weight_scales.get(grid.scale) if grid else None)

        run = Run(plan, read=read, scale=scales.__getitem__, taps=_find_taps(plan, taps))
        return run(inputs) | run.tapped

    def scales(self) -> dict[str, Any]:
        """Return the learned scales as the graph reads them, kept above zero, by name."""
        return {
            name: stored.clamp_scale(variable, self._first_scales[name])
            for name, variable in self.scales_by_name.items()
        }

    def _add_bias_scales(self, scales: Mapping[str, Any]) -> dict[str, Any]:
        """Add the scales of biases that follow learned scales, as ``write_back`` derives them."""
        known = dict(scales)
        for name, shared_scale in self._shared_scales.items():
            if shared_scale in scales:
                known[name] = scales[shared_scale]
        for bias, (first, second) in self._bias_factors.items():
            if first in known or second in known:
                stored_scales = self._stored_scales
                product = known.get(first, stored_scales[first]) * known.get(
                    second, stored_scales[second]
                )
                known[bias] = tf.reshape(product, (-1,))
        return known

    def _check_inputs(self, feeds: Feeds) -> _Signature:
        stored_names = {t.name for t in self._proto.graph.initializer}
        shapes = []
        for value in self._proto.graph.input:
            if value.name in stored_names:
                continue
            if value.type.tensor_type.elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
                raise PassRefused(
                    f"input {value.name} is not a numeric tensor",
                    hint="leave out the steps that use training",
                )
            if value.name not in feeds:
                raise UserError(f"input {value.name} is missing; given are {', '.join(feeds)}")
            value_array = feeds[value.name]
            shape = tuple(
                (value_array if hasattr(value_array, "shape") else np.asarray(value_array)).shape
            )
            dims = value.type.tensor_type.shape.dim
            self._check_shape(value.name, shape, [d.dim_value or None for d in dims])
            shapes.append((value.name, shape))
        return tuple(shapes)

    @staticmethod
    def _check_shape(
        name: str, shape: Sequence[int | None], expected: Sequence[int | None]
    ) -> None:
        fits = len(shape) == len(expected) and all(
            have is not None and want in (None, have)
            for have, want in zip(shape, expected, strict=True)
        )
        if not fits:
            sizes = ", ".join("any" if size is None else str(size) for size in expected)
            raise UserError(
                f"input {name} was given shape {tuple(shape)}, but the model has ({sizes})",
                hint="every size must be known, including inside a tf.function",
            )

    def _get_plan(self, shapes: _Signature) -> Plan:
        if shapes not in self._plans:
            fixed = ModelProto()
            fixed.CopyFrom(self._proto)
            _fix_input_sizes(fixed, dict(shapes))
            fixed = fix_shapes(fixed, {}, fold_weights=False)
            graph, values = convert_nodes_with_values(fixed)
            graph.drop_unread()
            check_supported(graph)
            scales = _map_learned_scales(fixed, values, self.scales_by_name)
            propagate_scales(graph, scales)
            self._plans[shapes] = Plan(graph=graph, values=values, scales=scales)
        return self._plans[shapes]


def compute_gradients(
    function: GraphFunction,
    feeds: Feeds,
    taps: Sequence[str],
    slopes: Callable[[dict[str, Array]], Mapping[str, Array]],
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Compute inner values of a graph and the gradient of a loss with respect to each of them.

    Args:
        function: Function of the graph.
        feeds: An array for each input.
        taps: Names of the inner values.
        slopes: Computes the gradient of the loss with respect to each float output, from the
            outputs.

    Returns:
        The values and the gradients, by name; a gradient is zero where the loss does not depend on
        the value.
    """
    with tf.GradientTape() as tape:
        outputs_by_name = function(feeds, taps=taps)
    outputs = {k: v for k, v in outputs_by_name.items() if k not in taps and v.dtype.is_floating}
    output_gradients = slopes({k: np.asarray(v, np.float64) for k, v in outputs.items()})
    gradients = tape.gradient(
        list(outputs.values()),
        [outputs_by_name[name] for name in taps],
        output_gradients=[tf.cast(output_gradients[name], v.dtype) for name, v in outputs.items()],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    values = {name: np.asarray(outputs_by_name[name]) for name in taps}
    return values, {name: np.asarray(slope) for name, slope in zip(taps, gradients, strict=True)}


def _read_factors(proto: ModelProto, factors: Mapping[str, tuple[str, str]]) -> dict[str, Array]:
    """Return the stored scales of inputs and weights of layers with an int32 bias, by name."""
    constants = stored.collect_constants(proto)
    names = {name for pair in factors.values() for name in pair}
    return {name: numpy_helper.to_array(constants[name]).astype(np.float32) for name in names}


def _fix_input_sizes(proto: ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for value in proto.graph.input:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, shapes.get(value.name, ()), strict=False):
            dim.dim_value = size


def _find_taps(plan: Plan, taps: Sequence[str]) -> dict[str, Any]:
    for name in taps:
        if name not in plan.values:
            raise UserError(f"{name}: no value of the graph has this name once it is settled")
    return {name: plan.values[name] for name in taps}


def _map_learned_scales(
    proto: ModelProto, values: Mapping[str, Any], learned: Mapping[str, Any]
) -> dict[int, str]:
    """Map each output of QuantizeLinear and input of DequantizeLinear to its learned scale."""
    scale_names: dict[int, str] = {}
    for node in proto.graph.node:
        names = {"QuantizeLinear": node.output, "DequantizeLinear": node.input}.get(node.op_type)
        if names is None or names[0] not in values or node.input[1] not in learned:
            continue
        scale_names.setdefault(id(values[names[0]].tensor), node.input[1])
    return scale_names


def write_back(proto: ModelProto, function: GraphFunction) -> ModelProto:
    """Return a copy of a model with the learned initializers, in their former types and shapes.

    Initializers that did not change keep their bytes.

    Args:
        proto: Model from which the function was built.
        function: Function with the learned variables; weights stored as integers are rounded to
            their grid.

    Raises:
        UserError: A variable holds a value that is not finite.
    """
    scales = {name: np.asarray(scale) for name, scale in function.scales().items()}
    for name, shared_scale in stored.find_shared_scales(proto).items():
        if shared_scale in scales:
            scales[name] = scales[shared_scale]
    return write_parameters(proto, function.parameters, scales)
