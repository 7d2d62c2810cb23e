"""The site builds without a warning, loads nothing from other hosts, and is up to date."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgekit
from docs.generate import PAGES, write_pages
from docs.generate.command_line import iter_commands
from docs.generate.layers import read_layers
from docs.generate.settings import find_table, read_attribute_docstrings
from edgekit.config.profile import DeviceProfile
from edgekit.config.project import Project
from edgekit.packaging.app_settings import AppSettings
from tests.test_plain_words import FORBIDDEN

ROOT = Path(__file__).parents[2]
# What a browser loads by itself; a link that a reader follows is not among them.
LOADED = re.compile(r'<(?:script|img|iframe)\b[^>]*\bsrc="([^"]*)"|<link\b[^>]*\bhref="([^"]*)"')


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_of_the_site_loads_files_of_the_site_only(site):
    pages = [p for p in site.rglob("*.html") if p.name != "404.html"]  # its links are absolute
    assert len(pages) > len(PAGES)
    for page in pages:
        found = [a or b for a, b in LOADED.findall(page.read_text(encoding="utf-8"))]
        assert found
        for target in found:
            path = target.partition("?")[0].partition("#")[0]
            assert (page.parent / path).exists(), f"{page.relative_to(site)}: {target}"


def test_the_styles_of_the_site_load_nothing_from_another_host(site):
    styles = list(site.rglob("*.css"))
    assert styles
    for path in styles:
        assert not re.search(r"url\(\s*[\"']?(?:https?:)?//", path.read_text(encoding="utf-8")), (
            path
        )


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_the_code_says(name):
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), "run: python -m docs.generate"


def test_writing_the_pages_again_changes_those_that_differ(tmp_path):
    assert write_pages(tmp_path) == list(PAGES)
    (tmp_path / "reference" / "cli.md").write_text("older")
    assert write_pages(tmp_path) == ["reference/cli.md"]
    assert write_pages(tmp_path) == []


def test_every_command_has_a_section():
    page = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    headings = {line.lstrip("# ") for line in page.splitlines() if line.startswith("##")}
    assert headings == {f"edgekit {' '.join(words)}" for words in iter_commands()}


def test_every_file_of_the_repository_that_a_page_names_is_there():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    named = {
        name
        for page in pages
        for name in re.findall(
            r"`((?:edgekit|targets|tests|benchmarks|docs|examples|device_profiles)/[\w/.-]*)`",
            page.read_text(encoding="utf-8"),
        )
    }
    assert named
    assert not sorted(name for name in named if not (ROOT / name).exists())


# Written by benchmarks, or with the comments of device profiles.
WRITTEN = {"operators.md", "compatibility.md", "devices.md"}


def test_pages_use_plain_words_and_american_spelling():
    pages = [*ROOT.glob("[RCS]*.md"), *(ROOT / "docs").rglob("*.md")]
    found = [
        f"{page.relative_to(ROOT)}: {match.group()!r} in {line!r}"
        for page in pages
        if page.name not in {*WRITTEN, "CHANGELOG.md"}
        for line in page.read_text(encoding="utf-8").splitlines()
        if (match := FORBIDDEN.search(re.sub(r"`[^`]*`", "", line)))
    ]
    assert not found


def test_the_glossary_has_each_term_once_in_order_with_its_source():
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    entries = re.findall(r"^(\S.*)\n: {3}(.*(?:\n {4}.*)*)", text, re.MULTILINE)
    terms = [term.casefold() for term, _ in entries]
    assert len(terms) > 30
    assert terms == sorted(set(terms))
    assert not [
        term for term, meaning in entries if not re.search(r"Source: \S", " ".join(meaning.split()))
    ]


def test_every_package_of_the_layers_is_explained():
    page = (ROOT / "docs/development/architecture.md").read_text(encoding="utf-8")
    packages = {p for row in read_layers() for p in row if (ROOT / p.replace(".", "/")).is_dir()}
    assert len(packages) > 10
    assert not [p for p in packages if f"`{p.replace('.', '/')}/`" not in page]


def test_the_readme_is_one_screen():
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    first_result = next(n for n, line in enumerate(readme) if line.startswith("| I have"))
    assert first_result < 40
    assert len(readme) < 75


def test_every_public_name_is_on_the_page_of_the_api():
    page = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    shown = re.findall(r"^::: edgekit\.(\w+)$", page, re.MULTILINE)
    assert sorted(shown) == sorted(set(edgekit.__all__) - {"__version__"})


def tables(kind):
    yield kind
    for field in kind.model_fields.values():
        inner = find_table(field.annotation)
        if inner is not None:
            yield from tables(inner)


@pytest.mark.parametrize("kind", [*tables(Project), *tables(DeviceProfile), *tables(AppSettings)])
def test_every_key_of_a_file_has_a_meaning(kind):
    plain = {n for n, f in kind.model_fields.items() if find_table(f.annotation) is None}
    assert set(read_attribute_docstrings(kind)) == plain
