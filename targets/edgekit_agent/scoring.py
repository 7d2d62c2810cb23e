"""Settings of metrics and of post-processing, exchanged by host and agent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional, Tuple

from edgekit_agent.protocol import mark_added


@dataclass(frozen=True)
class MetricOptions:
    """Options of a metric; each metric uses the ones that concern it.

    Attributes:
        output: name of the scored output; ``None`` = the first.
        ignore: label that is not scored, such as 255 in masks or -1 in frames.
        threshold: score from which a class or a pixel counts as present.
        count: the k of recall@k.
        data_range: difference of the largest and the smallest possible value, for PSNR and SSIM.
        classes: number of classes; 0 = as many as the output has.
        logits: whether scores are logits, to which softmax (sigmoid for one value per class) is
            applied first, and not probabilities. Decided once for all samples and models.
    """

    output: Optional[str] = None
    ignore: Optional[int] = None
    threshold: float = 0.5
    count: int = 1
    data_range: float = 1.0
    classes: int = 0
    logits: bool = False


@dataclass(frozen=True)
class CodeFile:
    """A file of Python code: its path below the folder of modules, with ``/``, and its text."""

    path: str
    text: str


@dataclass(frozen=True)
class MetricCode:
    """Code of the user that computes a metric where the model runs.

    ``entry`` is ``module:function``; ``files`` are the modules of the user that it needs.
    """

    entry: str
    files: Tuple[CodeFile, ...]


@dataclass(frozen=True)
class MetricJob:
    """A metric to compute for each sample, by its name, or by code of the user."""

    name: str
    options: MetricOptions = MetricOptions()
    code: Optional[MetricCode] = field(default=None, metadata=mark_added())


@dataclass(frozen=True)
class Postprocess:
    """Post-processing of the outputs of one sample, before the metric.

    Attributes:
        kind: ``yolox``, ``yolov5``, ``yolov8``, ``distances`` (boxes as distributions of distances
            to the four sides), ``boxes`` (outputs that are boxes already), ``ctc``, ``argmax``,
            ``softmax``, ``sigmoid`` or ``threshold``.
        outputs: names of the outputs that it reads, in the order of its kind; empty = all of them.
        size: height and width of the model's input in pixels.
        strides: pixels of the input for each cell of a grid, one number for each level.
        score_min: boxes with a lower score are dropped.
        nms_iou: overlap from which the box with the lower score is dropped.
        most: largest number of boxes of a sample.
        box_format: ``xyxy``, ``yxyx``, ``cxcywh`` or ``xywh``, for ``boxes``.
        box_unit: ``pixels``, or ``share`` of the input's width and height, for ``boxes``,
            ``yolov5`` and ``yolov8``.
        first_class: number of the first class in the targets.
        background: number of the class of scores that is no object, which is left out before
            classes are numbered; -1 = there is none.
        threshold: score from which a value is 1, for ``threshold``.
        charset: text of each class of ``ctc``, the blank left out.
        blank: number of the class of ``ctc`` that is no character.
    """

    kind: str
    outputs: Tuple[str, ...] = ()
    size: Tuple[int, ...] = ()
    strides: Tuple[int, ...] = (8, 16, 32)
    score_min: float = 0.01
    nms_iou: float = 0.65
    most: int = 100
    box_format: str = "xyxy"
    box_unit: str = "pixels"
    first_class: int = 0
    background: int = -1
    threshold: float = 0.5
    charset: Tuple[str, ...] = ()
    blank: int = 0


@dataclass(frozen=True)
class Answer:
    """Interpretation of the outputs as the answer to a sample.

    Attributes:
        kind: ``class`` (one of several), ``labels`` (any number of them), ``boxes``, ``mask`` (a
            class for each position), ``text``, ``decisions`` (a class for each time) or ``values``.
        output: the output that is read; ``None`` = the first one.
        logits: whether the output holds logits, to which softmax (sigmoid for a single score and
            for ``labels``) is applied first.
        threshold: score (after softmax or sigmoid) above which a class is present.
        class_axis: axis of the classes in the output of one sample, for ``mask`` and
            ``decisions``; ``None`` = there is a single score at each position.
        ignore: code point that is no part of a text.
    """

    kind: str = "values"
    output: Optional[str] = None
    logits: bool = False
    threshold: float = 0.5
    class_axis: Optional[int] = None
    ignore: Optional[int] = None
