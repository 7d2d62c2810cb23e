"""Plugins of other distributions work like edgekit's own parts, and break nothing."""

import json
import re

import onnx
import pytest

from tests.builders.projects import ROOT, spawn
from tests.contract.demo_plugin import LEFT_OUT, write_plugin

WARNING = "edgekit: warning: plugin "


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return write_plugin(tmp_path_factory.mktemp("plugin") / "site")


@pytest.fixture
def run(installed, workplace, monkeypatch):
    """Run the command in a separate process with the plugins installed."""
    monkeypatch.setenv("DEMO_MARK", str(workplace / "loaded"))

    def run(*arguments, site=installed):
        monkeypatch.setenv("PYTHONPATH", str(site), prepend=":")
        return spawn(*arguments)

    return run


def warnings_of(done):
    return [line for line in done.err.splitlines() if line.startswith(WARNING)]


def test_no_plugin_is_loaded_for_what_needs_none(run, workplace, tiny):
    for arguments in (["--help"], ["passes", "clean"], ["devices", "show", "tablet-x86"]):
        done = run(*arguments)
        assert (done.code, warnings_of(done)) == (0, [])
    assert not (workplace / "loaded").exists()


def test_passes_lists_those_of_plugins_and_warns_once_of_each_that_is_broken(run):
    done = run("passes", "--json")
    listed = {each["name"]: each for each in json.loads(done.out)}
    assert done.code == 0
    assert listed["stamp"]["plugin"] == "demo-plugin 1.4"
    assert listed["clean"]["plugin"] == ""
    assert {"scale", "crash"} <= set(listed)
    assert not {"mutable", "nothing", "absent", "missing", "odd", "strange"} & set(listed)
    warned = warnings_of(done)
    assert len(warned) == len(LEFT_OUT)
    for name, reason in LEFT_OUT.items():
        wanted = f"{WARNING}{name!r} of demo-plugin 1.4 is ignored: {reason}"
        assert any(line.startswith(wanted) for line in warned), warned


@pytest.mark.parametrize(
    ("metadata", "entries"),
    [
        (b"\xff\xfe", b"[edgekit.passes]\na = b:C\n"),
        (b"Name: bad\n", b"\xff\xfe"),
        (b"Name: bad\n", b"[edgekit.passes]\nno equals sign\n"),
    ],
)
def test_a_distribution_with_damaged_metadata_costs_one_warning(run, tmp_path, metadata, entries):
    folder = tmp_path / "bad-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_bytes(metadata)
    (folder / "entry_points.txt").write_bytes(entries)
    done = run("passes", "--json", site=tmp_path)
    assert done.code == 0, done.err
    assert "clean" in [each["name"] for each in json.loads(done.out)]
    (warning,) = [line for line in done.err.splitlines() if "warning" in line]
    assert f"plugins of {folder} are ignored" in warning


def test_a_pass_is_described_with_its_plugin_and_settings(run):
    done = run("passes", "stamp")
    first, *others = done.out.splitlines()
    assert first == "stamp: write a text into the file (plugin demo-plugin 1.4)"
    assert "  style: one of plain, loud (default plain)" in others
    assert "Write a text into the producer of the model." in others


def test_a_pass_runs_with_settings_that_are_checked(run, tiny, workplace):
    done = run("apply", "stamp", tiny / "model.onnx", "-o", "out.onnx", "--set", "style=loud")
    assert done.code == 0, done.err
    assert onnx.load(workplace / "out.onnx").producer_name == "DEMO"
    wrong = run("apply", "stamp", tiny / "model.onnx", "-o", "x.onnx", "--set", "style=shy")
    assert wrong.code == 2
    assert "style: must be one of plain, loud, got 'shy'" in wrong.err


def test_a_pass_is_held_to_its_promise(run, tiny, workplace):
    done = run(
        "apply", "scale", tiny / "model.onnx", "-o", "out.onnx", "--data", tiny / "calib.npz"
    )
    assert done.code == 1
    assert "edgekit: scale: " in done.err
    assert not (workplace / "out.onnx").exists()


def test_a_crash_is_reported_as_a_fault_of_the_plugin(run, tiny):
    applied = run("apply", "crash", tiny / "model.onnx", "-o", "out.onnx")
    assert applied.code == 1
    assert "crash crashed: ZeroDivisionError: division by zero" in applied.err
    assert "this is a bug in the plugin demo-plugin 1.4; please report it" in applied.err
    built = run("build", "-C", tiny, "--step", "crash")
    assert (built.code, built.out) == (1, "")
    assert "crash crashed: ZeroDivisionError" in built.err
    assert "this is a bug in the plugin demo-plugin 1.4; please report it" in built.err
    assert "Traceback" not in applied.err + built.err


def test_the_version_of_the_distribution_decides_the_candidate(run, tiny, tmp_path):
    def build(site):
        done = run("build", "-C", tiny, "--step", "stamp", "--allow-failing", site=site)
        assert done.code in (0, 3), done.err
        lines = (tiny / "build/tablet-x86/results.jsonl").read_text().splitlines()
        keys = {each["name"]: each["key"] for each in map(json.loads, lines) if "key" in each}
        return keys["stamp"]

    first = build(write_plugin(tmp_path / "first", version="1.4"))
    assert build(write_plugin(tmp_path / "second", version="1.4")) == first
    assert build(write_plugin(tmp_path / "third", version="1.5")) != first


def test_profiles_of_plugins_are_listed_shown_and_built_for(run, tiny):
    listed = run("devices", "list")
    assert listed.code == 0
    assert "demo-board" in listed.out
    (clash, wrong) = warnings_of(listed)
    assert "'boards' of demo-plugin 1.4" in clash
    assert "clash.toml: there is a profile named tablet-x86 already" in clash
    assert "'broken' of demo-plugin 1.4" in wrong
    assert "wrong.toml: hardware.cores" in wrong
    assert 'name = "demo-board"' in run("devices", "show", "demo-board").out
    done = run("inspect", tiny / "model.onnx", "--device", "demo-board")
    assert done.code == 0, done.err
    unknown = run("inspect", tiny / "model.onnx", "--device", "demo-bord")
    assert unknown.code == 2
    assert "did you mean 'demo-board'?" in unknown.err


def test_the_plugin_of_the_documentation_works(run, tiny, workplace):
    page = (ROOT / "docs/how-to/plugins.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', page, re.DOTALL))
    site = workplace / "site"
    info = site / "my_passes-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_passes.py").write_text(blocks["my_passes.py"])
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-passes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgekit.passes]\ndrop-names = my_passes:DROP_NAMES\n")
    named = onnx.load(tiny / "model.onnx")
    named.graph.node[0].name = "product"
    onnx.save(named, workplace / "named.onnx")
    done = run("apply", "drop-names", "named.onnx", "-o", "bare.onnx", site=site)
    assert done.code == 0, done.err
    assert onnx.load(workplace / "bare.onnx").graph.node[0].name == ""
