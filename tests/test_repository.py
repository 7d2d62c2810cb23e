"""Rules that a machine can check: sizes of files and folders, import cycles, links, the wheel."""

import re
import shutil
import subprocess
import zipfile
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

from tests.builders.environments import PACKED, build_wheel

ROOT = Path(__file__).parents[1]
OUTPUTS = (
    "examples/digits/build/tablet-x86/report.html",
    "examples/digits/__pycache__/train.cpython-311.pyc",
)
PACKAGES = ("edgekit", "targets", "tests", "benchmarks")
SOURCES = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))
LONGEST = 400
MOST_FILES = 25
ONE_INTERFACE = {"edgekit/conversion/onnx_to_tflite/ops"}  # one module per kind of operator


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a checkout in which an example was built."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in PACKED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, checkout / name)
    for name in OUTPUTS:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("")
    return build_wheel(checkout, tmp_path_factory.mktemp("wheel"))


def test_no_file_is_too_long():
    long = {str(p.relative_to(ROOT)): n for p in SOURCES if (n := lines(p)) > LONGEST}
    assert not long


def test_no_folder_has_too_many_files():
    counts = Counter(p.parent.relative_to(ROOT).as_posix() for p in SOURCES)
    assert not {
        name: n for name, n in counts.items() if n > MOST_FILES and name not in ONE_INTERFACE
    }


def test_no_module_imports_itself_through_others():
    graph = grimp.build_graph("edgekit", "edgekit_agent", cache_dir=None)
    imports = {m: graph.find_modules_directly_imported_by(m) - {m} for m in graph.modules}
    TopologicalSorter(imports).prepare()


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_the_wheel_contains_the_agent_the_profiles_the_examples_and_every_other_file(wheel):
    shipped = set(zipfile.ZipFile(wheel).namelist())
    for package, home, inside in (
        ("edgekit", ROOT, ""),
        ("edgekit_agent", ROOT / "targets", ""),
        ("device_profiles", ROOT, "edgekit/"),
        ("examples", ROOT, "edgekit/"),
        ("linux", ROOT / "targets", "edgekit/targets/"),
        ("pages", ROOT / "targets", "edgekit/targets/"),
        ("web", ROOT / "targets", "edgekit/targets/"),
    ):
        files = (p for p in (home / package).rglob("*") if p.is_file())
        ignored = {"__pycache__", "build"}
        wanted = {f"{inside}{p.relative_to(home)}" for p in files if not ignored & set(p.parts)}
        assert wanted
        assert not wanted - shipped


def test_the_wheel_contains_nothing_else(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    extra = {top for top in tops if not top.endswith(".dist-info")}
    assert extra == {"edgekit", "edgekit_agent"}


def test_the_wheel_contains_the_examples_without_outputs(wheel):
    named = [name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("edgekit/ex")]
    tracked = subprocess.run(
        ["git", "ls-files", "examples"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert sorted(named) == [f"edgekit/{name}" for name in sorted(tracked.stdout.split())]


def test_the_command_that_runs_the_tests_is_the_same_everywhere():
    named = {
        name: re.findall(r"pytest -n .*", (ROOT / name).read_text(encoding="utf-8"))
        for name in ("README.md", "CONTRIBUTING.md", ".ci/run")
    }
    (commands,) = {tuple(found) for found in named.values()}
    assert len(commands) == 1, named


def test_every_file_that_the_readme_names_exists():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"\]\(([^)#]+)\)", readme)
    assert named
    for target in named:
        assert (ROOT / target).exists(), target
