"""Which recurrent layers compute with integers: those that lose little and are no slower for it.

onnxruntime's integer LSTM rounds its input to 8 bits on one scale for all steps and samples of a
call. Where loud steps stand beside quiet ones (spectra without a logarithm), the quiet ones vanish.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, NodeProto

from edgekit.errors import UserError, first_line
from edgekit.graphs.index import GraphIndex
from edgekit.graphs.onnx_file import is_large, session_of
from edgekit.graphs.outputs import Arrays
from edgekit.model import Model
from edgekit.passes import Work
from edgekit.passes.probes import probes
from edgekit.passes.recurrent import RecurrentLayer, quantize_recurrent, recurrent_layers
from edgekit.passes.storage import store_in_8_bits, store_in_16_bits
from edgekit.passes.timing import time_ratio

# What a layer may cost the outputs, of their size, before another way to store it is looked for,
# and how much better that must be.
_MOST_ERROR = 0.05
_BETTER = 3.0
# A layer that takes so many times as long is slower; less is noise.
_SLOWER = 1.05
_NOTHING = 1e-30


@dataclass(frozen=True, kw_only=True)
class RecurrentPlan:
    """What becomes of the recurrent layers of a model.

    Attributes:
        left: places in ``recurrent_layers`` of those whose products stay in float.
        wide: names of the weights that are stored in 16 bits.
    """

    left: frozenset[int] = frozenset()
    wide: frozenset[str] = frozenset()


def quantize_layers(proto: ModelProto, largest: int, model: Model, work: Work) -> int:
    """Quantize the recurrent layers of a model in place, each by what costs its outputs little.

    Those without an integer kernel, and those that lose by it, are left to ``store_in_8_bits``.

    Args:
        proto: the model, prepared.
        largest: magnitude of the largest integer weight.
        model: the file that it was read from: says what to feed.
        work: of the pass; is told of each layer whose products stay in float, and why.

    Returns:
        How many layers and weights were changed.
    """
    plan = plan_layers(proto, largest, model, work)
    found = quantize_recurrent(proto, largest, left=plan.left)
    return found + store_in_16_bits(proto, plan.wide)


def plan_layers(proto: ModelProto, largest: int, model: Model, work: Work) -> RecurrentPlan:
    """Decide for each layer whether it computes with integers, and how its weights are stored.

    Errors are those of the worst output on calibration samples, each layer tried alone; without
    samples none is judged by its error. Times are those of the whole model on this machine.
    """
    layers = recurrent_layers(proto)
    if not layers:
        return RecurrentPlan()
    if is_large(proto):
        work.note("recurrent layers were not tried one by one: the model is over 2 GiB")
        return RecurrentPlan()
    reference = _session(proto)
    trials = _Trials(proto, largest, reference, _feeds(model, work, reference))
    left: set[int] = set()
    wide: set[str] = set()
    for place, layer in enumerate(layers):
        work.progress("recurrent layers", place, len(layers))
        verdict = trials.judged(place)
        if verdict.reason:
            left.add(place)
            work.note(f"computed in float: {layer.name}: {verdict.reason}")
        for name in verdict.wide:
            wide.add(name)
            work.note(
                f"{layer.name}: {_named(layer, name)} are stored in 16 bits: 8 bits would change "
                f"an output by {verdict.wide[name]:.2g} of its size"
            )
    if work.calibration is None and any(layer.has_kernel for layer in layers):
        work.note(
            "what integer LSTMs cost was not measured: samples (--data CALIB) tell which to leave"
        )
    return RecurrentPlan(left=frozenset(left), wide=frozenset(wide))


def _named(layer: RecurrentLayer, weight: str) -> str:
    return "weights of its input" if layer.node.input[1] == weight else "weights of its state"


@dataclass(frozen=True, kw_only=True)
class _Feeds:
    """What the trials run: samples for errors, and a feed for times, if the model takes one."""

    samples: Sequence[Arrays]
    timed: Arrays | None


def _feeds(model: Model, work: Work, reference: ort.InferenceSession) -> _Feeds:
    """Calibration samples, or the first made-up input that the model takes, which is only timed."""
    found = probes(model, work.calibration, seed=work.seed)
    if work.calibration is None:
        made_up = (dict(probe.feed) for probe in found)
        return _Feeds(samples=(), timed=next((f for f in made_up if _runs(reference, f)), None))
    samples = [dict(probe.feed) for probe in found if probe.rows]
    return _Feeds(samples=samples, timed=samples[0])


def _runs(session: ort.InferenceSession, feed: Arrays) -> bool:
    """Whether the model takes a made-up input; its sizes may not fit each other."""
    try:
        session.run(None, feed)
    except Exception:  # noqa: BLE001 - onnxruntime has no common base class
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class _Verdict:
    """What becomes of one layer.

    Attributes:
        reason: why its products stay in float; empty where they do not.
        wide: the weights that 8 bits are too few for, with the error that these would make.
    """

    reason: str = ""
    wide: Mapping[str, float] = field(default_factory=dict)


class _Trials:
    """Runs copies of a model in which a single layer is changed."""

    def __init__(
        self, proto: ModelProto, largest: int, reference: ort.InferenceSession, feeds: _Feeds
    ) -> None:
        self.proto = proto
        self.largest = largest
        self.feeds = feeds
        self.layers = recurrent_layers(proto)
        self.reference = reference
        self.known = [_known(self.reference, feed) for feed in feeds.samples]

    def judged(self, place: int) -> _Verdict:
        """Try one layer with integers, and its weights in 8 bits where it is no better for them."""
        layer = self.layers[place]
        if not layer.has_kernel:
            reason = f"onnxruntime has no integer kernel for {layer.node.op_type}"
            if layer.node.op_type == "LSTM":
                reason += " of this layout, size or without stored weights"
            errors = self._errors_of_weights(layer)
            return _Verdict(reason=reason, wide=_too_large(errors))
        integers = _session(self._with_integers(place))
        error, output = self._error(integers)
        slower = self._slowness(integers)
        if not slower and error <= _MOST_ERROR:
            return _Verdict()
        errors = self._errors_of_weights(layer)
        wide = _too_large(errors)
        rest = math.hypot(*(each for name, each in errors.items() if name not in wide))
        if error > _MOST_ERROR and error > _BETTER * rest:
            reason = (
                f"rounding what it reads to 8 bits changes output {output} by {error:.2g} of its "
                f"size, against {rest:.2g} otherwise"
            )
            return _Verdict(reason=reason, wide=wide)
        return _Verdict(reason=slower, wide=wide if slower else {})

    def _slowness(self, integers: ort.InferenceSession) -> str:
        """Why integers are slower; empty where they are not, or where no input is known."""
        feed = self.feeds.timed
        if feed is None:
            return ""
        ratio = time_ratio(partial(_run, self.reference, feed), partial(_run, integers, feed))
        if ratio <= _SLOWER:
            return ""
        return f"with integers the model takes {ratio:.2f} times as long on this machine"

    def _with_integers(self, place: int) -> ModelProto:
        made = _copy(self.proto)
        quantize_recurrent(made, self.largest, left=set(range(len(self.layers))) - {place})
        return made

    def _errors_of_weights(self, layer: RecurrentLayer) -> dict[str, float]:
        """What each weight of a layer would cost in 8 bits, by name."""
        found = {}
        for name in dict.fromkeys(layer.node.input[1:3]):
            made = _copy(self.proto)
            if self.known and store_in_8_bits(made, _no_other_way, only=[name]):
                found[name] = self._error(_session(made))[0]
        return found

    def _error(self, session: ort.InferenceSession) -> tuple[float, str]:
        """The relative RMS error of the worst float output, and its name."""
        error: dict[str, float] = {}
        size: dict[str, float] = {}
        for feed, expected in zip(self.feeds.samples, self.known, strict=True):
            for name, value in _run(session, feed).items():
                if value.dtype.kind != "f" or value.shape != expected[name].shape:
                    continue
                before = expected[name].astype(np.float64)
                finite = np.isfinite(before)
                off = np.square(value.astype(np.float64) - before)[finite].sum()
                error[name] = error.get(name, 0.0) + float(off)
                size[name] = size.get(name, 0.0) + float(np.square(before[finite]).sum())
        relative = {n: math.sqrt(off / max(size[n], _NOTHING)) for n, off in error.items()}
        worst = max(relative, key=relative.__getitem__, default="")
        return relative.get(worst, 0.0), worst


def _no_other_way(index: GraphIndex, node: NodeProto) -> bool:
    del index, node
    return False


def _known(reference: ort.InferenceSession, sample: Arrays) -> Arrays:
    """What the model makes of a sample.

    Raises:
        UserError: the model fails on it.
    """
    try:
        return _run(reference, sample)
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise UserError(f"the model fails on a sample: {first_line(error)}") from error


def _too_large(errors: Mapping[str, float]) -> dict[str, float]:
    return {name: error for name, error in errors.items() if error > _MOST_ERROR}


def _copy(proto: ModelProto) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(proto)
    return made


def _session(proto: ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return session_of(proto, options)


def _run(session: ort.InferenceSession, feed: Arrays) -> Arrays:
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))
