"""Check that ``edgekit init`` finds metric, post-processing and preprocessing of real models.

    python -m benchmarks.init_preprocessing ZOO TASKS [--only NAME ...] [--verbose]

ZOO and TASKS are folders with MANIFEST.toml. The evaluation samples are laid out as a user has
them: arrays of bytes, image folders with a CSV, COCO annotations, or masks. Each row shows what
``init`` wrote and what the manifest says.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from edgekit.config.project import PreprocessSettings, Project, load_project
from edgekit.pipeline.init_project import init_project
from edgekit.pipeline.pixel_scaling import SCALINGS


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model with image data, and what ``init`` must find.

    Attributes:
        folder: Folder of the model, relative to that of the zoo or of the tasks.
        lay_out: Writes the evaluation samples into a project folder.
        scaling: Name of the right scaling.
        metric: Name of the right metric.
        order: Right order of the channels.
        kind: Right post-processing; empty = none.
    """

    folder: str
    lay_out: Callable[[Path, Path], None]
    scaling: str
    metric: str = "top1"
    order: str = "RGB"
    kind: str = ""


def lay_out_arrays(entry: Path, project: Path) -> None:
    """Copy an .npz with images and labels."""
    shutil.copy(entry / "eval.npz", project / "eval.npz")


def lay_out_imagenet(entry: Path, project: Path) -> None:
    """Link a folder of images with its CSV of labels."""
    _link(entry.parent / "imagenet-data", project, ("eval", "eval.csv"))


def lay_out_boxes(entry: Path, project: Path) -> None:
    """Link a folder of images with its COCO annotations."""
    _link(entry, project, ("eval", "eval.json"))


def lay_out_lines(entry: Path, project: Path) -> None:
    """Link a folder of text lines with its CSV of texts and the character set."""
    _link(entry, project, ("eval", "eval.csv", "charset.txt"))


def lay_out_masks(entry: Path, project: Path) -> None:
    """Write an .npz of decoded images and masks."""
    held = np.load(entry / "eval.npz")
    jpeg, off = held["jpeg"].tobytes(), held["off"]
    pairs = pairwise(off)
    images = [Image.open(io.BytesIO(jpeg[start:end])).convert("RGB") for start, end in pairs]
    np.savez(project / "eval.npz", x=np.stack([np.asarray(i) for i in images]), y=held["mask"])


def _link(home: Path, project: Path, names: Sequence[str]) -> None:
    for name in names:
        (project / name).symlink_to((home / name).resolve())


SYMMETRIC = "-1 to 1"
CASES = {
    "ic-resnet8": Case(folder="zoo", lay_out=lay_out_arrays, scaling="no scaling"),
    "med-pneumonia": Case(folder="zoo", lay_out=lay_out_arrays, scaling=SYMMETRIC),
    "effnet-lite0": Case(folder="zoo", lay_out=lay_out_imagenet, scaling=SYMMETRIC),
    "det-yolox-nano": Case(
        folder="tasks",
        lay_out=lay_out_boxes,
        scaling="no scaling",
        metric="map",
        order="BGR",
        kind="yolox",
    ),
    "ocr-rec-ppocrv4": Case(
        folder="tasks",
        lay_out=lay_out_lines,
        scaling=SYMMETRIC,
        metric="cer",
        order="BGR",
        kind="ctc",
    ),
    "seg-camvid-unet": Case(
        folder="tasks", lay_out=lay_out_masks, scaling=SYMMETRIC, metric="miou"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What ``init`` found for a case."""

    right: bool
    found: str
    text: str
    seconds: float


def run_case(name: str, homes: dict[str, Path], project: Path) -> Outcome:
    """Run ``init`` in an empty project folder with the samples of a case."""
    case = CASES[name]
    entry = homes[case.folder] / name
    case.lay_out(entry, project)
    begun = time.monotonic()
    init_project(project, entry / "model.onnx")
    seconds = time.monotonic() - begun
    found = load_project(project)
    return Outcome(
        right=describe(found) == describe_expected(case),
        found=describe(found),
        text=(project / "edgekit.toml").read_text(encoding="utf-8"),
        seconds=seconds,
    )


def describe(project: Project) -> str:
    """Return scaling, order, metric and post-processing of a project."""
    settings = project.data.preprocess or PreprocessSettings()
    kind = project.postprocess.kind if project.postprocess else ""
    told = (_name_scaling(settings), settings.order, project.data.metric or "", kind)
    return ", ".join(part for part in told if part)


def describe_expected(case: Case) -> str:
    """Return the same for the right settings."""
    return ", ".join(part for part in (case.scaling, case.order, case.metric, case.kind) if part)


def _name_scaling(settings: PreprocessSettings) -> str:
    how = settings.to_preprocess()
    for scaling in SCALINGS:
        if (how.scale, how.mean, how.std) == (scaling.scale, scaling.mean, scaling.std):
            return scaling.name
    return f"{how.scale} {how.mean} {how.std}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table of all cases; return 1 if one of them is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--only", nargs="*", default=list(CASES))
    parser.add_argument("--verbose", action="store_true", help="print each edgekit.toml")
    asked = parser.parse_args(arguments)
    wrong = 0
    for name in asked.only:
        with tempfile.TemporaryDirectory() as folder:
            done = run_case(name, {"zoo": asked.zoo, "tasks": asked.tasks}, Path(folder))
        verdict = "right" if done.right else f"WRONG, not {describe_expected(CASES[name])}"
        print(f"{name}: {done.found}: {verdict} ({done.seconds:.0f} s)", flush=True)
        wrong += not done.right
        if asked.verbose:
            print(done.text, flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
