"""An emulated 32-bit device with TFLite only runs an ONNX model with the same outputs."""

import shutil
from pathlib import Path

import pytest

from tests.builders.devices import boot, edgekit, home, skip_without

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
    skip_without(*NEEDED)
    if not (home() / "image-armhf/root.ext4").exists():
        pytest.skip(f"no image of the device; make it with {BUILD_IMAGE}")
    settings = {"ARCH": "armhf", "CPU": "cortex-a7", "SMP": "1", "MEM": "512"}
    with boot(device_scripts, settings, tmp_path_factory.mktemp("cache")) as name:
        yield name


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
    right, n = on_host["measurements"][0]["correct"], measured["scores"][0]["n"]
    assert abs(measured["scores"][0]["correct"] - right) <= MOST_OTHERWISE * n
