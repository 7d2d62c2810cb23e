"""Proposal of a project's settings, from trials of the model on its evaluation samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgekit.cache.store import get_default_root
from edgekit.config.project import PostprocessTable, PreprocessSettings
from edgekit.data.cached_arrays import is_color_images, reverse_columns
from edgekit.data.dataset import Dataset, open_dataset
from edgekit.data.images import IMAGES
from edgekit.data.listed_files import has_files
from edgekit.data.subsets import select_spread
from edgekit.data.targets import iter_targets
from edgekit.errors import UserError
from edgekit.model import Model
from edgekit.pipeline.accuracy.tallies import Scoring
from edgekit.pipeline.pixel_scaling import (
    RAW,
    Scaling,
    is_unscaled_image,
    list_scalings,
    set_scaling,
)
from edgekit.pipeline.proposals.image_decodings import (
    ImageFolder,
    choose_line_padding,
    look_at_folder,
    place_padding,
)
from edgekit.pipeline.proposals.sample_rows import Head
from edgekit.pipeline.proposals.task_facts import read_target_facts
from edgekit.pipeline.proposals.task_proposal import (
    TaskProposal,
    choose_by_signature,
    find_image_size,
    propose_task,
)
from edgekit.pipeline.proposals.trials import (
    SAMPLES,
    Candidate,
    Trial,
    choose_best,
    scale_parts,
    try_candidates,
)
from edgekit.progress import Tick
from edgekit_agent.samples import TARGET, Samples
from edgekit_agent.scoring import MetricJob

_CLASS = 4


@dataclass(frozen=True, kw_only=True)
class ProjectProposal:
    """Settings for edgekit.toml as far as they could be determined, with the trials behind them.

    Attributes:
        task: Metric and its options.
        settings: Preprocessing; ``None`` if everything is default.
        head: Post-processing; ``None`` = none.
        tried: Lines about the trials.
        trouble: Why preprocessings could not be tried; empty if they were, or need not be.
    """

    task: TaskProposal
    settings: PreprocessSettings | None = None
    head: PostprocessTable | None = None
    tried: tuple[str, ...] = ()
    trouble: str = ""


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The evaluation samples of a project."""

    name: str
    folder: Path
    model: Model
    tick: Tick

    def open(self, settings: PreprocessSettings | None) -> Dataset:
        """Open up to 50 images, or all samples of arrays."""
        return open_dataset(
            self.name,
            self.model.signature,
            folder=self.folder,
            cache=get_default_root(),
            settings=settings,
            targets="optional",
            most=SAMPLES,
            tick=self.tick,
        )

    @property
    def folders(self) -> tuple[Path, ...]:
        """Return the folders in which a character set may lie."""
        path = self.folder / self.name
        return (self.folder, path if path.is_dir() else path.parent)


def propose_project(
    folder: Path, model: Model, name: str, *, layout: PreprocessSettings | None, tick: Tick
) -> ProjectProposal:
    """Propose metric, post-processing and preprocessing by trials on labeled samples.

    Args:
        folder: The project folder.
        model: The model.
        name: The evaluation samples.
        layout: Settings of the layout of arrays, if they differ from the default ones.
        tick: Progress callback.
    """
    source = _Source(name=name, folder=folder, model=model, tick=tick)
    path, images = folder / name, None
    settings = layout
    try:
        if path.is_dir() and not any(path.glob("*.npy")) and has_files(path, IMAGES):
            images = look_at_folder(name, path, model)
            settings = images.get_probe() if images else layout
        dataset = _open_probe(source, images, settings)
        size = images.get_probe(boxes=True).fixed_size if images else None
        task = propose_task(model, dataset, folders=source.folders, size=size)
    except UserError as error:
        # Inputs that need settings of their own are told elsewhere.
        trouble = error.message if len(model.signature.inputs) == 1 else ""
        task = choose_by_signature(model.signature, None)
        return ProjectProposal(task=task, settings=layout, trouble=trouble)
    settings = images.choose_size(read_target_facts(dataset), task.heads) if images else layout
    plain = ProjectProposal(task=task, settings=settings, head=_get_first(task.heads))
    scales = is_unscaled_image(dataset, model) and len(model.signature.inputs) == 1
    if not task.metric or not (scales or len(task.heads) > 1):
        return plain
    try:
        return _try(source, images, dataset, plain, scales=scales)
    except UserError as error:
        return replace(plain, trouble=error.message)


def _open_probe(
    source: _Source, images: ImageFolder | None, settings: PreprocessSettings | None
) -> Dataset:
    """Open the samples in a size that the model takes; boxes need a size in any case."""
    try:
        dataset = source.open(settings)
    except UserError:
        if images is None:
            raise
        return source.open(images.get_probe(boxes=True))
    target = read_target_facts(dataset)
    if images and target and target.has_boxes:
        return source.open(images.get_probe(boxes=True))
    return dataset


def _get_first(heads: Sequence[PostprocessTable]) -> PostprocessTable | None:
    return heads[0] if heads else None


def _try(
    source: _Source,
    images: ImageFolder | None,
    dataset: Dataset,
    plain: ProjectProposal,
    *,
    scales: bool,
) -> ProjectProposal:
    scalings = list_scalings(dataset.samples) if scales else (RAW,)
    decodings = _list_decodings(images, dataset, plain, scales=scales)
    candidates = list(_iter_candidates(source, images, dataset, plain, decodings, scalings))
    heads = _list_heads(source, dataset, plain.task, decodings[0])
    tried = try_candidates(source.model, candidates, heads, tick=source.tick)
    best = choose_best(tried)
    settings = best.candidate.settings
    if best.head.table:
        settings = place_padding(settings, best.head.table.kind)
    return replace(
        plain,
        settings=settings,
        head=best.head.table,
        tried=tuple(_list_lines(tried, best, source.name)),
    )


def _list_lines(tried: Sequence[Trial], best: Trial, source: str) -> Iterator[str]:
    yield f"Tried on {best.table.n} samples of {source}:"
    for trial in tried:
        yield f"{trial.full_text}{', the best' if trial is best and len(tried) > 1 else ''}"


def _list_decodings(
    images: ImageFolder | None, dataset: Dataset, plain: ProjectProposal, *, scales: bool
) -> list[PreprocessSettings]:
    """Return numberings of classes and orders of channels to try."""
    decodings = [plain.settings or PreprocessSettings()]
    if images and plain.task.metric == "map" and _find_first_class(dataset) > 0:
        by_position = [each.model_copy(update={"categories": "position"}) for each in decodings]
        kinds = {head.kind for head in plain.task.heads}
        decodings = [*decodings, *by_position] if "boxes" in kinds else by_position
    has_colors = images.has_colors if images else is_color_images(dataset.samples.columns[0])
    if not (scales and has_colors):
        return decodings
    return decodings + [each.model_copy(update={"order": "BGR"}) for each in decodings]


def _find_first_class(dataset: Dataset) -> int:
    """Return the smallest class of all boxes."""
    classes = [y[TARGET][:, _CLASS] for y in iter_targets(dataset.samples) if len(y[TARGET])]
    return int(np.concatenate(classes).min()) if classes else 0


def _iter_candidates(
    source: _Source,
    images: ImageFolder | None,
    dataset: Dataset,
    plain: ProjectProposal,
    decodings: Sequence[PreprocessSettings],
    scalings: Sequence[Scaling],
) -> Iterator[Candidate]:
    reads_lines = images is not None and plain.task.metric == "cer"
    for decoding in decodings:
        for scaling in scalings:
            settings = set_scaling(scaling, decoding)
            if reads_lines:
                settings = choose_line_padding(settings, scaling)
            if images:
                parts = select_spread(source.open(settings).samples, SAMPLES)
            else:
                parts = select_spread(dataset.samples, SAMPLES)
                if settings.order == "BGR":
                    parts = [_reverse(part, dataset.digest) for part in parts]
            yield Candidate(
                name=_name_candidate(scaling, settings, decodings),
                settings=settings,
                parts=scale_parts(parts, settings),
            )


def _reverse(part: Samples, digest: str) -> Samples:
    return replace(part, columns=reverse_columns(part.columns, digest, get_default_root()))


def _name_candidate(
    scaling: Scaling, settings: PreprocessSettings, decodings: Sequence[PreprocessSettings]
) -> str:
    """Return the name of a candidate, with everything in which the candidates differ."""
    parts = [scaling.name]
    if len({each.order for each in decodings}) > 1:
        parts.append(settings.order)
    if len({each.categories for each in decodings}) > 1:
        parts.append(f"classes by {settings.categories}")
    return ", ".join(parts)


def _list_heads(
    source: _Source, dataset: Dataset, task: TaskProposal, settings: PreprocessSettings
) -> list[Head]:
    size = find_image_size(source.model.signature) or settings.fixed_size or ()
    job = MetricJob(task.metric, task.options.to_options(None))
    tables: Sequence[PostprocessTable | None] = task.heads or (None,)
    return [
        Head(
            table=table,
            scoring=Scoring(
                metrics=(job,),
                postprocess=table.to_postprocess(source.folder, size) if table else None,
            ),
            scores=task.scores,
        )
        for table in tables
    ]
