"""Commands in the documentation are valid; those of README, tutorials and a few more pages run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from docs.generate.command_line import get_help, iter_commands
from edgekit.compression.pass_specs import PASSES
from tests.builders.fixtures import copy_cache_key
from tests.builders.servers import running_sshd, sshd

__all__ = ["running_sshd", "sshd"]

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RUN = [
    *(ROOT / "README.md", ROOT / "docs/quickstart.md"),
    *sorted((ROOT / "docs/tutorials").glob("*.md")),
    ROOT / "docs/how-to/answers.md",
    ROOT / "docs/how-to/apps.md",
    ROOT / "docs/how-to/app-in-a-browser.md",
    ROOT / "docs/reference/api.md",
    ROOT / "docs/reference/metrics.md",
]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?P<mark><!-- not run: [^\n]+ -->\n)?(?P<indent>^ *)```(?P<info>[^\n]*)\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
LANGUAGES = {"bash", "python", "toml", "text", "json"}
COMMANDS = {" ".join(words) for words in iter_commands()}
SECONDS = 600  # of a block; the machine may be busy


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    title: str
    text: str
    skipped: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def read_blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [
        Block(
            page=path.relative_to(ROOT).as_posix(),
            line=text.count("\n", 0, found.start("info")) + 1,
            language=found["info"].partition(" ")[0],
            title=(re.findall(r'title="([^"]+)"', found["info"]) or [""])[0],
            text=textwrap.dedent(found["text"]),
            skipped=bool(found["mark"]),
        )
        for found in FENCE.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in read_blocks(page)]
SHELL = [block for block in BLOCKS if block.language == "bash"]


@pytest.fixture
def place(shared_cache, tmp_path, monkeypatch):
    """A folder with the examples, and a separate home, keys and device."""
    shutil.copytree(
        ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("build")
    )
    for name, value in {
        "EDGEKIT_CACHE": shared_cache,
        "EDGEKIT_CONFIG": copy_cache_key(tmp_path / "config"),
        "EDGEKIT_HOME": tmp_path / "device",
        "HOME": tmp_path,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


@pytest.fixture
def bedside(sshd, tmp_path, monkeypatch):
    """The device of the tutorials: a server of this machine with a home of its own."""
    config = sshd.config(tmp_path / "bedside_config", host="bedside")
    monkeypatch.setenv("EDGEKIT_SSH_CONFIG", str(config))


@pytest.mark.parametrize("page", RUN, ids=lambda path: path.stem)
def test_the_commands_of_a_page_run_in_order(page, place, request):
    if page.stem == "ssh":
        request.getfixturevalue("bedside")
    printed = []
    for block in read_blocks(page):
        if block.title and block.language in {"python", "toml"}:
            (place / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "bash" and not block.skipped:
            printed += run(block, place).splitlines()
        elif block.language == "text" and not block.title:
            assert_same_columns(block, printed)


def assert_same_columns(sample: Block, printed: list[str]) -> None:
    """Check that tables of a sample have the columns, and lines the labels, that were printed."""
    labels = {tuple(line.split()[:1]) for line in printed}
    head = sample.text.splitlines()[0].split()
    assert head in [line.split() for line in printed] or ":" in head[0], str(sample)
    named = {tuple(line.split()[:1]) for line in sample.text.splitlines() if ":" in line}
    assert named <= labels, f"{sample}: {sorted(named - labels)}"


def run(block: Block, folder: Path) -> str:
    """Run a block as a user would, but for pip, and return its output: everything is installed."""
    script = f"set -euo pipefail\npip() {{ :; }}\n{block.text}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, f"{block}\n{done.stderr}"
    return done.stdout


def test_every_block_says_its_language():
    assert not [str(b) for b in BLOCKS if b.language not in LANGUAGES]


def test_blocks_that_are_left_out_are_few_and_on_pages_that_run():
    skipped = [b for b in SHELL if b.skipped]
    run_pages = {path.relative_to(ROOT).as_posix() for path in RUN}
    assert not [str(b) for b in skipped if b.page not in run_pages]
    assert len(skipped) < len([b for b in SHELL if b.page in run_pages]) / 3


def list_edgekit_lines(block: Block) -> list[list[str]]:
    text = re.sub(r"\\\n", " ", block.text)
    lines = [*text.splitlines(), *re.findall(r"\$\(([^)]*)\)", text)]
    parts = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [words for words in parts if words[:1] == ["edgekit"]]


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_the_commands_of_a_block_exist_with_their_options(block):
    for words in list_edgekit_lines(block):
        name = " ".join(words[1:3]) if " ".join(words[1:3]) in COMMANDS else words[1]
        assert name in COMMANDS, words
        known = re.findall(r"(?<![\w-])--?[a-zA-Z][a-z-]*", get_help(*name.split()))
        assert not {w for w in words[2:] if w.startswith("-")} - set(known), words


def list_offered(page: str) -> set[str]:
    """Passes that a page shows how to offer by an entry point."""
    tables = [tomllib.loads(b.text) for b in BLOCKS if b.page == page and b.language == "toml"]
    points = [t.get("project", {}).get("entry-points", {}) for t in tables]
    return {name for groups in points for name in groups.get("edgekit.passes", {})}


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_the_passes_of_a_block_exist(block):
    for words in list_edgekit_lines(block):
        named = [words[i + 1].partition(":")[0] for i, w in enumerate(words) if w == "--step"]
        if words[1] in {"apply", "passes"}:
            named += [word for word in words[2:3] if not word.startswith("-")]
        assert set(named) <= set(PASSES) | list_offered(block.page), words


def test_every_extra_that_pip_is_told_of_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {
        extra.strip()
        for page in PAGES
        for extras in re.findall(r"(?:\.|edgekit)\[([a-z, ]+)\]'", page.read_text("utf-8"))
        for extra in extras.split(",")
    }
    assert named
    assert named <= set(project["optional-dependencies"])


def test_every_command_is_shown_in_the_documentation():
    shown = {
        " ".join(words[1 : 1 + length])
        for block in SHELL
        for words in list_edgekit_lines(block)
        for length in (1, 2)
    }
    assert not COMMANDS - shown - {"devices list"}  # "devices" lists them
