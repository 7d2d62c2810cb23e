"""A plugin distribution as pip installs it: a module, metadata and entry points."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.builders.projects import ROOT

_MODULE = '''
"""Passes that keep their promise, break it, crash, and one whose entry is none."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import onnx
import onnx.numpy_helper

import edgekit

print("demo is loaded")
Path(os.environ["DEMO_MARK"]).touch()


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """Write a text into the producer of the model."""

    text: str = "demo"
    style: Literal["plain", "loud"] = "plain"


@dataclass(frozen=True, kw_only=True)
class Strange:
    """Settings that no text can give."""

    producer: "Producer" = None


class Producer:
    pass


def stamp(model, settings, work):
    loaded = onnx.load(model.path)
    loaded.producer_name = settings.text.upper() if settings.style == "loud" else settings.text
    onnx.save(loaded, work.scratch / "stamped.onnx")
    return work.scratch / "stamped.onnx"


def scale(model, settings, work):
    loaded = onnx.load(model.path)
    for tensor in loaded.graph.initializer:
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(3 * onnx.numpy_helper.to_array(tensor), tensor.name)
        )
    onnx.save(loaded, work.scratch / "scaled.onnx")
    return work.scratch / "scaled.onnx"


def crash(model, settings, work):
    return 1 / 0


STAMP = edgekit.PassSpec(
    settings=Stamp,
    function=stamp,
    summary="write a text into the file",
    version=1,
    promise=edgekit.Promise(max_relative_error=1e-6, exact=True, max_growth=1.1),
)
SCALE = replace(STAMP, function="demo_plugin:scale")
CRASH = replace(STAMP, function=crash)
STRANGE = replace(STAMP, settings=Strange)
MUTABLE = replace(STAMP, settings=dict)
NOTHING = 7
PROFILES = Path(__file__).parent / "demo_profiles"
BROKEN = [PROFILES / "wrong" / "wrong.toml"]
'''

_ENTRY_POINTS = """\
[edgekit.passes]
stamp = demo_plugin:STAMP
scale = demo_plugin:SCALE
crash = demo_plugin:CRASH
clean = demo_plugin:STAMP
mutable = demo_plugin:MUTABLE
nothing = demo_plugin:NOTHING
absent = demo_plugin:ABSENT
missing = no_such_module:PASS
strange = demo_plugin:STRANGE
odd = no reference

[edgekit.profiles]
boards = demo_plugin:PROFILES
broken = demo_plugin:BROKEN
"""

# The passes above that are left out, each with the reason.
LEFT_OUT = {
    "clean": "edgekit has a pass of that name",
    "mutable": "settings: must be a frozen dataclass",
    "nothing": "it must be an edgekit.PassSpec, not int",
    "absent": "cannot be loaded: AttributeError",
    "strange": "settings: Strange needs types, and defaults of plain data",
    "odd": "'no reference' in entry_points.txt is not module:object",
    "missing": "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'",
}


def write_plugin(folder: Path, *, version: str = "1.4") -> Path:
    """The folder of an installed distribution ``demo-plugin``, for ``sys.path``."""
    folder.mkdir()
    (folder / "demo_plugin.py").write_text(_MODULE)
    info = folder / f"demo_plugin-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: demo-plugin\nVersion: {version}\n"
    )
    (info / "entry_points.txt").write_text(_ENTRY_POINTS)
    boards = folder / "demo_profiles"
    (boards / "wrong").mkdir(parents=True)
    shipped = ROOT / "device_profiles" / "tablet-x86.toml"
    text = shipped.read_text(encoding="utf-8")
    (boards / "board.toml").write_text(text.replace('"tablet-x86"', '"demo-board"'))
    shutil.copy(shipped, boards / "clash.toml")
    (boards / "wrong" / "wrong.toml").write_text(text.replace("cores = ", "cores = -"))
    return folder
