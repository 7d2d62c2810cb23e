"""Formatting of outcomes: a line, a fault, or the document with all tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# edgekit reports ratios above 1.05; repeated measurements vary by several percent.
_SLOWER = 1.1
# On few samples the error varies: it may be up to this many times the reported error.
_FURTHER, _ROUNDING = 3.0, 1e-3
# edgekit notes that much of an output is lost above 0.3; errors vary between samples.
_MUCH, _LOSS = 0.36, "large relative error"
_WORDS_OF_TIME = ("slower", "faster", "times as long", "in time")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of one pass on one model.

    Args:
        status: "ok", "refused", "not reached", or "exit N" for a fault.
        text: The reason, or a remark.
        seconds: Run time of the command.
        size_ratio: Size of the new file over the old one.
        said: Relative error that the pass reported.
        output: Name of the worst output on held-out samples, as measured here.
        error: Relative error of that output.
        time_ratio: Latency of the new file over the old one.
        notes: Notes of the pass.
    """

    model: str
    step: str
    status: str
    text: str = ""
    seconds: float = 0.0
    size_ratio: float | None = None
    said: float | None = None
    output: str = ""
    error: float | None = None
    time_ratio: float | None = None
    notes: tuple[str, ...] = ()


def find_fault(outcome: Outcome) -> str:
    """Return the reason why an outcome is a fault; empty if it is none."""
    if outcome.status not in ("ok", "refused", "not reached"):
        return f"{outcome.status}: {outcome.text}"
    if outcome.status != "ok" or outcome.step == "inspect":
        return ""
    if outcome.error is None:  # no runtime here has MediaPipe's custom operators
        return "" if outcome.step == "to-onnx" else outcome.text
    return _find_unreported_error(outcome, outcome.error) or _find_unreported_time(outcome)


def _find_unreported_error(outcome: Outcome, error: float) -> str:
    said = outcome.said or 0.0
    if not error <= _FURTHER * said + _ROUNDING:
        return f"{outcome.output} has the error {error:.3g}, the pass reported {said:.3g}"
    if error > _MUCH and not any(_LOSS in note for note in outcome.notes):
        return f"{outcome.output} has the error {error:.3g}, and no note warns of it"
    return ""


def _find_unreported_time(outcome: Outcome) -> str:
    if (outcome.time_ratio or 0) <= _SLOWER or _mentions_time(outcome.notes):
        return ""
    return f"takes {outcome.time_ratio:.2f} times as long, and no note says so"


def _mentions_time(notes: Sequence[str]) -> bool:
    return any(word in note for note in notes for word in _WORDS_OF_TIME)


def format_line(outcome: Outcome) -> str:
    """Format an outcome as one line."""
    return f"{outcome.model}, {outcome.step}: {', '.join(filter(None, _parts(outcome)))}"


def _parts(outcome: Outcome) -> list[str]:
    parts = [outcome.status]
    if outcome.size_ratio is not None:
        parts.append(f"file {outcome.size_ratio:.2f}")
    if outcome.error is not None:
        said = "nothing" if outcome.said is None else f"{outcome.said:.2g}"
        parts.append(f"error {outcome.error:.2g} (said {said})")
    if outcome.time_ratio is not None:
        parts.append(f"time {outcome.time_ratio:.2f}")
    return [*parts, outcome.text, *(f"note: {note}" for note in outcome.notes)]


def format_document(found: Sequence[Outcome], about: Mapping[str, str]) -> str:
    """Format docs/compatibility.md."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in found:
        groups[outcome.model].append(outcome)
    count = Counter(outcome.status for outcome in found if outcome.step != "inspect")
    return "\n".join(
        [
            "# Passes on models that ship in packages",
            "",
            "Written by `python -m benchmarks.compatibility`; do not edit.",
            "",
            f"{len(groups)} models of packages on PyPI, each through every pass with its defaults:"
            f" {count['ok']} files made, {count['refused']} refused with the reason.",
            "File and time are those of the result over those of the model before the pass, each"
            " in its own runtime on one thread (medians, in turn; x86-64). The error is that of"
            " the worst output, its RMS difference over its RMS (of integers, the share that"
            " differs), against the original without optimization, on samples that the pass has"
            " not seen; in parentheses the error that the pass itself reported. A `.tflite` model"
            " is converted to ONNX first, and the other passes run on that.",
            *(part for name in groups for part in _section(name, about[name], groups[name])),
            "",
        ]
    )


def _section(name: str, about: str, found: Sequence[Outcome]) -> list[str]:
    return [
        "",
        f"## {name}",
        "",
        f"{about[:1].upper()}{about[1:]}.",
        "",
        "| pass | result | file | error (reported) | time |",
        "| --- | --- | --- | --- | --- |",
        *(_row(outcome) for outcome in found),
        *([""] if any(outcome.notes for outcome in found) else []),
        *(f"- {each.step} tells: {note}" for each in found for note in each.notes),
    ]


def _row(outcome: Outcome) -> str:
    wrong = find_fault(outcome)
    said = outcome.text if outcome.text not in wrong else ""
    result = ": ".join(filter(None, (outcome.status, said, wrong and f"FAULT: {wrong}")))
    remarks = result.replace("|", "\\|")
    size = "-" if outcome.size_ratio is None else f"{outcome.size_ratio:.2f}"
    error = "-"
    if outcome.error is not None:
        error = f"{outcome.error:.2g} ({'-' if outcome.said is None else f'{outcome.said:.2g}'})"
        error += f" {outcome.output}" if outcome.output else ""
    time = "-" if outcome.time_ratio is None else f"{outcome.time_ratio:.2f}"
    return f"| {outcome.step} | {remarks} | {size} | {error} | {time} |"
