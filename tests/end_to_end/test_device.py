"""A bare emulated arm64 device: push installs everything, and its outputs agree."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from edgekit.config.profile import read_profile_text
from tests.builders.devices import boot, edgekit, home, script, skip_without
from tests.builders.metrics.projects import PROJECTS

DIGITS = Path(__file__).resolve().parents[2] / "examples/digits"
NEEDED = ("qemu-system-aarch64", "qemu-img", "mmdebstrap", "zstd")

pytestmark = [pytest.mark.vm, pytest.mark.slow]


@pytest.fixture(scope="module")
def device(device_scripts, tmp_path_factory):
    """Name of a running Cortex-A53 with 512 MiB, as ``ssh`` and edgekit know it."""
    skip_without(*NEEDED)
    if not (home() / "image-arm64/root.ext4").exists():
        if os.geteuid() != 0:
            pytest.skip("the image of the device is built by root")
        script(device_scripts, "build-image.sh", {"SIZE_MB": "900"})
    settings = {"ARCH": "arm64", "CPU": "cortex-a53", "SMP": "2", "MEM": "512"}
    with boot(device_scripts, settings, tmp_path_factory.mktemp("cache")) as name:
        yield name


def small_profile(folder: Path) -> str:
    """A device like the emulated one, with room for an 8-bit model but not for the original."""
    text = read_profile_text("raspberry-pi-zero-2w")
    text = text.replace('name = "raspberry-pi-zero-2w"', 'name = "small"')
    text = re.sub(r"(?m)^model_mib = .*$", "model_mib = 0.12", text)
    path = folder / "small.toml"
    path.write_text(text)
    return str(path)


def test_a_bare_device_is_given_a_runtime_and_answers_as_the_host_does(device, tmp_path):
    project = tmp_path / "digits"
    shutil.copytree(DIGITS, project, ignore=shutil.ignore_patterns("build"))
    profile = small_profile(tmp_path)
    built = edgekit("build", "-C", str(project), "--device", profile)
    bundle = str(project / "build/small")
    samples = str(project / "eval.npz")
    on_host = next(c for c in built["candidates"] if c["name"] == built["chosen"])
    assert built["chosen"].startswith("int8")

    facts = edgekit("devices", "probe", device)[0]
    assert facts["machine"] == "aarch64"
    assert facts["runtimes"] == [], "the device has no runtime of its own"

    first = edgekit("push", bundle, device)[0]
    assert first["health"]["healthy"]
    assert first["sent_bytes"] > 20e6, "the wheels of the runtime went along"

    again = edgekit("push", bundle, device)[0]
    assert again["release"] == first["release"]
    assert again["sent_bytes"] < 0.01 * again["total_bytes"]

    measured = edgekit("bench", bundle, device, "--eval", samples)[0]
    assert measured["scores"][0]["correct"] == on_host["measurements"][0]["correct"]
    assert measured["scores"][0]["n"] == 797
    assert measured["facts"]["cpu"].startswith("Cortex-A53")

    other = edgekit(
        "build", "-C", str(project), "--device", profile,
        "--out", str(tmp_path / "other"), "--max-drop", "2",
    )  # fmt: skip
    assert other["passes"]
    second = edgekit("push", str(tmp_path / "other"), device)[0]
    assert second["previous"] == first["release"] != second["release"]
    assert edgekit("rollback", device)[0]["current"]["name"] == first["release"]
    assert edgekit("status", device)[0]["previous"]["name"] == second["release"]


def test_candidates_are_measured_on_the_device_that_is_named(device, tmp_path):
    project = tmp_path / "digits"
    shutil.copytree(DIGITS, project, ignore=shutil.ignore_patterns("build"))
    steps = ("--step", "clean", "--step", "quantize-static", "--step", "to-tflite")
    built = edgekit(
        "build", "-C", str(project), "--device", "raspberry-pi-zero-2w", "--on", device, *steps
    )
    runtimes = {c["runtime"] for c in built["candidates"]}
    assert runtimes == {"onnxruntime", "litert"}, "the original, and what the steps make of it"
    for candidate in built["candidates"]:
        sources = [m["source"] for m in candidate["measurements"]]
        assert sources == ["host", f"device:{device}"]
    chosen = next(c for c in built["candidates"] if c["name"] == built["chosen"])
    checks = {c["name"]: c for c in chosen["verdict"]["checks"]}
    assert checks["latency_p95_ms"]["outcome"] == "holds"
    assert checks["peak_rss_mib"]["measured"] > 20
    assert "on the device" in checks["accuracy_drop_points"]["note"]


@pytest.mark.parametrize("task", PROJECTS)
def test_the_same_outputs_have_the_same_value_on_the_device_bit_for_bit(device, tmp_path, task):
    """The models add and copy, so that their outputs have the same bits on every processor."""
    PROJECTS[task](tmp_path)
    edgekit(
        "build", "-C", str(tmp_path), "--device", "raspberry-pi-zero-2w",
        "--on", device, "--step", "clean",
    )  # fmt: skip
    text = (tmp_path / "build/raspberry-pi-zero-2w/results.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    candidates = [line for line in lines if line["kind"] == "candidate"]
    assert candidates
    for candidate in candidates:
        host, there = (m["tally"]["statistics"] for m in candidate["measurements"])
        assert host == there
        assert host[0]["values"]
    compared = candidates[-1]["comparison"]
    assert compared["before"] == compared["after"]
    assert compared["interval"][0] <= 0 <= compared["interval"][1]
