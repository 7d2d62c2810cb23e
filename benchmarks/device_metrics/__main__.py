"""Metrics of real models on a device, compared with the same metrics on this machine.

    python -m benchmarks.device_metrics FOLDER HOST [--only NAME ...] [--samples N] [--profile NAME]
                                      [--step PASS ...] [--out DIR] [--write FILE]

FOLDER is one of `benchmarks.task_builds`, HOST what ``ssh`` takes. Each entry becomes a project of
few samples that is built with ``--on HOST``. Then the device runs the packed model twice: for the
entry's own metric, and to return all outputs, as for a metric of the user. A line holds if

* the outputs that the device returned have the same statistics here as there, bit for bit, by the
  same post-processing and metric;
* the build compares the device's own outputs with those of the original, and gives an interval;
* returning the outputs takes at most 64 MiB more memory on the device than the metric does.

The exit code is 1 if a line does not hold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.device_metrics.memory import watch_memory
from benchmarks.task_builds import Built, build
from benchmarks.task_projects import name_metric, shrink_project, write_project
from benchmarks.tasks import Entry, entries
from edgekit.conversion.open_model import read_model
from edgekit.data.dataset import Dataset
from edgekit.pipeline.accuracy.resumable_scoring import score
from edgekit.pipeline.accuracy.tallies import Scoring, read_table
from edgekit.pipeline.measure_targets import DevicePlace, open_device_place
from edgekit.pipeline.request import Request, read_build_inputs
from edgekit.progress import ignore_progress
from edgekit_agent.jobs import ModelRef, ScoreJob
from edgekit_agent.metrics import ScoredSample, load_statistic
from edgekit_agent.metrics.outputs import decode_outputs
from edgekit_agent.metrics.rows import decode_rows
from edgekit_agent.postprocess import postprocess
from edgekit_agent.results import StageProgress, Tally
from edgekit_agent.samples import Samples
from edgekit_agent.scoring import MetricJob

_MOST_MORE_MIB = 64
_HEAD = (
    "entry", "metric", "samples", "original, here", "packed, here", "packed, there",
    "loss there, 95 %", "peak MiB: metric", "outputs", "values each", "does not hold",
)  # fmt: skip

Rows = list[NDArray[np.float64]]


def return_outputs(place: DevicePlace, model: ModelRef, samples: Samples) -> list[dict[str, Any]]:
    """Run samples on a device and return all outputs of each, without post-processing."""
    rows: Rows = []

    def receive(said: StageProgress) -> None:
        if said.part is not None:
            rows.extend(_list_rows(said.part.tally))

    job = MetricJob("outputs")
    asked = ScoreJob(model, samples, job.name, metrics=(job,))
    rows.extend(_list_rows(place.agent.ask(asked, Tally, progress=receive)))
    return [decode_outputs(row) for row in rows]


def _list_rows(tally: Tally) -> Rows:
    return list(decode_rows(tally.statistics[0], tally.n))


def compute_rows(outputs: Sequence[dict[str, Any]], evaluation: Dataset, scoring: Scoring) -> Rows:
    """Compute the statistic of the gated metric on this machine, from outputs of the device."""
    job, settings = scoring.metrics[0], scoring.postprocess
    statistic = load_statistic(job.name)
    rows = []
    for number, (found, targets) in enumerate(zip(outputs, evaluation.read_targets(), strict=True)):
        made = postprocess(found, targets, settings) if settings else found
        sample = ScoredSample(number=number, outputs=made, targets=targets, inputs={})
        rows.append(np.asarray(statistic(sample, job.options), np.float64))
    return rows


def report(entry: Entry, folder: Path, built: Built, host: str, profile: str) -> tuple[str, ...]:
    """Return the line of an entry; the last cell says what does not hold."""
    if built.model is None:
        return (entry.name, *[""] * (len(_HEAD) - 2), "nothing was packed")
    inputs = read_build_inputs(Request(folder=folder, device=profile, on=host))
    scoring = inputs.scoring
    if scoring is None:
        return (entry.name, *[""] * (len(_HEAD) - 2), "no metric")
    metric, model = scoring.names[0], read_model(built.model)
    with open_device_place(
        host, inputs.profile, cache=inputs.store.root, tick=ignore_progress
    ) as place:
        there, samples = place.model_ref(model), place.samples(inputs.evaluation.samples)
        with watch_memory(host) as of_metric:
            tally = score(place.agent, there, samples, scoring=scoring, tick=ignore_progress)
        with watch_memory(host) as of_outputs:
            outputs = return_outputs(place, there, samples)
    here = compute_rows(outputs, inputs.evaluation, scoring)
    rows = read_table(tally, metric).rows
    first, shown = built.get_candidate("original"), built.shown
    values = {m["source"]: m["scores"][metric] for m in shown["measurements"]}
    compared = shown["comparison"]
    (low, high), more = compared["interval"], of_outputs.mib - of_metric.mib
    faults = []
    if [row.tobytes() for row in rows] != [row.tobytes() for row in here]:
        faults.append("other statistics of the same outputs")
    if f"device:{host}" not in values or not np.isfinite([low, high]).all():
        faults.append("no interval of the device's own outputs")
    if not more <= _MOST_MORE_MIB:
        faults.append(f"outputs take {more:.0f} MiB more")
    return (
        entry.name,
        metric,
        str(len(rows)),
        f"{first['measurements'][0]['scores'][metric]:.6f}",
        f"{values['host']:.6f}",
        f"{values.get(f'device:{host}', float('nan')):.6f}",
        f"{compared['drop']:+.3f} [{low:.3f}, {high:.3f}] {compared['unit']}".rstrip(),
        f"{of_metric.mib:.0f}",
        f"{of_outputs.mib:.0f}",
        f"{sum(np.size(each) for each in outputs[0].values()):,}",
        "; ".join(faults) or "-",
    )


def main() -> None:
    """Build the entries on the device and print the table; exit 1 if a line does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("host")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--profile", default="raspberry-pi-zero-2w")
    parser.add_argument("--step", nargs="*", default=["quantize-static"])
    parser.add_argument("--out", type=Path, default=Path("build/device_metrics"))
    parser.add_argument("--write", type=Path, help="a file for the table")
    options = parser.parse_args()
    lines = [f"| {' | '.join(_HEAD)} |", f"|{' --- |' * len(_HEAD)}"]
    print("\n".join(lines), flush=True)
    holds = True
    for entry in entries(options.folder.resolve(), options.only):
        if "kind" not in entry.facts:  # a classifier, see benchmarks.zoo
            continue
        folder = write_project(entry.home, entry.facts, options.out.resolve() / entry.name)
        shrink_project(folder, options.samples)
        built = build(folder, options.profile, options.step, on=options.host)
        blank = [name_metric(entry.facts), *[""] * (len(_HEAD) - 3)]
        row = (
            (entry.name, *blank, built)
            if isinstance(built, str)
            else report(entry, folder, built, options.host, options.profile)
        )
        holds &= row[-1] == "-"
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
    if options.write:
        options.write.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.exit(not holds)


if __name__ == "__main__":
    main()
