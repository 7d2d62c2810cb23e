"""Rules of the house that a machine can check: sizes of files, what the docs say, what ships."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("edgekit", "targets", "device_profiles")
SOURCES = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))
LONGEST = 400


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--quiet", "-w", str(folder), str(ROOT)], check=True)
    return next(folder.glob("edgekit-*.whl"))


def test_no_file_is_longer_than_a_reader_can_hold():
    long = {str(p.relative_to(ROOT)): n for p in SOURCES if (n := lines(p)) > LONGEST}
    assert not long


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_the_wheel_carries_the_agent_the_profiles_and_every_other_file(wheel):
    shipped = set(zipfile.ZipFile(wheel).namelist())
    for package, home in (
        ("edgekit", ROOT),
        ("edgekit_agent", ROOT / "targets"),
        ("device_profiles", ROOT),
    ):
        files = (p for p in (home / package).rglob("*") if p.is_file())
        wanted = {str(p.relative_to(home)) for p in files if "__pycache__" not in p.parts}
        assert wanted
        assert not wanted - shipped


def test_the_wheel_carries_nothing_else(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    extra = {top for top in tops if not top.endswith(".dist-info")}
    assert extra == {"edgekit", "edgekit_agent", "device_profiles"}


def test_every_file_that_the_readme_names_is_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"\]\(([^)#]+)\)", readme)
    assert named
    for target in named:
        assert (ROOT / target).exists(), target
