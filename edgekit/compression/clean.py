"""Pass that folds constants, BatchNorm, scales and shifts, and drops nodes without effect."""

from __future__ import annotations

from pathlib import Path

from edgekit.compression.pass_input import fix_branches
from edgekit.compression.pass_specs import Work
from edgekit.errors import PassRefused
from edgekit.model import Model
from edgekit.onnx_graph.io import load, load_structure, read_onnx, save
from edgekit.onnx_graph.rewrites.bias_scales import (
    compute_bias_scales,
    computes_bias_scales,
    store_bias_scales,
)
from edgekit.onnx_graph.rewrites.channel_scaling import fold_channel_scaling
from edgekit.onnx_graph.rewrites.ort_simplification import rewrite_basic
from edgekit.pass_settings import Clean


def clean(model: Model, settings: Clean, work: Work) -> Path:
    """Simplify a graph without changing its results; the result has only standard operators.

    Source: onnxruntime's "basic" graph optimizations (constant folding, BatchNorm, Pad and Mul
    into Conv, MatMul and Add into Gemm, identities). Then scale and shift of each channel go into
    the product or convolution before them. Constant inputs of edgekit.toml decide branches. Scales
    of biases that an int8 model computes are not folded, which would enlarge the file.
    """
    del settings
    try:
        fixed = fix_branches(model, work)
        plain = _store_scales(fixed, work)
        proto = rewrite_basic(plain, work.scratch)
    except PassRefused as refusal:
        raise PassRefused(f"clean: {refusal.message}") from refusal
    if proto is None:
        raise PassRefused("clean: onnxruntime inserted operators of its own into the graph")
    fold_channel_scaling(proto)
    if plain is not fixed:
        compute_bias_scales(proto)
    target = work.scratch / "clean.onnx"
    save(proto, target)
    return target


def _store_scales(model: Model, work: Work) -> Model:
    """Return a copy of the model with computed bias scales stored, or the model if it has none."""
    if not computes_bias_scales(load_structure(model.path)):
        return model
    proto = load(model.path)
    store_bias_scales(proto)
    path = work.scratch / "stored.onnx"
    save(proto, path)
    return read_onnx(path)
