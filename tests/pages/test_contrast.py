"""Contrast of the colors in page.css, light and dark, as WCAG 2.2 level AA asks."""

import re

import pytest

from tests.pages.page_server import PAGES

CSS = (PAGES / "page.css").read_text(encoding="utf-8")
COLORS = (PAGES / "colors.js").read_text(encoding="utf-8")
TEXT, GRAPHICS = 4.5, 3.0
PAIRS = [
    *[("text", behind, TEXT) for behind in ("background", "surface", "accent-soft")],
    *[("quiet", behind, TEXT) for behind in ("background", "surface", "accent-soft")],
    *[("accent", behind, TEXT) for behind in ("background", "surface", "accent-soft")],
    *[(name, "surface", TEXT) for name in ("good", "problem")],
    *[(name, f"{name}-soft", TEXT) for name in ("warning", "problem")],
    ("on-accent", "accent", TEXT),
    *[("focus", behind, GRAPHICS) for behind in ("background", "surface", "problem-soft")],
    *[("edge", "surface", GRAPHICS), ("bar", "surface", GRAPHICS), ("bar", "track", GRAPHICS)],
]


def read_colors(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))


def compute_luminance(color: str) -> float:
    parts = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def compute_contrast(one: str, other: str) -> float:
    low, high = sorted((compute_luminance(one), compute_luminance(other)))
    return (high + 0.05) / (low + 0.05)


ROOTS = re.findall(r":root \{([^}]*)\}", CSS)
SCHEMES = {"light": read_colors(ROOTS[0]), "dark": read_colors(ROOTS[1])}


def test_contrast_is_computed_as_defined():
    assert compute_contrast("#000000", "#ffffff") == pytest.approx(21)
    assert compute_contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("front", "behind", "least"), PAIRS)
def test_colors_can_be_told_apart(scheme, front, behind, least):
    colors = SCHEMES[scheme]
    assert compute_contrast(colors[front], colors[behind]) >= least


def test_both_schemes_have_the_same_colors():
    assert set(SCHEMES["light"]) == set(SCHEMES["dark"])
    # Colors stand in the variables alone; the picture of a camera lies on black.
    rest = re.sub(r":root \{[^}]*\}", "", CSS)
    assert re.findall(r"#[0-9a-f]{3,8}\b", rest) == ["#000"]


def test_the_frame_of_the_browser_has_the_color_of_the_page():
    html = (PAGES / "index.html").read_text(encoding="utf-8")
    framed = re.findall(r'theme-color" content="(#[0-9a-f]{6})" media="\(.*: (\w+)\)', html)
    assert {scheme: color for color, scheme in framed} == {
        scheme: colors["background"] for scheme, colors in SCHEMES.items()
    }


def test_names_over_the_photo_can_be_read():
    (outline,) = re.findall(r'OUTLINE = "(#[0-9a-f]{6})"', COLORS)
    colors = re.findall(r'"(#[0-9a-f]{6})"', COLORS.split("];")[0])
    assert len(colors) == len(set(colors)) >= 12
    for color in colors:
        assert compute_contrast(outline, color) >= TEXT, color
