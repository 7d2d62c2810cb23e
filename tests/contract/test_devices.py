"""Commands that reach a device, with this machine as the device, and their exit codes."""

import json
import platform
import re
import shutil
import zlib
from pathlib import Path

import onnxruntime
import pytest

from edgekit.config.profile import list_shipped_names
from edgekit.remote.upload import COMMANDS_BYTES
from tests.builders.projects import DIGITS, PROFILE, assert_untouched, copy_digits, edgekit, spawn

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the example's bundle is for x86_64"
)


@pytest.fixture
def bundle(built):
    return built[0] / "build" / PROFILE


def second_bundle(workplace, *how):
    """Build another bundle of the same project, from the shared cache."""
    project = copy_digits(workplace / "second")
    done = spawn("build", "-C", project, "--seed", "7", "--out", project / "out", *how)
    assert done.code == 0, done.err
    return project / "out"


def ask_json(*arguments):
    """Run a command that must succeed, and return its JSON document."""
    done = edgekit(*arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_push_status_rollback_and_bench_from_an_empty_device_on(bundle, workplace):
    (nothing,) = ask_json("status", "local")
    assert nothing["current"] is None
    assert edgekit("rollback", "local").code == 4

    (pushed,) = ask_json("push", bundle, "local")
    (one,) = ask_json("status", "local")
    assert one["host"] == "local"
    assert one["current"]["name"] == pushed["release"]
    assert one["previous"] is None
    assert pushed["health"]["relative_error"] < 0.01

    (second,) = ask_json("push", second_bundle(workplace), "local")
    assert second["previous"] == pushed["release"] != second["release"]

    (back,) = ask_json("rollback", "local")
    assert back["current"]["name"] == pushed["release"]
    said = edgekit("status", "local")
    assert said.code == 0
    manifest = json.loads((bundle / "manifest.json").read_text())
    figures = manifest["measurements"][0]
    name = manifest["recipe"]["name"]
    counts = f"({figures['correct']}/{figures['n']}) (top1, host, drop +0.00 points)"
    right = f"accuracy {100 * figures['correct'] / figures['n']:.2f} % {counts}"
    installed = back["current"]["installed_at"]
    for part in (f"serves {pushed['release']} (", f", {name}, {right}, ", f"installed {installed}"):
        assert part in said.out
    assert back["current_model"]["recipe"] == back["previous_model"]["recipe"] == name

    (benched,) = ask_json("bench", bundle, "local", "--eval", DIGITS / "eval.npz")
    assert benched["scores"][0]["correct"] > 780
    assert benched["times"]["p50_ms"] > 0
    assert edgekit("status", "local").out == said.out, "measuring switches nothing"


def test_the_bundle_file_installs_the_same_release_as_its_folder(bundle):
    (one,) = ask_json("push", bundle, "local")
    (other,) = ask_json("push", bundle / f"{PROFILE}.edgekit", "local")
    assert other["release"] == one["release"]


def test_nothing_of_a_device_is_written_outside_its_home(bundle, workplace, tmp_path):
    with assert_untouched(workplace, tmp_path / "home", bundle):
        assert edgekit("push", bundle, "local").code == 0
        assert edgekit("status", "local").code == 0
    assert (tmp_path / "device").is_dir()


def test_a_host_that_cannot_be_reached_ends_with_4_and_one_line(bundle):
    for arguments in (
        ("status", "user@127.0.0.1:1"),
        ("rollback", "user@127.0.0.1:1"),
        ("push", bundle, "user@127.0.0.1:1"),
        ("bench", bundle, "user@127.0.0.1:1"),
        ("devices", "probe", "user@127.0.0.1:1"),
    ):
        done = edgekit(*arguments)
        assert (done.code, done.out) == (4, ""), arguments
        said = [line for line in done.err.splitlines() if line.startswith("edgekit: ")]
        assert len(said) == 1, done.err
        assert "127.0.0.1" in said[0]
        assert "Traceback" not in done.err


def test_one_failing_host_does_not_affect_the_others():
    done = edgekit("devices", "probe", "user@127.0.0.1:1", "local", "--json")
    assert done.code == 4
    facts, failure = json.loads(done.out)
    assert (facts["host"], facts["machine"]) == ("local", platform.machine())
    assert failure["host"] == "user@127.0.0.1:1"
    assert "Connection refused" in failure["error"]


def test_json_names_every_host_that_did_not_answer():
    done = edgekit("status", "user@127.0.0.1:1", "--json")
    (failure,) = json.loads(done.out)
    assert (done.code, failure["host"]) == (4, "user@127.0.0.1:1")


def test_a_bundle_for_another_machine_is_refused(bundle, workplace):
    project = copy_digits(workplace / "arm")
    built = spawn("build", "-C", project, "--device", "raspberry-pi-4")
    assert built.code == 0, built.err
    done = edgekit("push", project / "build" / "raspberry-pi-4", "local")
    assert done.code == 4
    assert "wrong architecture" in done.err
    (status,) = ask_json("status", "local")
    assert status["current"] is None


# ---------------------------------------------------------------- profiles


def test_every_profile_that_ships_is_listed_shown_and_valid(workplace):
    listed = ask_json("devices", "list")
    assert [p["name"] for p in listed] == list_shipped_names()
    text = edgekit("devices", "list").out
    assert edgekit("devices").out == text
    assert ask_json("devices") == listed
    for name in list_shipped_names():
        assert re.search(rf"^{re.escape(name)} ", text, re.MULTILINE)
        shown = edgekit("devices", "show", name)
        (workplace / "own.toml").write_text(shown.out)
        checked = edgekit("devices", "check", "own.toml")
        assert (checked.code, checked.out) == (0, f"own.toml: {name} is a valid profile\n")
        assert ask_json("devices", "check", "own.toml") == ask_json("devices", "show", name)


def test_inspect_says_what_a_model_is_in_json():
    facts = ask_json("inspect", DIGITS / "model.onnx", "--device", PROFILE)
    assert facts["bytes"] == (DIGITS / "model.onnx").stat().st_size
    assert facts["obstacles"] == []
    assert facts["cost"]["macs"] > 10_000


def test_report_writes_the_report_anew(built, workplace):
    project = copy_digits(workplace / "digits")
    assert spawn("build", "-C", project).code == 0
    path = project / "build" / PROFILE / "report.html"
    first = path.read_text()
    path.unlink()
    done = edgekit("report", path.parent)
    assert (done.code, done.out) == (0, f"{path}\n")
    assert path.read_text() == first


def test_init_writes_a_project_that_builds(built, digits):
    (digits / "edgekit.toml").unlink()
    done = edgekit("init", "-C", digits)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{digits / 'edgekit.toml'} written\n")
    # The same model and data: the cache holds all of it.
    assert spawn("build", "-C", digits, "--device", PROFILE).code == 0


def test_an_update_sends_what_the_build_judged(bundle, workplace):
    ask_json("push", bundle, "local")
    other = second_bundle(
        workplace,
        "--step",
        "clean",
        "--step",
        "quantize-static:ranges=percentile,percentile=95.0",
        "--max-drop",
        "50",
    )
    (pushed,) = ask_json("push", other, "local")

    manifest = json.loads((other / "manifest.json").read_text())
    figures = manifest["measurements"][0]
    judged = next(c for c in manifest["verdict"]["checks"] if c["name"] == "transfer_mib")
    update = figures["transfer_bytes"] + figures["overhead_bytes"]
    assert judged["measured"] == pytest.approx(update / 2**20)
    sent = zlib.compress((other / "manifest.json").read_bytes(), 6)
    files = sum(f["transfer_bytes"] or f["bytes"] for f in manifest["files"])
    assert abs(files + len(sent) + COMMANDS_BYTES - update) < 200
    assert update - 1500 < pushed["sent_bytes"] <= update
    assert (other / "golden.npz").stat().st_size < 1000


def test_a_damaged_manifest_leaves_the_rest_of_the_status(bundle, workplace):
    ask_json("push", bundle, "local")
    manifest = workplace.parent / "device" / "current" / "manifest.json"
    manifest.unlink()
    manifest.write_text('{"measurements": 7}')
    (one,) = ask_json("status", "local")
    assert one["current_model"] is None
    assert one["current"]["model"] == "model.onnx"
    assert "serves" in edgekit("status", "local").out


def test_the_probe_sees_the_runtime_that_push_installed(bundle, workplace):
    ask_json("push", bundle, "local")
    device = workplace.parent / "device"
    site = device / "runtimes" / "onnxruntime-own"
    shutil.copytree(Path(onnxruntime.__file__).parent, site / "onnxruntime", symlinks=True)
    record = device / "current" / "release.json"
    facts = json.loads(record.read_text()) | {"site": str(site)}
    record.unlink()
    record.write_text(json.dumps(facts))

    (probed,) = ask_json("devices", "probe", "local")
    found = [r for r in probed["runtimes"] if r["site"] == str(site)]
    assert [r["name"] for r in found] == ["onnxruntime"]
    assert "onnxruntime" in edgekit("devices", "probe", "local").out
