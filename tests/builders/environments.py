"""The wheel of this checkout, and virtual environments with it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Everything that the wheel is built from.
PACKED = (
    *("pyproject.toml", "README.md", "LICENSE", ".gitignore"),
    *("edgekit", "targets", "device_profiles", "examples"),
)


def build_wheel(checkout: Path, folder: Path) -> Path:
    """Build the wheel of a checkout with the hatchling of this environment."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--quiet", "-w", str(folder), str(checkout)], check=True)
    return next(folder.glob("edgekit-*.whl"))


def make_environment(folder: Path, wheel: Path | None = None) -> Path:
    """The folder of commands of a new environment: a wheel or this checkout, without pip.

    Dependencies are those of the environment that runs the tests, by links in a folder that a .pth
    file names. Neither edgekit nor pip is among them.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    if wheel is not None:
        install = [sys.executable, "-m", "pip", f"--python={folder / 'bin' / 'python'}", "install"]
        subprocess.run([*install, "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    dependencies = folder / "dependencies"
    dependencies.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.lstrip("_").startswith(("edgekit", "pip-")) and entry.name != "pip":
            (dependencies / entry.name).symlink_to(entry)
    (packages,) = folder.glob("lib/python*/site-packages")
    paths = [dependencies, *([] if wheel else [ROOT, ROOT / "targets"])]
    (packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in paths))
    return folder / "bin"


def get_plain_environment(**changes: str) -> dict[str, str]:
    """Return the environment variables without those that point to the checkout."""
    hidden = ("PYTHON", "EDGEKIT", "VIRTUAL_ENV", "COVERAGE")
    return {k: v for k, v in os.environ.items() if not k.startswith(hidden)} | changes
