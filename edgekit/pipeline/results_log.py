"""results.jsonl: one line per build, candidate and rejected recipe, with raw values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from edgekit.bundle.bundle_file import open_bundle
from edgekit.bundle.layer_report import LayerCost
from edgekit.bundle.manifest import MANIFEST, Manifest
from edgekit.bundle.pipeline_folder import get_hint
from edgekit.bundle.results import Measurement, Verdict
from edgekit.errors import UserError, reason
from edgekit.metrics.comparison import Comparison
from edgekit.model import Format
from edgekit.old_names import rename_stored_step
from edgekit.pipeline.examples.records import Examples, read_examples
from edgekit.pipeline.old_results import upgrade_comparison, upgrade_measurement

RESULTS = "results.jsonl"

_HINT = "give the folder that 'edgekit build' wrote (build/NAME)"


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")


class BuildLine(_Line):
    """First line of a build."""

    kind: Literal["build"]
    id: str
    started: datetime
    device: str
    source_digest: str
    machine: dict[str, Any] = {}


class ModelFacts(_Line):
    """Facts of a file that a recipe made."""

    digest: str
    bytes: int
    format: Format


class CandidateLine(_Line):
    """Line of a candidate with its measurements."""

    kind: Literal["candidate"]
    key: str
    name: str
    method: str = ""  # name without the file format; earlier versions did not record it
    steps: tuple[dict[str, Any], ...] = ()
    seed: int | None = None
    model: ModelFacts
    measurements: tuple[Measurement, ...] = ()
    comparison: Comparison | None = None
    verdict: Verdict | None = None
    chosen: bool = False
    nearest: bool = False  # only if the build chose none
    packed: bool = False
    baseline: bool = False
    layers: tuple[LayerCost, ...] = ()
    notes: tuple[str, ...] = ()

    @field_validator("comparison", mode="before")
    @classmethod
    def _read_old_comparison(cls, found: object) -> object:
        """Read a comparison of version 0.1 under the present names."""
        if not isinstance(found, dict) or "drop_points" not in found:
            return found
        return upgrade_comparison(found)

    @field_validator("measurements", mode="before")
    @classmethod
    def _read_old_measurements(cls, found: object) -> object:
        """Read the counts of correct predictions of version 0.1 as scores."""
        if not isinstance(found, list | tuple):
            return found
        return [upgrade_measurement(each) for each in found]

    @field_validator("steps")
    @classmethod
    def _rename_steps(cls, steps: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        """Read steps of earlier versions under the present names of passes and settings."""
        return tuple(rename_stored_step(step) for step in steps)


class RejectedLine(_Line):
    """Line of a recipe that made no candidate."""

    kind: Literal["rejected"]
    name: str
    reason: str
    hint: str = ""


Line = BuildLine | CandidateLine | RejectedLine
_LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="kind")])


@dataclass(frozen=True, kw_only=True)
class BuildFacts:
    """Facts of one build for its report; ``manifest`` is ``None`` if nothing was packed.

    ``examples`` are samples that the shown candidate changes; ``None`` if there are none.
    """

    build: BuildLine
    candidates: tuple[CandidateLine, ...]
    rejected: tuple[RejectedLine, ...]
    manifest: Manifest | None
    examples: Examples | None = None


def append_lines(
    build_dir: Path, lines: Iterable[Line], *, change: Callable[[str], str] = str
) -> None:
    """Append the lines of a build and flush them to disk; existing lines are kept.

    Args:
        build_dir: Folder of the build.
        lines: The lines.
        change: Changes the JSON text of each line.
    """
    text = "".join(change(line.model_dump_json()) + "\n" for line in lines)
    with (build_dir / RESULTS).open("a", encoding="utf-8") as file:
        if file.tell() and not _ends_with_newline(build_dir / RESULTS):
            text = "\n" + text  # a power cut left a partial line
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read_facts(build_dir: Path) -> BuildFacts:
    """Read the facts of the last build in a folder.

    Raises:
        UserError: The folder holds no build, or its files are damaged.
    """
    path = build_dir / RESULTS
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{build_dir}: not a build folder: {reason(error)}", hint=get_hint(build_dir, _HINT)
        ) from error
    lines = _read_last_build(text, path)
    manifest = open_bundle(build_dir).manifest if (build_dir / MANIFEST).exists() else None
    candidates = tuple(line for line in lines if isinstance(line, CandidateLine))
    digests = {c.model.digest for c in candidates if c.packed}
    if manifest is not None and digests.isdisjoint(f.digest for f in manifest.files):
        manifest = None  # an earlier build packed it
    build = next(line for line in lines if isinstance(line, BuildLine))
    return BuildFacts(
        build=build,
        candidates=candidates,
        rejected=tuple(line for line in lines if isinstance(line, RejectedLine)),
        manifest=manifest,
        examples=read_examples(build_dir, build.id),
    )


def _read_last_build(text: str, path: Path) -> list[Line]:
    """Parse the lines of the last build in the file."""
    raw = text.splitlines()
    starts = [number for number, line in enumerate(raw) if _is_build_line(line)]
    if not starts:
        raise UserError(f"{path}: the file contains no build", hint=_HINT)
    lines: list[Line] = []
    for number in range(starts[-1], len(raw)):
        if not raw[number].strip():
            continue
        try:
            lines.append(_LINE.validate_json(raw[number]))
        except ValidationError as error:
            if number == len(raw) - 1 and not text.endswith("\n"):
                break  # the build was interrupted while it wrote this line
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            said = f"{path}:{number + 1}: {where}: {first['msg']}"
            raise UserError(said, hint=_HINT) from error
    return lines


def _is_build_line(raw: str) -> bool:
    try:
        return isinstance(_LINE.validate_json(raw), BuildLine)
    except ValidationError:
        return False  # part of an earlier build; in the last build, the caller reports it
