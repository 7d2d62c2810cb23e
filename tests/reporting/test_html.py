"""The report of a build: figures, missing figures, and escaped text."""

from __future__ import annotations

import dataclasses
import re

from edgekit.bundle.manifest import REPORT
from edgekit.reporting import plots
from edgekit.reporting.html import write_report
from edgekit_agent.codec import encode
from tests.builders.build_folders import (
    CLEAN,
    assert_closed,
    begin,
    build_folder,
    candidate,
    digest,
    measurement,
    page,
    usual_lines,
    verdict,
)


def test_the_report_lies_in_the_build_folder_and_is_complete_in_itself(tmp_path):
    path = write_report(build_folder(tmp_path))
    text = path.read_text(encoding="utf-8")

    assert path == tmp_path / REPORT
    assert text.startswith("<!doctype html>")
    assert not re.search(r"https?://|<script|<link|@import|url\(|src=", text)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "manifest.json",
        "report.html",
        "results.jsonl",
    ]


def test_every_opened_element_is_closed(tmp_path):
    assert_closed(write_report(build_folder(tmp_path)).read_text(encoding="utf-8"))


def test_the_verdict_comes_first_with_every_check(tmp_path):
    words, _, _ = page(build_folder(tmp_path))
    top = words[: words.index("Candidates")]

    assert "No check fails; of 4 checks 1 not measured" in top
    assert "tablet-x86" in top
    assert "static-int8" in top
    assert "Accuracy drop points 1 0.5000" in top
    assert "Latency, 95th percentile ms 100 not measured" in top
    assert "no device was given: --on HOST measures it" in top


def test_a_build_whose_checks_all_hold_says_so(tmp_path):
    lines = usual_lines()
    lines[3]["verdict"] = dataclasses.asdict(verdict(0.5, 0.04, 13_377))

    words, _, _ = page(build_folder(tmp_path, lines))

    assert "Passes; every check holds" in words


def test_a_candidate_packed_although_it_fails_is_marked_as_failing(tmp_path):
    lines = usual_lines()
    lines[3]["verdict"] = dataclasses.asdict(verdict(1.7, 0.04, 13_377))

    words, _, _ = page(build_folder(tmp_path, lines))

    assert "Does not pass" in words[: words.index("Candidates")]


def test_every_candidate_shows_its_figures(tmp_path):
    words, _, _ = page(build_folder(tmp_path))

    assert "original" in words
    assert "39.5 KiB" in words
    assert "13.1 KiB" in words
    assert "98.87 % 788/797" in words
    assert "98.75 % 787/797" in words
    assert "0.125 −0.250 to 0.500" in words
    assert "24 of 797 predictions changed" in words
    assert "not proven: needs about 2,480 samples" in words
    assert "throttled" in words
    assert "slower than the original in this runtime" in words
    assert "Accuracy drop: 2.510 of 1 points" in words
    assert "fp16 no kernel for it on this device" in words


def test_latency_is_shown_with_the_interval_that_was_computed(tmp_path):
    times = measurement(0.037, 13_377, 787).times
    words, _, _ = page(build_folder(tmp_path))

    low, high = times.p95_interval_ms
    assert f"{times.p95_ms:.4f} {low:.4f} to {high:.4f} build host" in words
    assert f"{times.p50_ms:.4f}" in words


def test_provenance_names_digests_settings_seed_versions_and_machine(tmp_path):
    words, _, _ = page(build_folder(tmp_path))

    assert digest("original") in words
    assert digest("static-int8") in words
    assert digest("key of static-int8") in words
    assert "percentile 99.99 max_samples 200" in words
    assert "seed 11" in words
    assert "onnx 1.23.2" in words
    assert "avx2, avx512_vnni" in words
    assert "governor unknown" in words


def test_a_device_measurement_goes_before_that_of_the_host_and_is_named(tmp_path):
    lines = usual_lines()
    for line in lines[1:5]:
        slow = measurement(4.2, 13_377, 780, source="device:ward-3")
        line["measurements"].append(encode(slow))

    words, _, _ = page(build_folder(tmp_path, lines))

    assert "97.87 % 780/797" in words
    assert "device ward-3" in words
    assert "build host" in words
    assert "latency, p50 of the fastest process, ms, device ward-3" in words


def test_a_missing_figure_says_not_measured_and_is_never_zero(tmp_path):
    bare = measurement(0, 40_403, 0, scores=(), latency=(), peak_rss_bytes=None)
    lines = [
        begin(),
        candidate("original", baseline=True, measurements=[bare]),
        candidate("cleaned", [CLEAN]),
    ]

    words, _, _ = page(build_folder(tmp_path, lines, packed=None))
    row = words[words.index("B cleaned") : words.index("95 % confidence intervals")]

    assert "Latency was not measured." in words
    assert row.count("not measured") == 6
    assert not re.search(r"(?<![\d.])0(\.0*)? ?(ms|%|MiB|KiB|points|of)", row)


def test_a_candidate_without_a_transfer_size_draws_no_bar_for_it():
    row = plots.Bar(letter="A", title="A", role="passes", model=1.0, transfer=None)

    drawn = plots.build_bars([row], unit="MiB", model_limit=2.0, transfer_limit=None)

    assert drawn is not None
    assert drawn.bars[0].transfer is None
    assert drawn.x.contains(2.0), "a limit that is near is in sight"


def test_a_limit_far_away_does_not_squeeze_the_plot(tmp_path):
    words, _, _ = page(build_folder(tmp_path))

    assert "The limit of the model size, 51,200 KiB, is outside the plot." in words


def test_the_limit_of_the_device_is_not_drawn_beside_latencies_of_this_machine(tmp_path):
    words, _, _ = page(build_folder(tmp_path))

    assert "limit of latency" not in words


def test_every_timed_candidate_is_in_every_plot(tmp_path):
    _, elements, text = page(build_folder(tmp_path))

    assert sum(tag == "circle" for tag, _ in elements) == 4
    assert text.count('class="rug"') == 4
    assert text.count('class="solid"') == 4
    assert not re.search(r'(cx|cy|x|y|width|d)="[^"]*(nan|inf)', text)


def test_a_check_of_accuracy_is_called_by_the_name_of_its_metric(tmp_path):
    lines = usual_lines()
    checked = dataclasses.asdict(verdict(0.5, 0.04, 13_377))
    for check in checked["checks"]:
        if check["name"] == "accuracy_drop_points":
            check.update(name="cer_loss_points", metric="cer")
    lines[3]["verdict"] = checked
    words, _, _ = page(build_folder(tmp_path, lines))

    assert "Loss of cer points 1 0.5000" in words[: words.index("Candidates")]
