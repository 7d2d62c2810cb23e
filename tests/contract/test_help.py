"""Every command has a help text, shown quickly and without loading heavy libraries."""

import re
import resource
import subprocess
import sys

import pytest

from tests.builders.projects import command, edgekit, spawn

COMMANDS = [
    "init",
    "example",
    "inspect",
    "build",
    "apply",
    "distil",
    "passes",
    "metrics",
    "push",
    "bench",
    "rollback",
    "status",
    "uninstall",
    "report",
    "cache",
    "completion",
    "devices",
    "devices list",
    "devices show",
    "devices check",
    "devices probe",
    "keys",
    "keys new",
    "keys list",
    "keys trust",
    "keys untrust",
    "keys revoke",
    "app",
    "app new",
    "app serve",
    "package",
    "fetch",
]
GROUPS = ("devices", "keys", "app")
HEAVY = {"numpy", "onnx", "onnxruntime", "paramiko", "pydantic", "jinja2", "ai_edge_litert"}


def test_help_lists_every_command_and_no_other():
    text = edgekit("--help").out
    listed = re.findall(r"^  ([a-z]+)  ", text.partition("Commands:")[2], re.MULTILINE)
    below = [
        f"{group} {name}"
        for group in GROUPS
        for name in re.findall(
            r"^  ([a-z]+)  ", edgekit(group, "--help").out.partition("Commands:")[2], re.MULTILINE
        )
    ]
    assert sorted([*listed, *below]) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_every_option_of_it_is_explained(name):
    done = edgekit(*name.split(), "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: edgekit {name} ")
    explained = done.out.split("\n\n")[1]
    assert explained.strip().endswith("."), "a sentence says what the command is for"
    for block in re.split(r"^[A-Z][a-z]+:\n", done.out, flags=re.MULTILINE)[1:]:
        # A line that continues another is indented further than the names are.
        for line in re.findall(r"^  \S.*", block, re.MULTILINE):
            assert re.fullmatch(r"  \S.*?  +\S.*", line), f"{name}: nothing explains {line!r}"


@pytest.mark.parametrize(
    "name",
    ["example", "inspect", "build", "apply", "passes", "push", "bench", "rollback", "status"]
    + [f"devices {verb}" for verb in ("list", "show", "check", "probe")]
    + [f"keys {verb}" for verb in ("new", "list", "trust", "revoke")],
)
def test_every_command_that_yields_facts_offers_json(name):
    assert "--json" in edgekit(*name.split(), "--help").out


def test_no_command_is_a_bad_request_that_shows_the_help():
    done = edgekit()
    assert (done.code, done.out) == (2, "")
    assert done.err == edgekit("--help").out


def test_the_version_is_shown():
    done = edgekit("--version")
    assert done.code == 0
    assert re.fullmatch(r"edgekit \d+\.\d+\.\d+\S*\n", done.out)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no-such-command"], "no-such-command"),
        (["build", "--no-such-option"], "--no-such-option"),
        (["build", "--max-drop", "much"], "--max-drop"),
        (["build", "--max-drop", "-1"], "--max-drop"),
        (["build", "--max-drop", "nan"], "--max-drop"),
        (["build", "--max-drop", "inf"], "--max-drop"),
        (["build", "--seed", "1.5"], "--seed"),
        (["build", "--device"], "--device"),
        (["build", "--metric", "f1"], "--metric: unknown metric 'f1'"),
        (["build", "--runtime", "tensorrt"], "--runtime: unknown: 'tensorrt'"),
        (["build", "one.onnx", "two.onnx"], "two.onnx"),
        (["build", "--step", "no-such-pass"], "no pass named 'no-such-pass'"),
        (
            ["build", "--step", "quantize-weights:bits=9"],
            "--step quantize-weights: bits: must be a number from 1 to 8",
        ),
        (["build", "--recipe", "none.toml"], "none.toml: cannot be read"),
        (["build", "--recipe", "r.toml", "--step", "clean"], "--recipe and --step"),
        (["apply", "clean", "model.onnx"], "-o"),
        (["apply", "no-such-pass", "m.onnx", "-o", "o.onnx"], "no pass named 'no-such-pass'"),
        (["apply", "clean", "none.onnx", "-o", "o.onnx"], "none.onnx: cannot be read"),
        (["passes", "no-such-pass"], "no pass named 'no-such-pass'"),
        (["push", "bundle"], "HOST"),
        (["status"], "HOST"),
        (["inspect"], "MODEL"),
        (["devices", "no-such-verb"], "no-such-verb"),
        (["devices", "show"], "NAME"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_a_bad_request(workplace, arguments, says):
    done = edgekit(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.removeprefix("reading the model\n").startswith("edgekit: ")
    assert says in done.err
    assert "Traceback" not in done.err
    assert list(workplace.iterdir()) == []


def test_a_bad_request_ends_a_real_process_with_2(workplace):
    done = spawn("build", "--max-drop", "much")
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 2, done.err


def test_help_takes_less_than_a_quarter_second_of_the_processor():
    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command("--help"), check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.25


@pytest.mark.parametrize(
    ("name", "heavy"),
    [("", HEAVY)]
    + [
        (name, HEAVY - {"pydantic"}) for name in ("build", "apply", "passes", "push")
    ],  # typer's own
)
def test_help_loads_no_heavy_library(name, heavy):
    code = (
        "import sys\n"
        "from edgekit.cli import main\n"
        f"sys.argv = ['edgekit', *{name.split()!r}, '--help']\n"
        "try:\n    main()\n"
        "finally:\n    print(' '.join(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {module.partition(".")[0] for module in done.stderr.split()}
    assert "edgekit" in loaded
    assert not loaded & heavy
