"""Accuracy of compressed models before and after they learn from the original.

    python -m benchmarks.learning.recovery ZOO [--only ROW ...] [--out DIR]

ZOO is a folder as in ``benchmarks/zoo.py``. Every row is two builds of a fixed recipe, without and
with the pass ``distil``, on calibration samples alone. Both are compared with the original on the
same evaluation samples. The download is that of the packed model; times are medians over those of
the original, taken in the same run. The last column is the CPU time of the build that learns.
"""

from __future__ import annotations

import argparse
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import zoo


@dataclass(frozen=True, kw_only=True)
class Row:
    """One recipe: the passes before learning, its settings, and the passes after it."""

    model: str
    before: tuple[str, ...]
    learn: str
    after: tuple[str, ...] = ()


_STATIC = "quantize-static:weight_bits=8"
ROWS = {
    "resnet8-channels": Row(
        model="ic-resnet8", before=("prune-channels:remove=0.25",), learn="steps=5000"
    ),
    "resnet8-channels-16": Row(
        model="ic-resnet8", before=("prune-channels:remove=0.25,align=16",), learn="steps=5000"
    ),
    "resnet8-bits": Row(
        model="ic-resnet8",
        before=("quantize-weights:bits=1.75,weight_bits=8", _STATIC),
        learn="steps=3000",
    ),
    "kws-bits": Row(
        model="kws-dscnn",
        before=("quantize-weights:bits=2.55,weight_bits=8", _STATIC),
        learn="steps=3000",
    ),
    "effnet-bits": Row(
        model="effnet-lite0",
        before=("quantize-weights:bits=2.6,weight_bits=8", _STATIC),
        learn="minutes=5",
    ),
    "effnet-channels": Row(
        model="effnet-lite0", before=("prune-channels:remove=0.3",), learn="minutes=8"
    ),
    "effnet-zeros": Row(model="effnet-lite0", before=("prune-weights",), learn="minutes=8"),
    "minilm": Row(
        model="text-minilm-agnews",
        before=("prune-channels:remove=0.3", "quantize-weights:bits=2.4,weight_bits=8"),
        learn="minutes=5",
        after=("quantize-dynamic:weight_bits=8",),
    ),
    "pneumonia": Row(
        model="med-pneumonia",
        before=(
            "prune-channels:remove=0.6",
            "quantize-weights:bits=3,weight_bits=8",
            _STATIC,
        ),
        learn="minutes=5",
    ),
}


def measure(folder: Path, row: Row) -> str:
    """Build a row without and with learning; return a line of the table."""
    before = ("clean", *row.before, *row.after)
    after = ("clean", *row.before, f"distil:{row.learn}", *row.after)
    original, plain = zoo.one_recipe(folder, before)
    used = _get_cpu_s()
    _, learned = zoo.one_recipe(folder, after)
    seconds = _get_cpu_s() - used
    smaller, faster = _compare(original, learned)
    notes = " ".join(note for note in learned["notes"] if note.startswith("learn"))
    return (
        f"| {row.model} | {' + '.join((*row.before, f'distil:{row.learn}', *row.after))} "
        f"| {smaller:.2f} | {faster:.2f} | {_format_drop(plain)} | {_format_drop(learned)} "
        f"| {seconds:.0f} | {notes} |"
    )


def _compare(original: dict[str, Any], made: dict[str, Any]) -> tuple[float, float]:
    before, after = original["measurements"][0], made["measurements"][0]
    times = after["latency"]["quiet_p50_ms"] / before["latency"]["quiet_p50_ms"]
    return before["model_bytes"] / after["transfer_bytes"], times


def _format_drop(made: dict[str, Any]) -> str:
    compared = made["comparison"]
    low, high = compared["interval"]
    return f"{-compared['drop']:+.2f} [{-high:.2f}, {-low:.2f}]"


def _get_cpu_s() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Build the rows and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(ROWS))
    parser.add_argument("--out", type=Path, default=Path("build/recovery"))
    options = parser.parse_args()
    entries = zoo.entries(options.zoo)
    print(
        "| model | recipe | fp32 file / download | p50 / fp32 | points before learning "
        "| points after | CPU s | notes |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, row in ROWS.items():
        if options.only is None or name in options.only:
            folder = zoo.write_project(options.zoo, entries[row.model], options.out / name)
            print(measure(folder, row), flush=True)


if __name__ == "__main__":
    main()
