"""Random models of every kind that exporters write, each from its kind and a seed."""

from __future__ import annotations

import warnings

import numpy as np
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from tests.bridge.random_graphs import Impossible, draft
from tests.exported.attention import transformer
from tests.exported.drafting import _SAMPLES, ExportDraft, Exported
from tests.exported.layers import batched_weights, convolutions, products
from tests.exported.recurrent import branches, loops, recurrent

_WRITERS = {
    "transformer": transformer,
    "recurrent": recurrent,
    "convolutions": convolutions,
    "batched weights": batched_weights,
    "products": products,
    "branches": branches,
    "loops": loops,
}
KINDS = (*_WRITERS, "float16", "loose")
_HALVED = ("transformer", "convolutions", "products", "batched weights")


def exported(kind, seed):
    """The model of a kind and a seed, always the same; tries until the pieces fit."""
    if kind == "float16":
        return _float16(seed)
    if kind == "loose":
        return _loose(seed)
    for attempt in range(50):
        made = ExportDraft([KINDS.index(kind), seed, attempt])
        try:
            outputs = _WRITERS[kind](made)
            return made.exported(kind, seed, outputs)
        except Impossible:
            continue
    raise Impossible(f"{kind} {seed}")


def _float16(seed):
    """A float16 copy of a model of another kind; the types of inputs and outputs kept or not."""
    found = exported(_HALVED[seed % len(_HALVED)], seed + 10**6)
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


def _loose(seed):
    """Steps put together at random, small sizes, all axes fixed."""
    made = draft(seed + 10**6)
    rows = {
        n: made.rng.normal(size=(_SAMPLES, *made.arrays[n].shape[1:])).astype(np.float32)
        for n in made.inputs
    }
    return Exported("loose", seed, made.finished(), rows)
