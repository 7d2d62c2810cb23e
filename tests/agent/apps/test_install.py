"""Installation of a package file on a device with python3 alone."""

import os
import shutil
import signal

import onnx
import pytest

from edgekit_agent.apps.remote_jobs import uninstall_home
from edgekit_agent.failures import AgentError
from edgekit_agent.jobs import UninstallJob
from edgekit_agent.releases.homes import Home, claim
from tests.builders.apps.device import wait_for

pytestmark = pytest.mark.slow


def test_an_installed_app_checks_itself(installed):
    checked = installed.run("check")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "main: works" in checked.stdout
    assert installed.run("--version").stdout == "leaf 1.0\n"
    assert "not running" in installed.run("status").stdout


def test_everything_but_the_wheels_and_the_installer_is_installed(installed):
    release = installed.app() / "current"
    assert (release / "licenses/leaf.txt").read_bytes() == b"do as you like\n"
    assert (release / "pages/index.html").exists()
    assert (release / "models/main/model.onnx").exists()
    assert not (release / "wheels").exists()
    assert not (release / "__main__.py").exists()
    assert not list(release.rglob("*.packed"))


def test_the_same_package_again_changes_nothing_and_repairs_damage(package, installed):
    before = installed.list_files()
    again = installed.install(package, "--no-start", program="python3")
    assert again.returncode == 0
    assert "installed already" in again.stdout
    assert installed.list_files() == before

    release = installed.app() / "current"
    (runtime,) = (installed.apps.parent / "runtimes").iterdir()
    (release / "models/main/model.onnx").write_bytes(b"rot")
    (release / "pages/page.js").unlink()
    (runtime / "numpy/version.py").write_text("rot")
    found = installed.run("check")
    assert found.returncode == 3
    assert "model.onnx" in found.stderr
    assert "run the package file again" in found.stderr

    assert installed.install(package).returncode == 0
    assert installed.list_files() == before
    assert installed.run("check").returncode == 0


def test_a_damaged_program_file_is_reported_in_one_line(package, installed):
    (installed.app() / "current/edgekit_agent/apps/commands.py").write_text("rot rot")
    failed = installed.run("check")
    assert failed.returncode == 3
    assert failed.stderr.count("\n") == 1
    assert "run the package file again" in failed.stderr
    assert installed.install(package).returncode == 0
    assert installed.run("check").returncode == 0


@pytest.mark.parametrize("name", ["package.json", "release.json", "models/main/manifest.json"])
def test_an_app_without_one_of_its_records_is_repaired(device, package, name):
    assert device.install(package).returncode == 0
    (device.app() / "current" / name).unlink()
    assert "run the package file again" in device.run("check").stderr or name == "release.json"
    repaired = device.install(package)
    assert repaired.returncode == 0, repaired.stderr
    assert "main: works" in device.run("check").stdout
    assert device.run("uninstall").returncode == 0


def test_a_model_that_storage_has_changed_is_not_served(device, package):
    assert device.install(package).returncode == 0
    (model,) = (device.app() / "current/models/main").glob("*.onnx")
    data = bytearray(model.read_bytes())
    place = data.index(onnx.load(model).graph.initializer[0].raw_data)
    data[place] ^= 1
    model.chmod(0o600)
    model.write_bytes(data)
    with device.serve() as server:
        wait_for(lambda: server.ask("GET", "/health").json.get("problem"))
        assert "model.onnx" in server.ask("GET", "/health").json["problem"]
        assert server.ask("GET", "/health").json["ready"] is False
        assert device.install(package).returncode == 0
        server.wait_until_ready()
        assert server.predict().status == 200


def test_a_newer_package_is_installed_beside_and_can_be_rolled_back(device, package, newer_package):
    assert device.install(package).returncode == 0
    first = device.served()
    refused = device.run("rollback")
    assert refused.stderr.splitlines()[-1] == "leaf: there is no release before this one"
    assert device.install(newer_package).returncode == 0
    assert device.run("--version").stdout == "leaf 1.1\n"
    assert f"previous: 1.0 (release {first})" in device.run("status").stdout

    back = device.run("rollback")
    assert (back.returncode, back.stdout) == (0, "leaf 1.0 again\n")
    assert device.served() == first
    assert device.run("rollback").stdout == "leaf 1.1 again\n"


def test_uninstall_removes_the_app_and_leaves_everything_else(device, package, draft):
    (device.prefix / "bin").mkdir(parents=True)
    (device.prefix / "bin/other").write_text("#!/bin/sh\n")
    other = draft.replace(name="moss").write(device.folder / "moss.run")
    assert device.install(package).returncode == 0
    assert device.install(other).returncode == 0
    assert device.run("uninstall").returncode == 0
    assert not device.app().exists()
    assert not (device.prefix / "bin/leaf").exists()
    assert device.run("check", name="moss").returncode == 0, "the runtime of both is still there"

    removed = device.run("uninstall", name="moss")
    assert (removed.returncode, removed.stdout) == (0, "moss is removed\n")
    assert [str(p.relative_to(device.prefix)) for p in device.prefix.rglob("*")] == [
        "bin",
        "bin/other",
    ]


def test_a_removal_in_another_home_leaves_the_command_of_the_app(device, package):
    assert device.install(package).returncode == 0
    other = Home(str(device.prefix / "share/other"))
    claim(other)
    with pytest.raises(AgentError, match="nothing is installed under the name leaf"):
        uninstall_home(UninstallJob(other.path, "leaf"))
    assert device.run("check").returncode == 0
    uninstall_home(UninstallJob(str(device.apps.parent), "leaf"))
    assert not (device.prefix / "bin/leaf").exists()


def test_an_app_below_a_linked_folder_knows_its_command(device, package):
    (device.folder / "disk").mkdir()
    device.prefix.mkdir()
    (device.prefix / "share").symlink_to(device.folder / "disk")
    assert device.install(package).returncode == 0
    assert f"start it: {device.prefix}/bin/leaf serve" in device.run("status").stdout
    assert device.run("uninstall").returncode == 0
    assert not (device.prefix / "bin/leaf").exists()


def test_a_command_of_another_program_is_not_replaced(device, package):
    foreign = device.prefix / "bin/leaf"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("#!/bin/sh\n# my own\n")
    refused = device.install(package)
    assert refused.returncode == 2
    assert "belongs to another program" in refused.stderr
    assert list(device.prefix.rglob("*")) == [foreign.parent, foreign]


def test_a_folder_of_commands_that_is_a_file_is_reported_before_anything_is_changed(
    device, package
):
    device.prefix.mkdir()
    (device.prefix / "bin").write_text("my own\n")
    refused = device.install(package)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "bin is not a folder; nothing was changed" in refused.stderr
    assert [p.name for p in device.prefix.iterdir()] == ["bin"]


def test_a_model_whose_outputs_differ_is_not_served(device, package, draft):
    golden = draft.members["models/main/golden.npz"]
    assert device.install(package).returncode == 0
    served, before = device.served(), device.list_files()
    wrong = draft.replace({"models/main/golden.npz": make_wrong(golden)}, version="2.0").write(
        device.folder / "wrong.run"
    )
    failed = device.install(wrong)
    assert failed.returncode == 4
    assert "does not work on this device" in failed.stderr
    assert "the limit is" in failed.stderr
    assert device.served() == served
    assert device.list_files() == before
    shutil.rmtree(device.prefix)
    assert device.install(wrong).returncode == 4
    assert not list(device.prefix.rglob("*.npz"))
    assert not (device.prefix / "share/edgekit").exists()


def test_an_app_whose_own_code_fails_is_not_served(device, draft):
    broken = draft.replace({"app/main.py": b"import nothing_of_this_name\n"}, entry="main:answer")
    failed = device.install(broken.write(device.folder / "broken.run"))
    assert failed.returncode == 4
    assert "nothing_of_this_name" in failed.stderr
    assert not (device.prefix / "bin/leaf").exists()


@pytest.mark.parametrize(
    "options",
    [["--port", "x"], ["--port", "65536"], ["--port", "-1"], ["--nothing"], ["extra"]],
    ids=str,
)
def test_wrong_options_are_refused(device, package, options):
    refused = device.install(package, *options)
    assert refused.returncode == 2
    assert not device.prefix.exists()


def make_wrong(golden: bytes) -> bytes:
    import io

    import numpy as np

    with np.load(io.BytesIO(golden)) as arrays:
        changed = {n: -a if n.startswith("output:") else a for n, a in arrays.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **changed)
    return buffer.getvalue()


def test_an_interrupted_installation_says_so_and_leaves_nothing(device, package):
    command = ["sh", package, "--prefix", device.prefix, "--no-start"]
    with device.start(command, start_new_session=True) as process:
        wait_for(lambda: list(device.prefix.rglob("*.so*")))
        os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; run the command again" in stderr
    assert "Traceback" not in stderr
    assert not (device.prefix / "share/edgekit").exists()


def test_a_disk_that_fills_up_leaves_nothing_of_a_first_installation(device, package):
    script = 'ulimit -f 4000; exec sh "$1" --prefix "$2" --no-start'
    failed = device.call("sh", "-c", script, "sh", package, device.prefix)
    assert failed.returncode == 4
    assert "Traceback" not in failed.stderr
    assert "file size limit" in failed.stderr
    assert not (device.prefix / "share/edgekit").exists()
    assert not (device.prefix / "bin/leaf").exists()
