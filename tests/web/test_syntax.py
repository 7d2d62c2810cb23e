"""Modules of the page are plain ES modules that import each other alone."""

from __future__ import annotations

import re
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.web.node_calls import MODULES, find_node

_MODULES = sorted(MODULES.rglob("*.js"))
_IMPORT = re.compile(r"""(?:^|\n)(?:import|export)\s[^;]*?from\s+["']([^"']+)["']""")


@pytest.mark.parametrize("module", _MODULES, ids=lambda path: path.name)
def test_modules_have_valid_syntax(module: Path) -> None:
    """Each file is parsed by node as an ES module."""
    done = subprocess.run(
        [find_node(), "--input-type=module", "--check"],
        input=module.read_bytes(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("module", _MODULES, ids=lambda path: path.name)
def test_modules_import_only_modules_of_theirs(module: Path) -> None:
    """There is no other dependency, and every imported file exists."""
    for name in _IMPORT.findall(module.read_text()):
        assert name.startswith(("./", "../")), name
        target = (module.parent / name).resolve()
        assert target.is_file(), name
        assert target.is_relative_to(MODULES), name


def test_modules_do_not_import_each_other_in_circles() -> None:
    """A module can be read after those that it imports; types in comments do not count."""
    graph = {
        path: [(path.parent / name).resolve() for name in _IMPORT.findall(path.read_text())]
        for path in _MODULES
    }
    order = TopologicalSorter(graph)
    assert len(list(order.static_order())) == len(_MODULES)


@pytest.mark.parametrize("module", _MODULES, ids=lambda path: path.name)
def test_exported_functions_state_their_types(module: Path) -> None:
    """A comment before each exported function types its parameters."""
    lines = module.read_text().split("\n")
    for number, line in enumerate(lines):
        found = re.match(r"export (?:async )?function (\w+)\(([^)]*)", line)
        if not found:
            continue
        assert lines[number - 1].endswith("*/"), f"{found[1]} has no comment"
        start = max(k for k in range(number) if lines[k].startswith("/**"))
        comment = "\n".join(lines[start:number])
        takes = bool(found[2].strip()) or line.rstrip().endswith("(")
        assert not takes or "@param" in comment or "@type" in comment, found[1]
