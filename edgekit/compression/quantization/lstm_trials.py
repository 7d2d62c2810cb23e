"""Choice of the recurrent layers to compute with integers, by output error and measured time.

onnxruntime's integer LSTM rounds its input to 8 bits with one scale for all steps and samples of a
call. Where large and small steps are mixed (spectra without a logarithm), small steps round to 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial

import onnxruntime as ort
from onnx import ModelProto, NodeProto

from edgekit.compression.checks.contract_inputs import iter_probes
from edgekit.compression.checks.timing import measure_time_ratio
from edgekit.compression.pass_specs import Work
from edgekit.compression.quantization.lstm import (
    RecurrentLayer,
    find_recurrent_layers,
    quantize_recurrent,
)
from edgekit.compression.quantization.weight_storage import store_in_8_bits, store_in_16_bits
from edgekit.errors import UserError, first_line
from edgekit.model import Model
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import is_large, make_session, make_session_options
from edgekit.onnx_graph.output_differences import SquaredErrors, compute_squared_error
from edgekit.onnx_graph.runs.model_outputs import Arrays

# Largest relative output error of an integer layer that is accepted without an alternative, and the
# factor by which an alternative must be better.
_MOST_ERROR = 0.05
_BETTER = 3.0
# Smaller ratios of time are noise.
_SLOWER = 1.05


@dataclass(frozen=True, kw_only=True)
class RecurrentPlan:
    """Choices for the recurrent layers of a model.

    Attributes:
        left: indices in ``find_recurrent_layers`` of the layers that compute in float.
        wide: names of the weights that are stored in 16 bits.
    """

    left: frozenset[int] = frozenset()
    wide: frozenset[str] = frozenset()


def quantize_layers(proto: ModelProto, largest: int, model: Model, work: Work) -> int:
    """Quantize the recurrent layers of a model in place, each so that the outputs change little.

    Layers without an integer kernel, or with a bad one, are left to ``store_in_8_bits``.

    Args:
        proto: the model, prepared.
        largest: magnitude of the largest integer weight.
        model: the source file, for the inputs to feed.
        work: work of the pass; gets a note of each layer that computes in float, and why.

    Returns:
        The number of changed layers and weights.
    """
    plan = plan_layers(proto, largest, model, work)
    found = quantize_recurrent(proto, largest, left=plan.left)
    return found + store_in_16_bits(proto, plan.wide)


def plan_layers(proto: ModelProto, largest: int, model: Model, work: Work) -> RecurrentPlan:
    """Decide for each layer whether it computes with integers, and how its weights are stored.

    Each layer is tried alone. Its error is that of the worst output on calibration samples; without
    samples errors are ignored. Its time is that of the whole model on this machine.
    """
    layers = find_recurrent_layers(proto)
    if not layers:
        return RecurrentPlan()
    if is_large(proto):
        work.note(
            "integer recurrent layers were not compared with float ones: the model is larger "
            "than 2 GiB"
        )
        return RecurrentPlan()
    reference = _open_session(proto)
    trials = _Trials(proto, largest, reference, _choose_feeds(model, work, reference))
    left: set[int] = set()
    wide: set[str] = set()
    for place, layer in enumerate(layers):
        work.progress("recurrent layers", place, len(layers))
        verdict = trials.judge(place)
        if verdict.reason:
            left.add(place)
            work.note(f"computed in float: {layer.name}: {verdict.reason}")
        for name in verdict.wide:
            wide.add(name)
            work.note(
                f"{layer.name}: {_describe_weight(layer, name)} are stored in 16 bits; 8 bits "
                f"would cause a relative output error of {verdict.wide[name]:.2g}"
            )
    for place, sharer in _find_sharers(layers, left).items():
        left.add(place)
        work.note(
            f"computed in float: {layers[place].name}: it shares weights with {sharer.name}, and "
            "both kinds of storage would make the file larger"
        )
    if work.calibration is None and any(layer.has_kernel for layer in layers):
        work.note(
            "the error of integer LSTMs was not measured; give --data CALIB to keep inaccurate "
            "ones in float"
        )
    return RecurrentPlan(left=frozenset(left), wide=frozenset(wide))


def _find_sharers(layers: Sequence[RecurrentLayer], left: Set[int]) -> dict[int, RecurrentLayer]:
    """Find the integer layers that share weights with float ones, each with such a float layer.

    Layers that share weights with a layer found here are found as well.
    """
    found: dict[int, RecurrentLayer] = {}
    floats = sorted(left)
    for place in floats:  # grows while it is read
        names = _get_weight_names(layers[place])
        for other, layer in enumerate(layers):
            if other not in floats and names & _get_weight_names(layer):
                found[other] = layers[place]
                floats.append(other)
    return found


def _get_weight_names(layer: RecurrentLayer) -> set[str]:
    return set(layer.node.input[1:3])


def _describe_weight(layer: RecurrentLayer, weight: str) -> str:
    return "input weights" if layer.node.input[1] == weight else "recurrent weights"


@dataclass(frozen=True, kw_only=True)
class _Feeds:
    """Feeds of the trials: samples for errors, and one feed for times, if there is any."""

    samples: Sequence[Arrays]
    timed: Arrays | None


def _choose_feeds(model: Model, work: Work, reference: ort.InferenceSession) -> _Feeds:
    """Choose calibration samples; without any, the first random input that the model accepts."""
    found = iter_probes(model, work.fitting or None, seed=work.seed)
    if work.calibration is None:
        made_up = (dict(probe.feed) for probe in found)
        return _Feeds(samples=(), timed=next((f for f in made_up if _accepts(reference, f)), None))
    samples = [dict(probe.feed) for probe in found if probe.rows]
    return _Feeds(samples=samples, timed=samples[0])


def _accepts(session: ort.InferenceSession, feed: Arrays) -> bool:
    """Return whether the model runs on a random input, whose sizes may contradict each other."""
    try:
        session.run(None, feed)
    except Exception:  # noqa: BLE001 - onnxruntime has no common base class
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class _Verdict:
    """Choice for one layer.

    Attributes:
        reason: why it computes in float; empty if it computes with integers.
        wide: weights that need 16 bits, with the output error of storing them in 8 bits.
    """

    reason: str = ""
    wide: Mapping[str, float] = field(default_factory=dict)


class _Trials:
    """Errors and times of model copies in which a single layer is quantized."""

    def __init__(
        self, proto: ModelProto, largest: int, reference: ort.InferenceSession, feeds: _Feeds
    ) -> None:
        self.proto = proto
        self.largest = largest
        self.feeds = feeds
        self.layers = find_recurrent_layers(proto)
        self.reference = reference
        self.known = [_run_sample(self.reference, feed) for feed in feeds.samples]

    def judge(self, place: int) -> _Verdict:
        """Choose integer or float products for one layer, and the storage of its weights."""
        layer = self.layers[place]
        if not layer.has_kernel:
            reason = f"onnxruntime has no integer kernel for {layer.node.op_type}"
            if layer.node.op_type == "LSTM":
                reason += " of this layout or size, or without stored weights"
            errors = self._measure_weight_errors(layer)
            return _Verdict(reason=reason, wide=_select_too_large(errors))
        integers = _open_session(self._quantize_one(place))
        error, output = self._measure_error(integers)
        slower = self._explain_slowness(integers)
        if not slower and error <= _MOST_ERROR:
            return _Verdict()
        errors = self._measure_weight_errors(layer)
        wide = _select_too_large(errors)
        rest = math.hypot(*(each for name, each in errors.items() if name not in wide))
        if error > _MOST_ERROR and error > _BETTER * rest:
            reason = (
                f"with 8-bit inputs, output {output} has a relative error of {error:.2g}, "
                f"and only {rest:.2g} with float inputs"
            )
            return _Verdict(reason=reason, wide=wide)
        return _Verdict(reason=slower, wide=wide if slower else {})

    def _explain_slowness(self, integers: ort.InferenceSession) -> str:
        """Say how much slower integers are; empty if they are not slower, or no input is known."""
        feed = self.feeds.timed
        if feed is None:
            return ""
        ratio = measure_time_ratio(
            partial(_run, self.reference, feed), partial(_run, integers, feed)
        )
        if ratio <= _SLOWER:
            return ""
        return f"with integers the model takes {ratio:.2f} times as long on this machine"

    def _quantize_one(self, place: int) -> ModelProto:
        made = _copy(self.proto)
        quantize_recurrent(made, self.largest, left=set(range(len(self.layers))) - {place})
        return made

    def _measure_weight_errors(self, layer: RecurrentLayer) -> dict[str, float]:
        """Measure the output error of storing each weight of a layer in 8 bits, by name."""
        found = {}
        for name in dict.fromkeys(layer.node.input[1:3]):
            made = _copy(self.proto)
            if self.known and store_in_8_bits(made, _has_no_integer_form, only=[name]):
                found[name] = self._measure_error(_open_session(made))[0]
        return found

    def _measure_error(self, session: ort.InferenceSession) -> tuple[float, str]:
        """Measure the relative RMS error of the worst float output; return error and output."""
        sums = SquaredErrors[str]()
        for feed, expected in zip(self.feeds.samples, self.known, strict=True):
            for name, value in _run(session, feed).items():
                if value.dtype.kind == "f" and value.shape == expected[name].shape:
                    sums.add(name, *compute_squared_error(expected[name], value))
        relative = {name: sums.compute_relative_rms(name) for name in sums.error}
        worst = max(relative, key=relative.__getitem__, default="")
        return relative.get(worst, 0.0), worst


def _has_no_integer_form(index: GraphIndex, node: NodeProto) -> bool:
    del index, node
    return False


def _run_sample(reference: ort.InferenceSession, sample: Arrays) -> Arrays:
    """Run the model on a sample.

    Raises:
        UserError: the model fails on the sample.
    """
    try:
        return _run(reference, sample)
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise UserError(f"the model fails on a sample: {first_line(error)}") from error


def _select_too_large(errors: Mapping[str, float]) -> dict[str, float]:
    return {name: error for name, error in errors.items() if error > _MOST_ERROR}


def _copy(proto: ModelProto) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(proto)
    return made


def _open_session(proto: ModelProto) -> ort.InferenceSession:
    options = make_session_options()
    options.intra_op_num_threads = 1
    return make_session(proto, options)


def _run(session: ort.InferenceSession, feed: Arrays) -> Arrays:
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))
