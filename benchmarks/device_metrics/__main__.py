"""Metrics of real models on a device, compared with the same metrics on this machine.

    python -m benchmarks.device_metrics FOLDER HOST [--only NAME ...] [--samples N] [--profile NAME]
                                      [--step PASS ...] [--out DIR] [--write FILE]

FOLDER is one of `benchmarks.task_builds`, HOST what ``ssh`` takes. Each entry becomes a project of
few samples and is built here. Then the device runs the packed model twice: for the entry's own
metric, and to return all outputs, as for a metric of the user. A line holds if

* the outputs that the device returned have the same statistics here as there, bit for bit, by the
  same post-processing and metric;
* the device's own outputs, compared with those of the original as in ``edgekit build --on``, give
  an interval of the loss;
* returning the outputs takes at most 64 MiB more memory on the device than the metric does.

The exit code is 1 if a line does not hold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.device_metrics.memory import watch_memory
from benchmarks.task_builds import build, print_table, report_trouble
from benchmarks.task_projects import shrink_project, write_project
from benchmarks.tasks import Entry
from edgekit.conversion.open_model import read_model
from edgekit.data.dataset import Dataset
from edgekit.model import Model
from edgekit.pipeline.accuracy.comparison import compare_tallies
from edgekit.pipeline.accuracy.resumable_scoring import score
from edgekit.pipeline.accuracy.tallies import Scoring, compute_scores, read_table
from edgekit.pipeline.examples.sample_runs import ChosenSamples, run_samples
from edgekit.pipeline.measure_targets import open_device_place, open_host_place
from edgekit.pipeline.request import Request, read_build_inputs
from edgekit.progress import ignore_progress
from edgekit_agent.metrics import ScoredSample, load_statistic
from edgekit_agent.postprocess import postprocess
from edgekit_agent.scoring import MetricOptions

_MOST_MORE_MIB = 64
_HEAD = (
    "entry", "metric", "samples", "original, here", "packed, here", "packed, there",
    "loss there, 95 %", "peak MiB: metric", "outputs", "values each", "does not hold",
)  # fmt: skip

Rows = list[NDArray[np.float64]]


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


def report(entry: Entry, folder: Path, model: Model, host: str, profile: str) -> tuple[str, ...]:
    """Return the line of an entry; the last cell says what does not hold."""
    inputs = read_build_inputs(Request(folder=folder, device=profile))
    scoring = inputs.scoring
    if scoring is None:
        return report_trouble(entry, _HEAD, "no metric")
    run = partial(score, scoring=scoring, tick=ignore_progress)
    with open_host_place(inputs.profile, inputs.store.root / "agent") as place:
        before, here = (
            run(place.agent, place.model_ref(each), inputs.evaluation.samples)
            for each in (inputs.model, model)
        )
    with open_device_place(
        host, inputs.profile, cache=inputs.store.root, tick=ignore_progress
    ) as place:
        ref, samples = place.model_ref(model), place.samples(inputs.evaluation.samples)
        with watch_memory(host) as of_metric:
            there = run(place.agent, ref, samples)
        with watch_memory(host) as of_outputs:
            every = ChosenSamples(samples=samples, places=tuple(range(inputs.evaluation.count)))
            outputs = run_samples(
                place.agent, ref, every, options=MetricOptions(), postprocess=None
            )
    compared = compare_tallies(
        before,
        there,
        scoring=scoring,
        margins=inputs.limits.margins,
        evaluation=inputs.evaluation,
    )
    groups = inputs.evaluation.groups
    values = [compute_scores(each, scoring, groups)[0].value for each in (before, here, there)]
    rows = read_table(there, scoring.names[0]).rows
    (low, high), more = compared.interval, of_outputs.mib - of_metric.mib
    faults = []
    again = compute_rows(outputs, inputs.evaluation, scoring)
    if [row.tobytes() for row in rows] != [row.tobytes() for row in again]:
        faults.append("other statistics of the same outputs")
    if not np.isfinite([low, high]).all():
        faults.append("no interval of the device's own outputs")
    if not more <= _MOST_MORE_MIB:
        faults.append(f"outputs take {more:.0f} MiB more")
    return (
        entry.name,
        scoring.names[0],
        str(len(rows)),
        *(f"{value:.6f}" for value in values),
        f"{compared.drop:+.3f} [{low:.3f}, {high:.3f}] {compared.unit}".rstrip(),
        f"{of_metric.mib:.0f}",
        f"{of_outputs.mib:.0f}",
        f"{sum(np.size(each) for each in outputs[0].values()):,}",
        "; ".join(faults) or "-",
    )


def main() -> None:
    """Build the entries, run them on the device, and print a table; exit 1 if a line is wrong."""
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

    def report_entry(entry: Entry) -> tuple[str, ...]:
        folder = write_project(entry.home, entry.facts, options.out.resolve() / entry.name)
        shrink_project(folder, options.samples)
        built = build(folder, options.profile, options.step)
        if isinstance(built, str) or built.model is None:
            trouble = built if isinstance(built, str) else "nothing was packed"
            return report_trouble(entry, _HEAD, trouble)
        return report(entry, folder, read_model(built.model), options.host, options.profile)

    sys.exit(not print_table(_HEAD, options, report_entry))


if __name__ == "__main__":
    main()
