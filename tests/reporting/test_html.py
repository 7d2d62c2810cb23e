"""The report of a build: figures appear, missing ones say so, hostile text stays text."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from edgekit.bundle.manifest import BundledFile, Manifest, RuntimeUse, Tensor
from edgekit.bundle.results import Check, Measurement, Verdict
from edgekit.config.profile import load_profile
from edgekit.errors import ExitCode, UserError
from edgekit.recipe import Clean, QuantizeDynamic, QuantizeStatic, Step
from edgekit.reporting import plots
from edgekit.reporting.html import REPORT, write_report
from edgekit_agent.codec import encode
from edgekit_agent.results import Latency, Tally

HOSTILE = "<script>alert('x')</script>\"&<img src=x onerror=alert(1)>"


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def latency(middle_ms, *, seed, runs=600, doubts=()):
    values = middle_ms * np.random.default_rng(seed).lognormal(0, 0.06, runs)
    return Latency(tuple(float(v) for v in values), 2, 40, 3.5, doubts)


def tally(correct, n=797):
    return Tally("top1", n, correct, "f" * (n // 4 + 1), tuple([1] * n))


def measurement(middle_ms, size, correct, *, source="host", **changes):
    facts = {
        "source": source,
        "tally": tally(correct),
        "model_bytes": size,
        "transfer_bytes": int(size * 0.8),
        "latency": (latency(middle_ms, seed=1), latency(middle_ms * 1.01, seed=2)),
        "peak_rss_bytes": 68_000_000 + 3 * size,
        "runtime": "onnxruntime",
        "runtime_version": "1.32.0",
    }
    return Measurement(**{**facts, **changes})


def verdict(drop, p95, size, *, reasons=()):
    mib = 1024 * 1024
    figures = [
        ("model_mib", 50.0, size / mib),
        ("transfer_mib", 50.0, 0.8 * size / mib),
        ("latency_p95_ms", 100.0, p95),
        ("accuracy_drop_points", 1.0, drop),
    ]
    return Verdict(
        checks=tuple(
            Check(
                name=name,
                limit=limit,
                measured=value,
                outcome="unmeasured" if value is None else "holds" if value <= limit else "fails",
                note="" if value is not None else "no device was given: --on HOST measures it",
            )
            for name, limit, value in figures
        ),
        reasons=reasons,
    )


def candidate(name, steps=(), *, size=40_403, measurements=(), drop=None, judged=None, **changes):
    line = {
        "kind": "candidate",
        "key": digest(f"key of {name}"),
        "name": name,
        "steps": [step.as_json() for step in steps],
        "model": {"digest": digest(name), "bytes": size, "format": "onnx"},
        "measurements": [encode(m) for m in measurements],
        "comparison": drop,
        "verdict": None if judged is None else dataclasses.asdict(judged),
        "chosen": False,
        "packed": bool(changes.get("chosen")),
        "baseline": False,
    }
    return {**line, **changes}


def compared(points, low, high, *, flips=3, proven=True, needed=None):
    return {
        "drop_points": points,
        "interval_points": [low, high],
        "worst_points": high,
        "margin_points": 1.0,
        "lost": 2,
        "won": 1,
        "flips": flips,
        "n": 797,
        "proven": proven,
        "needed_samples": needed,
    }


def begin(**changes):
    line = {
        "kind": "build",
        "id": "20261123T140211-7f3a",
        "started": "2026-11-23T14:02:11+00:00",
        "device": "tablet-x86",
        "source_digest": digest("original"),
        "machine": {"cpu": "Xeon", "cores": 2, "isa": ["avx2", "avx512_vnni"], "governor": None},
    }
    return {**line, **changes}


CLEAN = Step(name="clean", version=1, settings=Clean())
STATIC = Step(name="quantize", version=1, settings=QuantizeStatic(max_samples=200))
DYNAMIC = Step(name="quantize-dynamic", version=1, settings=QuantizeDynamic())


def usual_lines():
    """A build of four candidates, as the pipeline writes it."""
    wide = verdict(2.51, None, 14_100, reasons=("slower than the original in this runtime",))
    return [
        begin(),
        candidate("original", measurements=[measurement(0.061, 40_403, 788)], baseline=True),
        candidate(
            "cleaned",
            [CLEAN],
            size=40_010,
            measurements=[measurement(0.058, 40_010, 788)],
            drop=compared(0.0, -0.2, 0.2, flips=0),
            judged=verdict(0.2, None, 40_010),
        ),
        candidate(
            "static-int8",
            [CLEAN, STATIC],
            size=13_377,
            measurements=[measurement(0.037, 13_377, 787)],
            drop=compared(0.125, -0.25, 0.5),
            judged=verdict(0.5, None, 13_377),
            chosen=True,
        ),
        candidate(
            "dynamic-int8",
            [CLEAN, DYNAMIC],
            size=14_100,
            measurements=[
                measurement(
                    0.097, 14_100, 768, latency=(latency(0.097, seed=3, doubts=("throttled",)),)
                )
            ],
            drop=compared(2.51, 1.4, 3.9, flips=24, proven=False, needed=2_480),
            judged=wide,
        ),
        {"kind": "rejected", "name": "fp16", "reason": "no kernel for it on this device"},
    ]


def manifest(chosen="static-int8"):
    model = BundledFile(name="model.onnx", digest=digest(chosen), bytes=13_377)
    return Manifest(
        name="digits",
        model="model.onnx",
        format="onnx",
        source_digest=digest("original"),
        inputs=(Tensor(name="image", dtype="float32", shape=("N", 1, 8, 8)),),
        outputs=(Tensor(name="logits", dtype="float32", shape=("N", 10)),),
        metric="top1",
        output=None,
        runtime=RuntimeUse(name="onnxruntime", version="1.32.0", threads=2),
        profile=load_profile("tablet-x86"),
        files=(model, BundledFile(name="canaries.npz", digest=digest("c"), bytes=9000)),
        recipe={"name": chosen, "seed": 11, "steps": [STATIC.as_json()]},
        provenance={"tools": {"onnx": "1.23.2", "onnxruntime": "1.32.0"}, "splits": {"eval": "ab"}},
        measurements=[],
        verdict={},
        passes=True,
    )


def build_folder(folder: Path, lines=None, *, packed="static-int8") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in (lines or usual_lines()))
    (folder / "results.jsonl").write_text(text, encoding="utf-8")
    if packed:
        text = manifest(packed).model_dump_json(by_alias=True)
        (folder / "manifest.json").write_text(text, encoding="utf-8")
    return folder


class _Words(HTMLParser):
    """The words of a page, and its elements with their attributes."""

    def __init__(self):
        super().__init__()
        self.words, self.elements = [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.extend(data.split())


def page(folder):
    text = write_report(folder).read_text(encoding="utf-8")
    reader = _Words()
    reader.feed(text)
    return " ".join(reader.words), reader.elements, text


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
    text = write_report(build_folder(tmp_path)).read_text(encoding="utf-8")

    for tag in ("table", "tr", "section", "svg", "g", "figure", "dl", "dd", "ul", "details"):
        assert len(re.findall(rf"<{tag}[ >]", text)) == text.count(f"</{tag}>"), tag


def test_the_verdict_comes_first_with_every_check(tmp_path):
    words, _, _ = page(build_folder(tmp_path))
    top = words[: words.index("Candidates")]

    assert "Nothing fails; of 4 checks 1 not measured" in top
    assert "tablet-x86" in top
    assert "static-int8" in top
    assert "Accuracy drop points 1 0.5000" in top
    assert "Latency, 95th percentile ms 100 not measured" in top
    assert "no device was given: --on HOST measures it" in top


def test_a_build_whose_checks_all_hold_says_so(tmp_path):
    lines = usual_lines()
    lines[3]["verdict"] = dataclasses.asdict(verdict(0.5, 0.04, 13_377))

    words, _, _ = page(build_folder(tmp_path, lines))

    assert "Passes, every check holds" in words


def test_a_candidate_packed_although_it_fails_is_not_praised(tmp_path):
    lines = usual_lines()
    lines[3]["verdict"] = dataclasses.asdict(verdict(1.7, 0.04, 13_377))

    words, _, _ = page(build_folder(tmp_path, lines))

    assert "Does not pass" in words[: words.index("Candidates")]


def test_every_candidate_shows_its_figures(tmp_path):
    words, _, _ = page(build_folder(tmp_path))

    assert "original" in words
    assert "39.5 KiB" in words
    assert "13.1 KiB" in words
    assert "98.87 % 788 of 797" in words
    assert "98.75 % 787 of 797" in words
    assert "0.125 −0.250 to 0.500" in words
    assert "24 of 797 flipped" in words
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
    assert "governor not known" in words


def test_a_device_measurement_goes_before_that_of_the_host_and_is_named(tmp_path):
    lines = usual_lines()
    for line in lines[1:5]:
        slow = measurement(4.2, 13_377, 780, source="device:ward-3")
        line["measurements"].append(encode(slow))

    words, _, _ = page(build_folder(tmp_path, lines))

    assert "97.87 % 780 of 797" in words
    assert "device ward-3" in words
    assert "build host" in words
    assert "latency, median of the quietest process, ms, device ward-3" in words


def test_a_missing_figure_says_not_measured_and_is_never_zero(tmp_path):
    bare = measurement(0, 40_403, 0, tally=None, latency=(), peak_rss_bytes=None)
    lines = [
        begin(),
        candidate("original", baseline=True, measurements=[bare]),
        candidate("cleaned", [CLEAN]),
    ]

    words, _, _ = page(build_folder(tmp_path, lines, packed=None))
    row = words[words.index("B cleaned") : words.index("Intervals hold 95 %")]

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

    assert "The limit of the model's size, 51,200 KiB, lies off the scale." in words


def test_the_limit_of_the_device_is_not_drawn_beside_latencies_of_this_machine(tmp_path):
    words, _, _ = page(build_folder(tmp_path))

    assert "limit of latency" not in words


def test_every_timed_candidate_is_in_every_plot(tmp_path):
    _, elements, text = page(build_folder(tmp_path))

    assert sum(tag == "circle" for tag, _ in elements) == 4
    assert text.count('class="rug"') == 4
    assert text.count('class="solid"') == 4
    assert not re.search(r'(cx|cy|x|y|width|d)="[^"]*(nan|inf)', text)


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

    assert "the folder holds no bundle of this build" in words
    assert digest("something else") not in words


def test_a_candidate_that_was_packed_without_passing_has_its_manifest_shown(tmp_path):
    lines = usual_lines()
    for line in lines:
        line.pop("chosen", None)

    words, _, _ = page(build_folder(tmp_path, lines))

    assert "the folder holds no bundle of this build" not in words
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
    lines[3]["comparison"]["interval_points"] = [-0.25, float("inf")]

    words, _, text = page(build_folder(tmp_path, lines))

    assert "−0.250 to unbounded" in words
    assert not re.search(r'(cx|cy|x|y|width|d)="[^"]*(nan|inf)', text)


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    folder = build_folder(tmp_path)
    with (folder / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "candidate", "key": "4f')

    words, _, _ = page(folder)

    assert "static-int8" in words


def test_a_folder_that_is_no_build_is_refused(tmp_path):
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
    with pytest.raises(UserError, match="no build begins in this file"):
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
