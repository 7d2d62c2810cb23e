"""Random models of every kind that exporters write, from a kind and a seed."""

from __future__ import annotations

import warnings

import numpy as np
from onnx import numpy_helper
from onnx.version_converter import convert_version
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from tests.builders.exported.attention import transformer
from tests.builders.exported.decoders import decoder, experts
from tests.builders.exported.draft import _SAMPLES, ExportDraft, Exported
from tests.builders.exported.layers import batched_weights, convolutions, products
from tests.builders.exported.recurrent import branches, loops, recurrent
from tests.builders.exported.signals import build_typed_inputs, detector, speech
from tests.builders.random.draft import Impossible, _info, _run
from tests.builders.random.graphs import draft

_WRITERS = {
    "transformer": transformer,
    "recurrent": recurrent,
    "convolutions": convolutions,
    "batched weights": batched_weights,
    "products": products,
    "branches": branches,
    "loops": loops,
}
_NEWER = {
    "decoder": decoder,
    "experts": experts,
    "detector": detector,
    "speech": speech,
    "typed": build_typed_inputs,
}
KINDS = (*_WRITERS, "float16", "loose", *_NEWER, "older")
_HALVED = ("transformer", "convolutions", "products", "batched weights")


def export_kind(kind, seed):
    """Build the model of a kind and a seed, always the same."""
    if kind == "float16":
        return _float16(seed)
    if kind == "loose":
        return _loose(seed)
    if kind == "older":
        return _older(seed)
    for attempt in range(50):
        made = ExportDraft([KINDS.index(kind), seed, attempt])
        try:
            outputs = (_WRITERS | _NEWER)[kind](made)
            return made.exported(kind, seed, outputs)
        except Impossible:
            continue
    raise Impossible(f"{kind} {seed}")


def _float16(seed):
    """Return a float16 copy of a model of another kind."""
    found = export_kind(_HALVED[seed % len(_HALVED)], seed + 10**6)
    keep = seed % 3 == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = OnnxModel(convert_float_to_float16(found.proto, keep_io_types=keep))
        made.topological_sort()
    samples = {
        n: a if keep or a.dtype != np.float32 else a.astype(np.float16)
        for n, a in found.samples.items()
    }
    return Exported("float16", seed, made.model, samples)


def _older(seed):
    """Return a model of another kind with another opset, its weights listed as inputs or not."""
    kinds = [*_WRITERS, *_NEWER]
    for attempt in range(20):
        number = 20 * seed + attempt  # the attempts of two seeds differ
        found = export_kind(kinds[(seed + attempt) % len(kinds)], 2 * 10**6 + number)
        version = (11, 13, 15, 18, 21)[(seed + attempt) % 5]
        try:
            proto = convert_version(found.proto, version)
        except Exception as error:  # the converter raises bare RuntimeErrors
            if attempt == 19:
                raise Impossible(f"older {seed}") from error
            continue
        if seed % 3 == 0:
            known = [_info(t.name, numpy_helper.to_array(t)) for t in proto.graph.initializer]
            proto.graph.input.extend(known)
            proto.ir_version = min(proto.ir_version, 8)
        try:
            _run(proto, {n: a[:1] for n, a in found.samples.items()})
        except Impossible:
            continue
        return Exported("older", seed, proto, found.samples)
    raise Impossible(f"older {seed}")


def _loose(seed):
    """Build a graph of random steps with small, fixed sizes."""
    made = draft(seed + 10**6)
    rows = {
        n: made.rng.normal(size=(_SAMPLES, *made.arrays[n].shape[1:])).astype(np.float32)
        for n in made.inputs
    }
    return Exported("loose", seed, made.finished(), rows)
