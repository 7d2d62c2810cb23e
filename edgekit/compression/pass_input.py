"""Loading and preparation of a model's graph for a pass; half precision is restored at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto

from edgekit.compression.pass_specs import Work
from edgekit.model import Model
from edgekit.onnx_graph.io import is_large, load, load_structure, read_onnx, save
from edgekit.onnx_graph.rewrites.channel_scaling import fold_channel_scaling
from edgekit.onnx_graph.rewrites.constant_inputs import decides_branch, fix_inputs
from edgekit.onnx_graph.rewrites.dequantization import dequantize_by_operator
from edgekit.onnx_graph.rewrites.half_precision import (
    compute_in_float32,
    computes_half,
    list_half_constants,
    narrow_matrices,
    stores_half,
)
from edgekit.onnx_graph.rewrites.ort_simplification import load_folded
from edgekit.onnx_graph.rewrites.prepare import prepare

# Opset of the graphs that passes edit: since 13, QuantizeLinear and DequantizeLinear have an axis,
# and so parameters per channel, and products have a single form.
OPSET = 13
_WIDE = "wide.onnx"
_FIXED = "fixed.onnx"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Prepared graph of a model, with the names of the weights that the model stores as float16.

    ``half`` tells whether the model stores weights as float16.
    """

    proto: ModelProto
    half: bool
    halves: frozenset[str]

    def restore(self, made: ModelProto) -> None:
        """Store the float weights of a result as float16 if the model does, in place."""
        if self.half:
            narrow_matrices(made, self.halves)


def open_source(
    model: Model, work: Work, *, keep_ties: bool = False, folded: bool = False
) -> Source:
    """Load a model and prepare its graph (``rewrite.prepare``).

    Half precision is widened to float32; ``Source.restore`` narrows it again.

    Args:
        model: the model to load.
        work: work of the pass; gets a note on half precision.
        keep_ties: keep one copy of a weight that several nodes read.
        folded: fold constants and per-channel scales, and let DequantizeLinear restore int8
            weights, as quantization needs. Constants are folded too where a constant input
            decides a branch.

    Raises:
        PassRefused: the model is quantized already, or cannot be edited.
    """
    fixed = fix_branches(model, work)
    structure = load_structure(model.path)
    half = stores_half(structure)
    if half and computes_half(structure):
        work.note(
            "the model computes in float16; the result computes in float32 and stores its "
            "remaining float weights as float16"
        )
    loaded = _load_float32(fixed, work, half, folded or fixed is not model)
    proto = prepare(loaded, OPSET, keep_ties=keep_ties)
    if folded:
        dequantize_by_operator(proto)
        fold_channel_scaling(proto)
    return Source(proto=proto, half=half, halves=list_half_constants(structure))


def fix_branches(model: Model, work: Work) -> Model:
    """Return the model with constant inputs of edgekit.toml stored, where they decide a branch.

    onnxruntime then folds the branch and drops the other one. A model without such a branch, and a
    model over 2 GiB, are returned unchanged.
    """
    constants = work.feeding.constants
    structure = load_structure(model.path)
    if is_large(structure) or not decides_branch(structure, constants):
        return model
    proto = load(model.path)
    note_fixed_inputs(fix_inputs(proto, constants), work)
    path = work.scratch / _FIXED
    save(proto, path)
    return read_onnx(path)


def note_fixed_inputs(names: Sequence[str], work: Work) -> None:
    """Note which inputs the file ignores from now on."""
    for name in names:
        work.note(
            f"input {name} is fixed to {work.feeding.constants[name].tolist()} (from "
            "edgekit.toml); the file ignores other values"
        )


def _load_float32(model: Model, work: Work, half: bool, folded: bool) -> ModelProto:
    """Load the graph in float32: onnxruntime would put casts around each float16 operator."""
    if not folded:
        return load(model.path)
    if not half:
        return load_folded(model, work.scratch)
    wide = load(model.path)
    compute_in_float32(wide)
    path = work.scratch / _WIDE
    save(wide, path)
    del wide
    made = load_folded(read_onnx(path), work.scratch)
    path.unlink()
    return made
