"""Development pages name files and names that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("extend.md", "architecture.md")
PATH = re.compile(
    r"`((?:edgekit|targets|device_profiles|tests|docs|benchmarks|examples)/[^\s`]*|pyproject\.toml)`"
)
# "`Name` in `file`" and "`Name` and `other` in `file`"
NAMED = re.compile(r"((?:`\w+`(?:, | and )?)+)\s+in\s+`([\w/]+\.py)`")


def read(page):
    return (ROOT / "docs" / "development" / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_every_path_on_a_page_exists(page):
    paths = PATH.findall(read(page))
    assert len(paths) > 5
    assert [p for p in paths if not (ROOT / p).exists()] == []


def test_every_name_that_the_page_places_in_a_file_is_there():
    found = [
        (name, file)
        for names, file in NAMED.findall(read("extend.md"))
        for name in re.findall(r"\w+", names.replace(" and ", " "))
    ]
    assert len(found) > 10
    missing = [
        f"{name} in {file}"
        for name, file in found
        if not re.search(rf"\b{name}\b", (ROOT / file).read_text(encoding="utf-8"))
    ]
    assert missing == []
