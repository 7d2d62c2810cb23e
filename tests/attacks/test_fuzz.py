"""Some damaged inputs of ``benchmarks.fuzz`` cause expected failures only."""

import argparse
import subprocess
import sys

import pytest

from benchmarks.fuzz.__main__ import _pick
from benchmarks.fuzz.case import KINDS, run_case, write_bases


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "bases"
    write_bases(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_inputs_are_accepted_or_refused_in_one_line(kind, bases, tmp_path):
    said = set()
    for seed in range(12):
        scratch = tmp_path / str(seed)
        scratch.mkdir()
        said.add(run_case(kind, seed, bases, scratch))  # raises for anything else
    assert len(said) > 2, "the inputs are damaged in different places"


def test_the_benchmark_reports_what_it_ran_and_continues(tmp_path):
    command = [sys.executable, "-m", "benchmarks.fuzz", "--commands", "1", "--kinds", "toml"]
    command += ["--out", tmp_path / "fuzz.jsonl"]
    for count, more in (("2", []), ("4", ["--resume"])):
        done = subprocess.run(
            [*command, "--count", count, *more], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert f"in process: {count} inputs" in done.stdout
        assert "\ncommand: " in done.stdout
        assert done.stdout.endswith("0 faults\n")


def test_inputs_of_every_kind_go_through_the_command_line():
    """All 200 were models: every twelfth of six kinds."""
    for count, commands in ((3000, 200), (2800, 400)):
        kinds = [KINDS[n % len(KINDS)] for n in range(count)]
        others = [n for n, kind in enumerate(kinds) if kind != "answers"]
        picked = _pick(others, argparse.Namespace(commands=commands, seed=0))
        assert len(picked) == commands
        assert {kinds[n] for n in picked} == set(KINDS) - {"answers"}
