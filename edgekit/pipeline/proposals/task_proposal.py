"""Proposal of a metric and of the post-processing, from the targets and the model's outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from edgekit.config.project import MetricOptionsTable, PostprocessTable
from edgekit.data.dataset import Dataset
from edgekit.model import Model, Signature, TensorSpec
from edgekit.pipeline.proposals.charsets import list_ctc_kinds
from edgekit.pipeline.proposals.detector_heads import list_detector_heads
from edgekit.pipeline.proposals.task_facts import (
    OutputFacts,
    TargetFacts,
    list_target_names,
    measure_output_facts,
    read_output_facts,
    read_target_facts,
)
from edgekit_agent.metrics.shapes import find_class_axis

# Share of the rarer of two classes below which accuracy says little.
_RARE = 0.1
_IGNORED_CLASS, _IGNORED_FRAME = 255, -1
# A vector of length 1 with fewer values is rarely an embedding.
_LEAST_EMBEDDING = 16
# Values of an output that reconstructs the input.
_LEAST_RECONSTRUCTION = 8
_IMAGE_AXES = 3


@dataclass(frozen=True, kw_only=True)
class TaskProposal:
    """Metric and post-processing that fit model and targets.

    Attributes:
        metric: Name of the metric, which judges the main target; empty = there is none.
        reason: Why, in a few words.
        options: Options of the metric.
        heads: Post-processing; several ones are to be tried, empty = none.
        scores: Whether the scores of classes are logits or probabilities; ``None`` = unknown.
        targets: Names of the targets, if there are several ones that no metric of edgekit judges.
    """

    metric: str
    reason: str
    options: MetricOptionsTable = field(default_factory=MetricOptionsTable)
    heads: tuple[PostprocessTable, ...] = ()
    scores: Literal["logits", "probabilities"] | None = None
    targets: tuple[str, ...] = ()


def propose_task(
    model: Model,
    dataset: Dataset | None,
    *,
    output: str | None = None,
    folders: Sequence[Path] = (),
    size: tuple[int, int] | None = None,
) -> TaskProposal:
    """Propose a metric for a model, and how its outputs are processed before.

    Args:
        model: The model; it is run on a few samples.
        dataset: Samples with targets; ``None`` = there are none.
        output: Name of the output to score; ``None`` = the first.
        folders: Folders in which a character set may lie.
        size: Height and width of the input, if the model leaves them free.
    """
    signature = model.signature
    target = read_target_facts(dataset) if dataset else None
    if dataset is None:
        return choose_by_signature(signature, output)
    names = list_target_names(dataset)
    if target is None and not names:
        return TaskProposal(metric="", reason="without targets: agreement with the original")
    if target is None:
        return TaskProposal(metric="", reason="no main target", targets=names)
    outputs = measure_output_facts(model, dataset)
    if target.has_boxes:
        heads = list_detector_heads(outputs, find_image_size(signature) or size)
        return TaskProposal(metric="map", reason="boxes as targets", heads=heads)
    scored = next((each for each in outputs if each.name == output), outputs[0])
    unjudged = names if len(names) > 1 else ()
    if target.is_ragged and len(target.sizes) <= 1 and target.is_whole:
        proposal = _propose_for_sequence(target, scored, signature, folders)
    elif not target.sizes:
        proposal = _propose_for_number(target, scored, signature)
    else:
        proposal = _propose_for_array(target, scored, signature)
    return replace(proposal, targets=unjudged)


def choose_by_signature(signature: Signature, output: str | None) -> TaskProposal:
    """Propose ``binary`` if an output holds a single value per sample, else ``top1``."""
    outputs = read_output_facts(signature)
    scored = next((each for each in outputs if each.name == output), outputs[0])
    if not scored.sizes:
        return TaskProposal(metric="binary", reason="one output value")
    return TaskProposal(metric="top1", reason="scores of classes")


def find_image_size(signature: Signature) -> tuple[int, int] | None:
    """Return height and width of the only image input; ``None`` if there is none or it is free."""
    images = [spec for spec in signature.inputs if len(spec.shape) == _IMAGE_AXES + 1]
    if len(images) != 1:
        return None
    sizes = images[0].shape[2:] if has_channels_first(images[0]) else images[0].shape[1:3]
    height, width = sizes
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def has_channels_first(spec: TensorSpec) -> bool:
    """Return whether an image input has its channels on the first axis after the batch."""
    return spec.shape[1] in (1, 3, 4) and spec.shape[3] not in (1, 3)


def _propose_for_sequence(
    target: TargetFacts, scored: OutputFacts, signature: Signature, folders: Sequence[Path]
) -> TaskProposal:
    """Propose for texts, tokens or frames of sequences of their own lengths."""
    if _reads_tokens(signature):
        return _propose_for_tokens(target, scored)
    if target.is_binary:
        options = _choose_ignored(target, 2)
        return TaskProposal(metric="auc", reason="0 or 1 for each frame", options=options)
    classes = scored.sizes[-1] if len(scored.sizes) == 2 else None
    heads = list_ctc_kinds(classes, folders) if isinstance(classes, int) else ()
    return TaskProposal(metric="cer", reason="texts as targets", heads=heads)


def _propose_for_tokens(target: TargetFacts, scored: OutputFacts) -> TaskProposal:
    options = _choose_ignored(target, scored.sizes[-1])
    if scored.sums_to_one:
        return TaskProposal(
            metric="token-accuracy", reason="a token for each position", options=options
        )
    return TaskProposal(metric="perplexity", reason="a token for each position", options=options)


def _reads_tokens(signature: Signature) -> bool:
    first = signature.inputs[0]
    return first.dtype in ("int32", "int64") and len(first.shape) == 2


def _propose_for_number(
    target: TargetFacts, scored: OutputFacts, signature: Signature
) -> TaskProposal:
    """Propose for one number per sample."""
    if not scored.sizes:
        return _propose_for_one_value(target, scored)
    if not target.is_whole:
        return TaskProposal(metric="mae", reason="a real number as target")
    if target.is_binary and _is_like_input(scored, signature):
        return TaskProposal(
            metric="reconstruction-auc", reason="labels 0 and 1, an output like the input"
        )
    if scored.has_unit_length and len(scored.sizes) == 1:
        (length,) = scored.sizes
        if not scored.sums_to_one and isinstance(length, int) and length >= _LEAST_EMBEDDING:
            return TaskProposal(metric="pairs-auc", reason="embeddings of length 1")
    return TaskProposal(
        metric="top1", reason="one class as target, several scores", scores=_tell_scores(scored)
    )


def _tell_scores(scored: OutputFacts) -> Literal["logits", "probabilities"] | None:
    if math.isnan(scored.low):
        return None
    if scored.sums_to_one or (not scored.sizes and scored.is_in_unit_range):
        return "probabilities"
    return None if scored.is_in_unit_range else "logits"


def _is_like_input(scored: OutputFacts, signature: Signature) -> bool:
    sizes = [size for size in scored.shape if size is not None]
    if len(sizes) < len(scored.shape) or math.prod(sizes) < _LEAST_RECONSTRUCTION:
        return False
    shapes = [tuple(spec.shape[1:]) for spec in signature.inputs]
    return any(
        len(shape) == len(sizes)
        and all(s == size or not isinstance(s, int) for s, size in zip(shape, sizes, strict=True))
        for shape in shapes
    )


def _propose_for_one_value(target: TargetFacts, scored: OutputFacts) -> TaskProposal:
    if not target.is_binary:
        return TaskProposal(metric="mae", reason="a number as target, one output value")
    if target.low < 0:
        options = _choose_ignored(target, 2)
        return TaskProposal(metric="auc", reason="labels 0, 1 and -1", options=options)
    if not scored.is_in_unit_range:
        return TaskProposal(metric="auc", reason="labels 0 and 1, an output beyond 0 to 1")
    if 1 - target.common < _RARE:
        return TaskProposal(
            metric="auc", reason=f"labels 0 and 1, {target.common:.0%} of them the same"
        )
    return TaskProposal(
        metric="binary", reason="labels 0 and 1, one output value", scores=_tell_scores(scored)
    )


def _propose_for_array(
    target: TargetFacts, scored: OutputFacts, signature: Signature
) -> TaskProposal:
    """Propose for several numbers per sample: masks, frames, images or vectors."""
    wanted, found = target.sizes, scored.sizes
    same = _matches(found, wanted)
    if target.is_binary and same and len(wanted) == 1:
        options = _choose_ignored(target, 2)
        return TaskProposal(
            metric="multilabel-map", reason="0 or 1 for each class", options=options
        )
    if target.is_whole and _find_classes(found, wanted):
        classes = _find_classes(found, wanted)
        if len(wanted) > 1:
            options = _choose_ignored(target, classes)
            return TaskProposal(metric="miou", reason="masks as targets", options=options)
        if _reads_tokens(signature):
            return _propose_for_tokens(target, scored)
        options = _choose_ignored(target, classes)
        return TaskProposal(
            metric="token-accuracy", reason="a class for each position", options=options
        )
    if target.is_whole and same and len(wanted) == 2 and _looks_like_mask(target, scored):
        options = _choose_ignored(target, 2 if scored.dtype.startswith("float") else None)
        return _propose_for_binary_mask(scored, options)
    if same and len(scored.shape) == _IMAGE_AXES:
        options = MetricOptionsTable(data_range=_choose_range(target))
        return TaskProposal(metric="psnr", reason="images as targets", options=options)
    return TaskProposal(metric="mae", reason="numbers as targets")


def _looks_like_mask(target: TargetFacts, scored: OutputFacts) -> bool:
    labels = set(target.distinct) - {float(_IGNORED_CLASS)}
    return bool(labels) and (labels <= {0.0, 1.0} or not scored.dtype.startswith("float"))


def _propose_for_binary_mask(scored: OutputFacts, options: MetricOptionsTable) -> TaskProposal:
    if scored.dtype.startswith("float") and not scored.is_in_unit_range:
        options = options.model_copy(update={"threshold": 0.0})  # logits
    return TaskProposal(metric="miou", reason="masks as targets", options=options)


def _matches(found: tuple[int | None, ...], wanted: tuple[int, ...]) -> bool:
    """Return whether output and target have one shape, maybe with the channels elsewhere."""
    moved = [found, (*found[1:], *found[:1]), (*found[-1:], *found[:-1])]
    layouts = moved if len(wanted) == _IMAGE_AXES else [found]
    return any(
        len(shape) == len(wanted)
        and all(f is None or f == w for f, w in zip(shape, wanted, strict=True))
        for shape in layouts
    )


def _find_classes(found: tuple[int | None, ...], wanted: tuple[int, ...]) -> int:
    """Return the number of classes if an output has one axis more than its target, else 0."""
    if len(found) != len(wanted) + 1:
        return 0
    filled = tuple(-1 if size is None else size for size in found)
    for axis in (0, len(found) - 1):
        rest = filled[:axis] + filled[axis + 1 :]
        if filled[axis] > 1 and all(r in (-1, w) for r, w in zip(rest, wanted, strict=True)):
            return filled[axis]
    axis = find_class_axis(filled, wanted) or 0
    return filled[axis] if find_class_axis(filled, wanted) is not None else 0


def _choose_ignored(target: TargetFacts, classes: int | None) -> MetricOptionsTable:
    """Return the options with the label that is not scored, if one lies beyond the classes."""
    if target.low == _IGNORED_FRAME:
        return MetricOptionsTable(ignore=_IGNORED_FRAME)
    if target.high == _IGNORED_CLASS and (classes is None or classes <= _IGNORED_CLASS):
        return MetricOptionsTable(ignore=_IGNORED_CLASS)
    return MetricOptionsTable()


def _choose_range(target: TargetFacts) -> float:
    if target.low >= 0:
        return 1.0 if target.high <= 1 else 255.0
    return 2.0 if target.low >= -1 and target.high <= 1 else max(255.0, target.high - target.low)
