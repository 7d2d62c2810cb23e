"""Build folders with results that a test writes itself, and a parser of the report's page."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from edgekit.bundle.manifest import BundledFile, Manifest, RuntimeUse, Tensor
from edgekit.bundle.results import Check, Measurement, Score, Verdict
from edgekit.config.profile import load_profile
from edgekit.pass_settings import Clean, QuantizeDynamic, QuantizeStatic
from edgekit.recipe import Step
from edgekit.reporting.html import write_report
from edgekit_agent.codec import encode
from edgekit_agent.worker_results import Latency


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def latency(middle_ms, *, seed, runs=600, doubts=()):
    values = middle_ms * np.random.default_rng(seed).lognormal(0, 0.06, runs)
    return Latency(tuple(float(v) for v in values), 2, 40, 3.5, doubts)


def score(correct, n=797):
    return Score(
        metric="top1", title="accuracy", value=correct / n, n=n, is_share=True, correct=correct
    )


def measurement(middle_ms, size, correct, *, source="host", **changes):
    facts = {
        "source": source,
        "tally": None,
        "scores": (score(correct),),
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


def make_comparison(points, low, high, *, flips=3, proven=True, needed=None):
    return {
        "metric": "top1",
        "unit": "points",
        "groups": 797,
        "before": 0.98,
        "after": 0.98 - points / 100,
        "drop": points,
        "interval": [low, high],
        "worst": high,
        "margin": 1.0,
        "method": "Tango 1998",
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


STATIC = Step(name="quantize-static", version=1, settings=QuantizeStatic(max_samples=200))


DYNAMIC = Step(name="quantize-dynamic", version=1, settings=QuantizeDynamic())


def usual_lines():
    """Return the lines of a build with four candidates, as the pipeline writes them."""
    wide = verdict(2.51, None, 14_100, reasons=("slower than the original in this runtime",))
    return [
        begin(),
        candidate("original", measurements=[measurement(0.061, 40_403, 788)], baseline=True),
        candidate(
            "cleaned",
            [CLEAN],
            size=40_010,
            measurements=[measurement(0.058, 40_010, 788)],
            drop=make_comparison(0.0, -0.2, 0.2, flips=0),
            judged=verdict(0.2, None, 40_010),
        ),
        candidate(
            "static-int8",
            [CLEAN, STATIC],
            size=13_377,
            measurements=[measurement(0.037, 13_377, 787)],
            drop=make_comparison(0.125, -0.25, 0.5),
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
            drop=make_comparison(2.51, 1.4, 3.9, flips=24, proven=False, needed=2_480),
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
        files=(model, BundledFile(name="golden.npz", digest=digest("c"), bytes=9000)),
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
    """Parser of the words of a page, and of its elements with their attributes."""

    def __init__(self):
        super().__init__()
        self.words, self.elements = [], []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.extend(data.split())


def page(folder, *, with_samples=False):
    """Write the report of a build folder; return its words, elements and text."""
    write_report(folder, with_samples=with_samples)
    return read_page(folder)


def read_page(folder):
    """Return the words, the elements and the text of the report in a build folder."""
    text = (folder / "report.html").read_text(encoding="utf-8")
    reader = _Words()
    reader.feed(text)
    return " ".join(reader.words), reader.elements, text


def assert_closed(text):
    """Assert that every opened element of a page is closed."""
    for tag in ("table", "tr", "section", "svg", "g", "figure", "dl", "dd", "ul", "details", "div"):
        assert len(re.findall(rf"<{tag}[ >]", text)) == text.count(f"</{tag}>"), tag
