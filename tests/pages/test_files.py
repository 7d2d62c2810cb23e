"""Rules of the files of the pages that need no browser."""

import json
import re
import struct
from html.parser import HTMLParser

import pytest

from edgekit.config.shipped_files import get_shipped_folder
from tests.pages.page_server import PAGES

MODULES = sorted(PAGES.glob("*.js"))
STRINGS = json.loads((PAGES / "strings.en.json").read_text(encoding="utf-8"))
HTML = (PAGES / "index.html").read_text(encoding="utf-8")
LONGEST = 400


class Page(HTMLParser):
    """Tags with their attributes."""

    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def read_page():
    page = Page()
    page.feed(HTML)
    return page


def test_the_folder_is_found_where_edgekit_ships_it():
    assert get_shipped_folder("targets/pages").joinpath("index.html").is_file()


def test_scripts_and_styles_are_files_of_the_page():
    for tag, attributes in read_page().tags:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
        assert tag != "style"
        if tag == "script":
            assert (PAGES / attributes["src"]).is_file()
        if tag == "link":
            assert (PAGES / attributes["href"]).is_file()


@pytest.mark.parametrize("path", [*MODULES, PAGES / "index.html", PAGES / "page.css"], ids=str)
def test_nothing_comes_from_another_origin(path):
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    assert len(text.splitlines()) <= LONGEST


def test_users_may_zoom():
    (viewport,) = [a["content"] for _, a in read_page().tags if a.get("name") == "viewport"]
    assert "maximum-scale" not in viewport
    assert "user-scalable" not in viewport


def test_every_text_is_used_and_every_used_text_exists():
    code = "\n".join(path.read_text(encoding="utf-8") for path in MODULES)
    used = set(re.findall(r"""["'`]([a-z]+(?:_[a-z]+)*)["'`]""", code))
    built = {
        *(f"input_{kind}" for kind in ("image", "audio", "form", "text", "folder")),
        *(f"check_{s}_{p}" for s in ("same", "different") for p in ("browser", "device")),
        *("check_running", "check_unknown"),
        *(f"error_{code}" for code in re.findall(r'Failure\(\s*"([a-z_]+)"', code)),
        *(f"error_{code}" for code in re.findall(r'[:"] ?"(busy|timeout|too_large)"', code)),
        *(
            f"error_{d}_{r}"
            for d in ("camera", "microphone")
            for r in ("blocked", "missing", "used")
        ),
        *("error_failed", "error_unexpected"),
    }
    filled = set(re.findall(r"""fill\(\s*["']([a-z_]+)["']""", code))
    assert built | filled <= set(STRINGS)
    assert set(STRINGS) <= built | used


def test_the_page_itself_has_no_words():
    """Words stand in strings.en.json, except where that file could not be read."""
    without = re.sub(
        r'(?s)<noscript>.*?</noscript>|<p id="not-loaded".*?</p>|<title>.*?</title>', "", HTML
    )
    assert not re.sub(r"<[^>]*>", "", without).strip()


def test_holes_of_texts_are_filled():
    for key, text in STRINGS.items():
        assert text.count("{") == len(re.findall(r"\{[a-z]+\}", text)), key
        assert "!" not in text, key


@pytest.mark.parametrize(
    ("name", "size"), [("icon-192", 192), ("icon-512", 512), ("icon-maskable-512", 512)]
)
def test_icons_have_the_size_of_their_name(name, size):
    data = (PAGES / "icons" / f"{name}.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (size, size)


def test_the_maskable_icon_fills_its_square():
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    with image.open(PAGES / "icons" / "icon-maskable-512.png") as icon:
        pixels = icon.convert("RGBA")
    corner = pixels.getpixel((0, 0))
    assert corner[3] == 255
    # Systems cut it to a circle of 80 % of its size: nothing is drawn outside.
    border = [
        pixels.getpixel((x, y))
        for x in range(512)
        for y in range(512)
        if (x - 256) ** 2 + (y - 256) ** 2 > 205**2
    ]
    assert set(border) == {corner}
