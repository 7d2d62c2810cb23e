"""results.jsonl: a line for each build, candidate and rejected recipe, with raw values."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from edgekit.bundle import MANIFEST, Manifest, open_bundle
from edgekit.compare import Comparison
from edgekit.errors import UserError, reason
from edgekit.layers import LayerCost
from edgekit.results import Measurement, Verdict

RESULTS = "results.jsonl"

_HINT = "give the folder that 'edgekit build' wrote (build/NAME)"


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True)


class BuildLine(_Line):
    """The line that a build begins with."""

    kind: Literal["build"]
    id: str
    started: datetime
    device: str
    source_digest: str
    machine: dict[str, Any] = {}


class ModelFacts(_Line):
    """The file a recipe made."""

    digest: str
    bytes: int
    format: Literal["onnx", "tflite"]


class CandidateLine(_Line):
    """A model that was made and measured."""

    kind: Literal["candidate"]
    key: str
    name: str
    steps: tuple[dict[str, Any], ...] = ()
    seed: int | None = None
    model: ModelFacts
    measurements: tuple[Measurement, ...] = ()
    comparison: Comparison | None = None
    verdict: Verdict | None = None
    chosen: bool = False
    nearest: bool = False  # of a build that chose none
    packed: bool = False
    baseline: bool = False
    layers: tuple[LayerCost, ...] = ()
    notes: tuple[str, ...] = ()


class RejectedLine(_Line):
    """A recipe that made no model."""

    kind: Literal["rejected"]
    name: str
    reason: str
    hint: str = ""


Line = BuildLine | CandidateLine | RejectedLine
_LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="kind")])


@dataclass(frozen=True, kw_only=True)
class BuildFacts:
    """All that the report of one build says. No manifest: nothing was packed."""

    build: BuildLine
    candidates: tuple[CandidateLine, ...]
    rejected: tuple[RejectedLine, ...]
    manifest: Manifest | None


def append(build_dir: Path, lines: Iterable[Line]) -> None:
    """Add the lines of a build, on disk when this returns; what was there before stays."""
    text = "".join(line.model_dump_json() + "\n" for line in lines)
    with (build_dir / RESULTS).open("a", encoding="utf-8") as file:
        if file.tell() and not _ends_a_line(build_dir / RESULTS):
            text = "\n" + text  # a power cut left half a line behind
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read_facts(build_dir: Path) -> BuildFacts:
    """The facts of the last build in a folder.

    Raises:
        UserError: the folder holds no build, or its files are damaged.
    """
    path = build_dir / RESULTS
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{build_dir}: not a build folder: {reason(error)}", hint=_HINT) from error
    lines = _last_build(text, path)
    manifest = open_bundle(build_dir).manifest if (build_dir / MANIFEST).exists() else None
    candidates = tuple(line for line in lines if isinstance(line, CandidateLine))
    digests = {c.model.digest for c in candidates if c.packed}
    if manifest is not None and digests.isdisjoint(f.digest for f in manifest.files):
        manifest = None  # it was packed by an earlier build
    return BuildFacts(
        build=next(line for line in lines if isinstance(line, BuildLine)),
        candidates=candidates,
        rejected=tuple(line for line in lines if isinstance(line, RejectedLine)),
        manifest=manifest,
    )


def _last_build(text: str, path: Path) -> list[Line]:
    """The lines from the last one on that begins a build."""
    raw = text.splitlines()
    starts = [number for number, line in enumerate(raw) if _begins(line)]
    if not starts:
        raise UserError(f"{path}: no build begins in this file", hint=_HINT)
    lines: list[Line] = []
    for number in range(starts[-1], len(raw)):
        if not raw[number].strip():
            continue
        try:
            lines.append(_LINE.validate_json(raw[number]))
        except ValidationError as error:
            if number == len(raw) - 1 and not text.endswith("\n"):
                break  # the build was cut off while it wrote this line
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            said = f"{path}:{number + 1}: {where}: {first['msg']}"
            raise UserError(said, hint=_HINT) from error
    return lines


def _begins(raw: str) -> bool:
    try:
        return isinstance(_LINE.validate_json(raw), BuildLine)
    except ValidationError:
        return False  # of an earlier build, cut off by a crash; or told of where it is read
