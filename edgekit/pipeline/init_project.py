"""Creation of a first edgekit.toml from the model and the data in a folder."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.cache.store import get_default_root
from edgekit.config.profile import validate
from edgekit.config.project import FILE_NAME, ModelTable, PreprocessSettings, Project
from edgekit.conversion.importers.source import SUFFIXES, detect_source, is_saved_model
from edgekit.data.audio.wav_folders import WAVES
from edgekit.data.dataset import is_scaled
from edgekit.data.images import IMAGES
from edgekit.data.input_settings import find_states
from edgekit.data.listed_files import has_files
from edgekit.data.readers import TABLES, read_table
from edgekit.data.table import Table
from edgekit.data.targets import LABELS
from edgekit.data.text_lines import LINES
from edgekit.errors import UserError
from edgekit.model import Model, TensorSpec
from edgekit.pipeline.model_settings import find_model
from edgekit.pipeline.pixel_scaling import format_toml
from edgekit.pipeline.proposals.project_proposal import ProjectProposal, propose_project
from edgekit.pipeline.proposals.task_proposal import choose_by_signature
from edgekit.pipeline.proposals.task_settings import format_metric, format_postprocessing
from edgekit.progress import Tick, ignore_progress
from edgekit_agent.files import write_atomic

_CALIBRATION = ("calib", "cal", "train", "repr")
_EVALUATION = ("eval", "test", "val", "holdout")
_MODELS = (".onnx", ".tflite")
_BY_HAND = "# mean = 0.0\n# std = 1.0\n"


@dataclass(frozen=True, kw_only=True)
class InitResult:
    """Path and text of a new edgekit.toml, with the settings that the user must fill in."""

    path: Path
    text: str
    open_points: tuple[str, ...]


def init_project(
    folder: Path, model_path: Path | None, *, trusted: bool = False, tick: Tick = ignore_progress
) -> InitResult:
    """Write ``edgekit.toml`` into a folder.

    Args:
        folder: The project folder.
        model_path: The model; ``None`` = the only one in the folder.
        trusted: Whether a model file may run the code that it carries; the new file then says so.
        tick: Progress callback of the conversion of the model.

    Raises:
        UserError: edgekit.toml exists already, or no model is found.
    """
    target = folder / FILE_NAME
    if target.exists():
        raise UserError(f"{target}: exists already", hint="edit the file, or remove it first")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    path = model_path or _find_only_model(folder)
    model = find_model(folder, path, Project(), trusted=trusted, tick=tick)
    sources = _list_data_sources(folder)
    calibration, evaluation = (
        _find_by_name(sources, _CALIBRATION),
        _find_by_name(sources, _EVALUATION),
    )
    proposal = _propose(folder, model, evaluation or calibration, tick)
    table = ModelTable(path=_make_relative(path, folder), trust_pickle=trusted)
    pairs, scalars = find_states(model.signature), _list_scalar_inputs(model)
    text = _format_project(table, model, calibration, evaluation, proposal) + _format_inputs(
        pairs, scalars
    )
    validate(Project, tomllib.loads(text), where=str(target))
    missing = {"[data] calibration": calibration, "[data] evaluation": evaluation}
    points = [f"{key}: no data file was found" for key, found in missing.items() if not found]
    if evaluation and not _has_labels(folder, evaluation):
        points.append(f"{evaluation}: no labels found (an array 'label' or 'y')")
    if proposal.task.targets:
        told = " and ".join(proposal.task.targets)
        points.append(f"[data] metric: a function that judges the targets {told}")
    if proposal.trouble and Path(evaluation or "").suffix.lower() not in TABLES:
        points.append(f"[data.preprocess]: {proposal.trouble}")
    points += [f"[model.inputs] {name}: its constant value" for name in scalars]
    write_atomic(str(target), text.encode())
    return InitResult(path=target, text=text, open_points=tuple(points))


def _find_only_model(folder: Path) -> Path:
    entries = sorted(folder.iterdir())
    found = [p for p in entries if p.suffix in _MODELS]
    if not found:
        found = [p for p in entries if p.suffix.lower() in SUFFIXES or is_saved_model(p)]
    if not found:
        raise UserError(
            f"{folder.resolve()}: contains no model file", hint="give its path: edgekit init MODEL"
        )
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise UserError(
            f"{folder.resolve()}: contains {len(found)} model files ({names})",
            hint="choose one: edgekit init MODEL",
        )
    return found[0]


def _make_relative(path: Path, folder: Path) -> str:
    source = detect_source(path, folder=folder, trusted=False)
    if source is not None and source.kind == "function":
        return str(path)
    resolved, base = path.resolve(), folder.resolve()
    return str(resolved.relative_to(base) if resolved.is_relative_to(base) else resolved)


def _list_data_sources(folder: Path) -> list[str]:
    entries = sorted(folder.iterdir())
    folders = {p.name for p in entries if p.is_dir() and _holds_samples(p)}
    # A table with the name of a folder has the labels of its files.
    return [
        p.name
        for p in entries
        if p.name in folders
        or (p.suffix.lower() in (".npz", *TABLES, *LINES) and p.stem not in folders)
    ]


def _holds_samples(folder: Path) -> bool:
    # Files in the folder itself, or in one folder per class.
    suffixes = {p.suffix.lower() for pattern in ("*", "*/*") for p in folder.glob(pattern)}
    return bool(suffixes & {".npy", *IMAGES, *WAVES})


def _find_by_name(sources: Sequence[str], stems: Sequence[str]) -> str | None:
    for stem in stems:
        for source in sources:
            if source.lower().startswith(stem):
                return source
    return None


def _read_npz_table(folder: Path, source: str | None) -> Table | None:
    if source is None or not source.endswith(".npz"):
        return None
    return read_table(source, folder=folder, cache=get_default_root())


def _has_labels(folder: Path, source: str) -> bool:
    table = _read_npz_table(folder, source)
    return table is None or any(c.name in LABELS for c in table.columns)


def _detect_layout(folder: Path, model: Model, source: str | None) -> str | None:
    """Return ``NCHW`` if the model takes channels first and the data has them last."""
    table = _read_npz_table(folder, source)
    spec = model.signature.inputs[0]
    if table is None or len(spec.shape) != 4:
        return None
    for column in table.columns:
        if len(column.shape) == 4 and not _fits(column.shape[1:], spec):
            height, width, channels = column.shape[1:]
            if _fits((channels, height, width), spec):
                return "NCHW"
    return None


def _propose(folder: Path, model: Model, source: str | None, tick: Tick) -> ProjectProposal:
    """Propose settings by the evaluation samples, else by the model alone."""
    if source is None or _needs_settings(folder / source):
        return ProjectProposal(task=choose_by_signature(model.signature, None))
    layout = _detect_layout(folder, model, source)
    settings = PreprocessSettings(layout="NCHW") if layout else None
    return propose_project(folder, model, source, layout=settings, tick=tick)


def _needs_settings(path: Path) -> bool:
    """Return whether a source holds texts or audio, which need settings of their own."""
    if path.is_dir():
        return has_files(path, WAVES)
    return path.suffix.lower() in LINES


def _fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    wanted = spec.shape[1:]
    return all(not isinstance(w, int) or w == d for w, d in zip(wanted, shape, strict=True))


def _format_project(
    table: ModelTable,
    model: Model,
    calibration: str | None,
    evaluation: str | None,
    proposal: ProjectProposal,
) -> str:
    inputs = "".join(_format_comment(spec) for spec in model.signature.inputs)
    outputs = "".join(_format_comment(spec) for spec in model.signature.outputs)
    lines = [
        "# Inputs of the model:\n",
        inputs,
        "# Outputs:\n",
        outputs,
        f"\n[model]\npath = {_quote(str(table.path))}\n",
        "trust_pickle = true\n" if table.trust_pickle else "",
        "\n[data]\n",
        _format_setting("calibration", calibration, "unlabeled samples; a few hundred are enough"),
        _format_setting("evaluation", evaluation, "labeled samples that were not used in training"),
        format_metric(proposal.task),
        "\n# Preprocessing of float inputs: (x * scale - mean) / std, then the layout of the "
        "model.\n",
        _format_preprocessing(proposal),
        format_postprocessing(proposal.head),
        '\n[build]\n# device = "tablet"  # edgekit devices lists them\n',
    ]
    return "".join(lines)


def _format_comment(spec: TensorSpec) -> str:
    return f"#   {_replace_unprintable(str(spec))}\n"


def _replace_unprintable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _list_scalar_inputs(model: Model) -> list[str]:
    """Return inputs of a single number, for which no sample has an array: a rate, a mode."""
    return [s.name for s in model.signature.inputs if not s.shape or s.shape == (1,)]


def _format_inputs(pairs: Mapping[str, str], scalars: Sequence[str]) -> str:
    """Format the settings of inputs that are not rows of samples."""
    lines = (
        []
        if not (pairs or scalars)
        else ["\n# Inputs that are not samples: states and constants.\n"]
    )
    for name, output in pairs.items():
        lines.append(
            f"[model.inputs.{_quote(name)}]  # a state: zeros at the start of a sequence\n"
        )
        lines.append(f"from = {_quote(output)}\n")
    for name in scalars:
        lines.append(f"# [model.inputs.{_quote(name)}]\n# constant = 0  # the same in every run\n")
    return "".join(lines)


def _quote(text: str) -> str:
    """Quote a TOML string; JSON strings are valid TOML."""
    return json.dumps(text, ensure_ascii=False)


def _format_setting(key: str, value: str | None, what: str) -> str:
    return f"{key} = {_quote(value)}\n" if value else f'# {key} = ""  # {what}\n'


def _format_preprocessing(proposal: ProjectProposal) -> str:
    said = "".join(f"# {_replace_unprintable(line)}\n" for line in proposal.tried)
    settings = proposal.settings
    rest = "" if settings and is_scaled(settings.to_preprocess()) else _BY_HAND
    if settings in (None, PreprocessSettings()):
        return f"{said}# [data.preprocess]\n{rest}"
    return f"{said}{format_toml(settings)}\n{rest}"
