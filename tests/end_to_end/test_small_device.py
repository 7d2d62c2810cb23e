"""A 32-bit device with TFLite alone, emulated: an ONNX model goes there and answers as here."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

DIGITS = Path(__file__).resolve().parents[2] / "examples/digits"
NEEDED = ("qemu-system-arm", "qemu-img", "zstd")
BUILD_IMAGE = (
    "ARCH=armhf SIZE_MB=900 EXTRA=python3-numpy,libblas3,liblapack3,libgfortran5 "
    'WHEELS="--no-deps tflite-runtime==2.14.0" build-image.sh'
)
# Kernels of the two runtimes round now and then to the next step.
MOST_OTHERWISE = 0.01

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def device(device_scripts, tmp_path_factory):
    """Name of a running Cortex-A7 with one core and 512 MiB, as ``ssh`` and edgekit know it."""
    missing = [tool for tool in NEEDED if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    home = Path(os.environ.get("DEVICE_HOME", Path.home() / ".cache/edgekit-devices"))
    if not (home / "image-armhf/root.ext4").exists():
        pytest.skip(f"no image of the device; make it with {BUILD_IMAGE}")
    environment = os.environ | {"DEVICE_HOME": str(home)}
    name = f"test-{uuid.uuid4().hex[:8]}"
    settings = {"ARCH": "armhf", "CPU": "cortex-a7", "SMP": "1", "MEM": "512"}
    script(device_scripts, f"boot.sh {name}", environment | settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_SSH_CONFIG", str(home / "run" / name / "ssh_config"))
        patch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield name
    script(device_scripts, f"stop.sh {name} --power-cut", environment)
    shutil.rmtree(home / "run" / name)


def script(folder: Path, command: str, environment: dict) -> None:
    subprocess.run(["bash", "-c", f"{folder}/{command}"], env=environment, check=True, timeout=400)


def edgekit(*arguments: str):
    """Run a command that must succeed; its JSON document."""
    command = [sys.executable, "-m", "edgekit", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_onnx_model_is_built_pushed_and_scored_on_a_device_that_runs_tflite_alone(
    device, tmp_path
):
    project = tmp_path / "digits"
    shutil.copytree(DIGITS, project, ignore=shutil.ignore_patterns("build"))
    built = edgekit("build", "-C", str(project), "--device", "beaglebone-black")
    bundle = str(project / "build/beaglebone-black")
    on_host = next(c for c in built["candidates"] if c["name"] == built["chosen"])
    assert on_host["runtime"] == "litert"

    pushed = edgekit("push", bundle, device)[0]
    assert pushed["health"]["healthy"]
    assert pushed["runtime"] == "litert 2.14.0"

    measured = edgekit("bench", bundle, device, "--eval", str(project / "eval.npz"))[0]
    assert measured["facts"]["machine"] == "armv7l"
    right, n = on_host["measurements"][0]["correct"], measured["tally"]["n"]
    assert abs(measured["tally"]["correct"] - right) <= MOST_OTHERWISE * n
