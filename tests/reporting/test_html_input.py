"""Reports of damaged, hostile and incomplete build folders."""

from __future__ import annotations

import dataclasses
import html
import re

import pytest

from edgekit.errors import ExitCode, UserError
from edgekit.reporting import plots
from edgekit.reporting.html import write_report
from tests.builders.build_folders import (
    begin,
    build_folder,
    candidate,
    digest,
    measurement,
    page,
    usual_lines,
    verdict,
)

HOSTILE = "<script>alert('x')</script>\"&<img src=x onerror=alert(1)>"


def test_hostile_text_stays_text(tmp_path):
    lines = usual_lines()
    lines[0]["device"] = HOSTILE
    lines[0]["machine"] = {HOSTILE: HOSTILE}
    lines[3]["name"] = HOSTILE
    lines[3]["steps"][0]["name"] = HOSTILE
    lines[3]["verdict"]["checks"][0]["note"] = HOSTILE
    lines[4]["verdict"]["reasons"] = [HOSTILE]
    lines[3]["measurements"][0]["source"] = f"device:{HOSTILE}"
    lines[5]["reason"] = HOSTILE

    _, elements, text = page(build_folder(tmp_path, lines))

    assert HOSTILE not in text
    assert not {"script", "img"} & {tag for tag, _ in elements}
    assert not any(name.startswith("on") for _, attributes in elements for name in attributes)
    assert text.count(html.escape("<script>alert(")) >= 8
    assert any("default-src 'none'" in (a.get("content") or "") for _, a in elements)


def test_only_the_last_build_of_the_file_is_shown(tmp_path):
    earlier = [begin(id="first"), candidate("forgotten", baseline=True)]

    words, _, _ = page(build_folder(tmp_path, earlier + usual_lines()))

    assert "forgotten" not in words
    assert "20261123T140211-7f3a" in words


def test_a_build_that_packed_nothing_shows_the_nearest_candidate(tmp_path):
    lines = usual_lines()
    lines[3]["chosen"] = False
    lines[3]["verdict"] = dataclasses.asdict(verdict(1.6, None, 13_377))
    lines[2]["verdict"] = dataclasses.asdict(verdict(1.6, 300.0, 40_010))

    words, _, _ = page(build_folder(tmp_path, lines, packed=None))
    top = words[: words.index("Candidates")]

    assert "No candidate passes" in top
    assert "static-int8" in top
    assert "1.600 over by 0.6" in top


def test_the_nearest_candidate_is_the_one_that_the_build_named(tmp_path):
    lines = usual_lines()
    lines[3] |= {"chosen": False, "verdict": dataclasses.asdict(verdict(1.6, None, 13_377))}
    lines[2] |= {"nearest": True, "verdict": dataclasses.asdict(verdict(1.6, 300.0, 40_010))}

    words, _, _ = page(build_folder(tmp_path, lines, packed=None))

    assert re.search(r"Nearest: \w cleaned", words)


def test_of_candidates_that_fail_as_many_checks_the_one_that_misses_by_least_is_nearest(tmp_path):
    lines = usual_lines()
    lines[3] |= {"chosen": False, "verdict": dataclasses.asdict(verdict(9.6, None, 13_377))}
    lines[2] |= {"verdict": dataclasses.asdict(verdict(1.6, None, 40_010))}

    words, _, _ = page(build_folder(tmp_path, lines, packed=None))

    assert re.search(r"Nearest: \w cleaned", words)


def test_the_plot_shows_the_latency_that_candidates_are_chosen_by(tmp_path):
    times = measurement(0.037, 13_377, 787).times
    _, _, text = page(build_folder(tmp_path))

    assert f": {times.quiet_p50_ms:.4f} ms, " in text
    assert f": {times.p95_ms:.4f} ms, " not in text


def test_the_manifest_of_an_earlier_build_is_not_taken_for_this_one(tmp_path):
    words, _, _ = page(build_folder(tmp_path, packed="something else"))

    assert "the folder contains no bundle of this build" in words
    assert digest("something else") not in words


def test_a_candidate_that_was_packed_without_passing_has_its_manifest_shown(tmp_path):
    lines = usual_lines()
    for line in lines:
        line.pop("chosen", None)

    words, _, _ = page(build_folder(tmp_path, lines))

    assert "the folder contains no bundle of this build" not in words
    assert "seed 11" in words


def test_a_line_torn_by_a_crash_of_an_earlier_build_does_not_matter(tmp_path):
    folder = build_folder(tmp_path)
    whole = (folder / "results.jsonl").read_text(encoding="utf-8")
    torn = whole[: len(whole) // 2]
    (folder / "results.jsonl").write_text(f"{torn}\n{whole}", encoding="utf-8")

    words, _, _ = page(folder)

    assert digest("static-int8") in words


def test_a_build_without_candidates_still_gives_a_page(tmp_path):
    words, _, _ = page(build_folder(tmp_path, [begin()], packed=None))

    assert "Not judged" in words
    assert "No candidate of this build was judged." in words


def test_an_interval_without_an_end_is_called_unbounded(tmp_path):
    lines = usual_lines()
    lines[3]["comparison"]["interval"] = [-0.25, float("inf")]

    words, _, text = page(build_folder(tmp_path, lines))

    assert "−0.250 to unbounded" in words
    assert not re.search(r'(cx|cy|x|y|width|d)="[^"]*(nan|inf)', text)


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    folder = build_folder(tmp_path)
    with (folder / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "candidate", "key": "4f')

    words, _, _ = page(folder)

    assert "static-int8" in words


def test_a_folder_without_a_build_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a build folder") as caught:
        write_report(tmp_path)

    assert "edgekit build" in caught.value.hint
    assert caught.value.exit_code == ExitCode.BAD_REQUEST
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_line_is_named_by_its_number(tmp_path):
    lines = usual_lines()
    lines[2]["model"]["bytes"] = "many"

    with pytest.raises(UserError, match=r"results\.jsonl:3: candidate\.model\.bytes: "):
        write_report(build_folder(tmp_path, lines))


def test_a_file_in_which_no_build_begins_is_refused(tmp_path):
    with pytest.raises(UserError, match="the file contains no build"):
        write_report(build_folder(tmp_path, usual_lines()[1:]))


def test_a_damaged_manifest_is_refused(tmp_path):
    folder = build_folder(tmp_path)
    (folder / "manifest.json").write_text("{}", encoding="utf-8")

    with pytest.raises(UserError, match=r"manifest\.json"):
        write_report(folder)


@pytest.mark.parametrize(
    ("figures", "limit", "log"),
    [
        ([1.0, 2.0], None, False),
        ([0.0, 0.0], None, False),
        ([3.0], 4.0, False),
        ([0.1, 9], 20, True),
    ],
)
def test_an_axis_shows_all_its_figures_and_some_ticks(figures, limit, log):
    axis = plots.build_axis(figures, limit, start=0, end=100)

    assert all(axis.contains(f) for f in figures)
    assert axis.log is log
    assert 2 <= len(axis.ticks) <= 9
    assert all(0 <= tick.at <= 100 for tick in axis.ticks)


def test_many_raw_values_are_thinned_but_keep_both_ends():
    values = tuple(float(v) for v in range(5000))

    strip = plots.Strip(letter="A", title="A", role="passes", values=values, p50=1, p95=2)

    assert len(strip.drawn_values) == 160
    assert (strip.drawn_values[0], strip.drawn_values[-1]) == (0.0, 4999.0)
