"""Simulation of the gate: how often it passes models whose true loss is known.

    python -m benchmarks.gate_simulation [--trials 2000] [--map-trials 300] [--power-trials 300]
                                         [--only METRIC ...] [--samples N ...]

With a true loss equal to the margin, a test at 5 % passes at most 125 of 2,000 trials with
probability .994, and at most 24 of 300 with probability .99. Without a loss, at least 80 % of the
trials have to pass with the number of samples that a small pilot asks for. The exit code is 1 if a
metric misses one of these limits. ``--samples`` counts the passes at the margin alone, with these
numbers of samples.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace

from benchmarks.gate_simulation.pairs import PROCESSES, Process
from benchmarks.gate_simulation.trials import count_false_passes, count_true_passes

_LEAST_POWER = 0.8
_SLOW = "map"


def main() -> None:
    """Run the trials of each metric and print a table."""
    options = _parse_options()
    if options.samples:
        _report_sizes(options)
        return
    print(
        "| metric | samples | passed, loss = margin | limit | samples asked for (median) | "
        "passed, no loss | CPU s |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    holds = [_report(process, options) for process in _choose_processes(options)]
    sys.exit(not all(holds))


def _choose_processes(options: argparse.Namespace) -> list[Process]:
    return [each for each in PROCESSES if options.only is None or each.metric in options.only]


def _report_sizes(options: argparse.Namespace) -> None:
    """Print the share of trials at the margin that pass, in percent, by number of samples."""
    print(f"| metric | {' | '.join(map(str, options.samples))} |")
    print("| --- |" + " --- |" * len(options.samples))
    for process in _choose_processes(options):
        trials = options.map_trials if process.metric == _SLOW else options.trials
        found = [count_false_passes(replace(process, samples=n), trials) for n in options.samples]
        shares = " | ".join(f"{100 * each.share:.1f}" for each in found)
        print(f"| {process.metric} | {shares} |", flush=True)


def _report(process: Process, options: argparse.Namespace) -> bool:
    """Print the line of one metric, and return whether it is within the limits."""
    is_slow = process.metric == _SLOW
    trials = options.map_trials if is_slow else options.trials
    power_trials = options.power_trials // 3 if is_slow else options.power_trials
    false = count_false_passes(process, trials)
    true = count_true_passes(process, power_trials)
    limit = compute_limit(trials)
    print(
        f"| {process.metric} | {false.samples} | {false.passed} of {false.trials} | {limit} "
        f"| {true.samples} | {true.passed} of {true.trials} | {false.cpu_s + true.cpu_s:.0f} |",
        flush=True,
    )
    return false.passed <= limit and true.share >= _LEAST_POWER


def compute_limit(trials: int) -> int:
    """Return the most passes of a test at 5 %: 125 of 2,000, and 24 of 300."""
    return math.floor(0.05 * trials + 2.566 * math.sqrt(0.0475 * trials))


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate_simulation")
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--map-trials", type=int, default=300)
    parser.add_argument("--power-trials", type=int, default=300)
    parser.add_argument("--samples", nargs="+", type=int)
    parser.add_argument("--only", nargs="+", choices=[each.metric for each in PROCESSES])
    return parser.parse_args()


if __name__ == "__main__":
    main()
