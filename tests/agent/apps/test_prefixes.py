"""Folders in which an app is installed: those with odd names, and those in which it cannot run."""

import os
import subprocess

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["a 'b\" $c", "two\nlines", "--x", "ä€"])
def test_an_app_works_below_a_folder_with_an_odd_name(device, package, name):
    device.prefix = device.folder / name
    done = device.install(package)
    assert done.returncode == 0, done.stderr
    assert "main: works" in device.run("check").stdout
    assert device.run("uninstall").returncode == 0
    assert not list(device.prefix.iterdir())


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("", "the name of the folder is empty"),
        ("{0}/file", "file is not a folder"),
        ("{0}/file/below", "file is not a folder"),
        ("{0}/loop", "loop is not a folder"),
        ("{0}/dangling/below", "dangling is not a folder"),
        ("{0}/" + "x" * 256, "255 bytes of one name"),
        ("{0}/" + "y/" * 600, "1000 characters"),
        ("{0}/\udcff", "is not UTF-8"),
        ("~no-such-user/x", "there is no home folder ~no-such-user"),
    ],
)
def test_a_prefix_that_is_no_folder_is_refused(device, package, prefix, said):
    (device.folder / "file").touch()
    (device.folder / "loop").symlink_to("loop")
    (device.folder / "dangling").symlink_to("nowhere")
    before = sorted(device.folder.rglob("*"))
    command = ["sh", package, "--prefix", prefix.format(device.folder), "--no-start"]
    refused = subprocess.run(
        command,
        env=device.environment,
        cwd=device.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "argument --prefix: " in refused.stderr.splitlines()[-1]
    assert said in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr
    assert sorted(device.folder.rglob("*")) == before


@pytest.fixture
def mounted():
    """Mount memory at folders; it is unmounted at the end of the test."""
    folders = []

    def mount(folder, options):
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False)
        if done.returncode:
            pytest.skip("mounts need root")
        folders.append(folder)

    yield mount
    for folder in reversed(folders):
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
@pytest.mark.parametrize("place", ["", "bin", "share"])
def test_a_file_system_without_programs_is_refused_in_one_line(device, package, mounted, place):
    folder = device.prefix / place
    mounted(folder, "noexec")
    refused = device.install(package)
    assert refused.returncode == 4
    assert refused.stderr.count("\n") == 1
    assert "on a file system from which no program may run (noexec)" in refused.stderr
    assert "choose another folder: --prefix" in refused.stderr
    assert not list(folder.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_an_app_whose_file_system_became_noexec_says_so(device, package, mounted):
    mounted(device.prefix, "size=500m")
    assert device.install(package).returncode == 0
    subprocess.run(["mount", "-o", "remount,noexec", device.prefix], check=True)
    launcher = device.prefix / "bin" / "leaf"
    said = "is on a file system from which no program may run (noexec) (mount it without noexec"
    checked = device.call("sh", launcher, "check")
    assert checked.returncode == 4
    assert checked.stderr.count("\n") == 1
    assert said in checked.stderr
    with device.start(["sh", launcher, "serve", "--port", "0"]) as process:
        line = process.stderr.readline()
        process.terminate()
    assert "no program may run (noexec)" in line
