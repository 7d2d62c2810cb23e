"""Packages that a device refuses, in one line and before anything is changed."""

import ast
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgekit_agent.apps.device_checks import check_device
from edgekit_agent.apps.package_file import open_package
from edgekit_agent.failures import AgentError
from edgekit_agent.jobs import TrustJob
from edgekit_agent.releases.homes import Home
from edgekit_agent.trust.keys import change_trust
from edgekit_agent.trust.statements import TrustedKey
from tests.builders.apps.device import Device
from tests.builders.apps.packages import HEADER, ROOT, write_zip

pytestmark = pytest.mark.slow

VERSIONS = Path.home() / ".pyenv" / "versions"
OLD_PYTHONS = sorted(VERSIONS.glob("3.[678].*/bin/python3")) if VERSIONS.is_dir() else []


def assert_refused(device, file, *words, status=2, program="sh"):
    refused = device.install(file, program=program)
    assert refused.returncode == status, refused.stderr
    assert refused.stderr.count("\n") == 1, refused.stderr
    assert "Traceback" not in refused.stderr
    for word in words:
        assert word in refused.stderr
    assert not device.prefix.exists()


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"arch": "riscv64"}, "needs riscv64; the programs of this device are for"),
        ({"python": (3, 99)}, "needs Python 3.99"),
        ({"glibc": (9, 1)}, "needs glibc 9.1 or newer; this device has"),
    ],
    ids=str,
)
@pytest.mark.parametrize("program", ["sh", "python3"])
def test_another_device_is_refused(device, draft, facts, word, program):
    file = draft.replace(**facts).write(device.folder / "other.run")
    assert_refused(device, file, word, program=program)


@pytest.mark.parametrize("python", OLD_PYTHONS, ids=lambda path: path.parts[-3])
def test_an_old_python_is_refused(tmp_path, package, python):
    device = Device(tmp_path / "device", python)
    for program in ("sh", "python3"):
        assert_refused(device, package, "needs Python 3.", program=program)


@pytest.mark.parametrize("name", ["linux/__main__.py", "edgekit_agent/apps/start.py"])
def test_the_modules_that_an_old_python_reads_have_its_syntax(name):
    text = (ROOT / "targets" / name).read_text(encoding="utf-8")
    ast.parse(text, feature_version=(3, 6))
    assert "from __future__ import annotations" not in text
    assert ":=" not in text


def test_a_device_without_python_is_refused(device, package):
    (device.programs / "python3").unlink()
    device.environment["PATH"] = str(device.programs)
    refused = device.call(shutil.which("sh"), package)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "there is no python3 on this device" in refused.stderr


def test_a_disk_without_space_is_refused(device, draft):
    reader = open_package(str(draft.write(device.folder / "leaf.run")))
    with pytest.raises(AgentError, match="MiB of disk space missing"):
        check_device(reader.package, Home(str(device.prefix)), 1 << 60)
    reader.close()


@pytest.mark.parametrize("size", [0, 10, 1000, 1_000_000, -1, -30])
def test_a_cut_file_is_refused(device, package, size):
    cut = device.folder / "cut.run"
    cut.write_bytes(package.read_bytes()[:size] if size else HEADER.read_bytes())
    refused = device.install(cut)
    assert refused.returncode in ((2,) if size not in (10, 1000) else (0, 2, 126, 127))
    assert "Traceback" not in refused.stderr
    assert not device.prefix.exists()


@pytest.mark.parametrize("size", [2000, 1_000_000, -1])
@pytest.mark.parametrize("python", [*OLD_PYTHONS, None], ids=str)
def test_python_says_of_a_cut_file_what_to_do(tmp_path, package, python, size):
    """It reads a zip file without its end as a script."""
    device = Device(tmp_path / "device", python)
    cut = device.folder / "cut.run"
    cut.write_bytes(package.read_bytes()[:size])
    refused = device.install(cut, program="python3")
    assert refused.returncode == 1
    last = refused.stderr.splitlines()[-1]
    assert last == "SyntaxError: encoding problem: copy-the-file-again-it-is-incomplete"
    assert len(refused.stderr.splitlines()) <= 2


@pytest.mark.parametrize(
    "name",
    [
        "__main__.py",
        "edgekit_agent/__init__.py",
        "edgekit_agent/apps/install.py",
        "licenses/leaf.txt",
        "models/main/model.onnx.packed",
        "package.json",
        "wheels/numpy.whl",
    ],
)
def test_changed_bytes_of_any_member_are_refused(device, package, name):
    """Also of the installer itself, which is one of them."""
    data = bytearray(package.read_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        begin = archive.getinfo(name).header_offset + 30 + len(name)
    data[begin + 5] ^= 0xFF
    data[begin + 9] ^= 0xFF
    file = device.folder / "changed.run"
    file.write_bytes(data)
    assert_refused(device, file)


HOSTILE = {
    "another file": lambda m: m.update({"app/new.py": b""}),
    "a missing file": lambda m: m.pop("licenses/leaf.txt"),
    "a changed file": lambda m: m.update({"licenses/leaf.txt": b"do as you LIKE\n"}),
    "a longer file": lambda m: m.update({"licenses/leaf.txt": b"x" * 1000}),
    "a path outside": lambda m: m.update({"../outside": b""}),
    "an absolute path": lambda m: m.update({"/tmp/outside": b""}),
    "no statement": lambda m: m.pop("package.json"),
    "a statement of nonsense": lambda m: m.update({"package.json": b"[" * 100_000}),
    "a huge statement": lambda m: m.update({"package.json": b" " * (5 << 20)}),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_members_other_than_stated_are_refused(device, draft, change):
    file = draft.write(device.folder / "hostile.run", change=change)
    assert_refused(device, file)
    assert not (device.folder / "outside").exists()


def test_a_bomb_is_refused_before_it_is_expanded(device, draft):
    """A member that expands to a gibibyte, and states so."""
    bomb = draft.replace({"app/zeros": bytes(1 << 20)})
    statement = bomb.state().replace(b'"bytes": 1048576', b'"bytes": 1073741824')
    members = {**bomb.members, "package.json": statement}
    assert_refused(device, write_zip(device.folder / "bomb.run", members))


def test_a_packed_model_that_states_too_much_is_refused(device, draft):
    size = len(draft.expanded["models/main/model.onnx.packed"])
    stated = f'"expanded_bytes": {size}'.encode()
    statement = draft.state().replace(stated, b'"expanded_bytes": 4294967295')
    assert statement != draft.state()
    members = {**draft.members, "package.json": statement}
    file = write_zip(device.folder / "packed.run", members)
    refused = device.install(file)
    assert refused.returncode in (2, 4)
    assert refused.stderr.strip()
    assert not (device.prefix / "bin/leaf").exists()
    assert not (device.prefix / "share/edgekit").exists()


@pytest.mark.parametrize("kind", ["link", "folder", "twice", "wheel"])
def test_entries_that_are_no_plain_files_are_refused(device, draft, kind):
    members = {**draft.members, "package.json": draft.state()}
    file = write_zip(device.folder / "entries.run", members)
    with zipfile.ZipFile(file, "a") as archive:
        if kind == "link":
            info = zipfile.ZipInfo("app/link")
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc/passwd")
        elif kind == "folder":
            archive.writestr("app/folder/", "")
        elif kind == "twice":
            with pytest.warns(UserWarning, match="Duplicate"):
                archive.writestr("licenses/leaf.txt", "do as you like\n")
        else:
            archive.writestr("wheels/more.whl", "")
    assert_refused(device, file)


def test_a_wheel_with_a_path_outside_leaves_nothing(device, draft):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../outside.py", "")
    hostile = draft.replace(
        {"wheels/bad.whl": buffer.getvalue()}, wheels=(*draft.facts["wheels"], "wheels/bad.whl")
    )
    refused = device.install(hostile.write(device.folder / "hostile.run"))
    assert refused.returncode == 2
    assert "is outside it" in refused.stderr
    assert not list(device.folder.rglob("outside.py"))
    assert not (device.prefix / "share/edgekit").exists()


def test_a_folder_of_another_program_is_left_alone(device, package):
    foreign = device.prefix / "share/edgekit/notes.txt"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("my own\n")
    refused = device.install(package)
    assert refused.returncode == 2
    assert "notes.txt" in refused.stderr
    assert [p.name for p in device.prefix.rglob("*")] == ["share", "edgekit", "notes.txt"]


def test_a_device_that_trusts_a_key_refuses_a_package_without_a_signature(device, package):
    home = device.prefix / "share/edgekit"
    home.parent.mkdir(parents=True)
    # the public key of the first test vector of RFC 8032
    key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    change_trust(TrustJob(str(home), add=(TrustedKey(key),)))
    refused = device.install(package)
    assert refused.returncode == 2
    assert "it is not signed" in refused.stderr
    assert not (device.prefix / "bin").exists()
    assert not device.app().exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_reported(device, package):
    device.prefix.mkdir()
    device.prefix.chmod(0o500)
    refused = device.install(package)
    assert refused.returncode == 4
    assert refused.stderr.count("\n") == 1


def test_the_help_lists_the_options(device, package):
    shown = device.call("sh", package, "--help")
    assert shown.returncode == 0
    for option in ("--prefix", "--no-start", "--port", "--systemd"):
        assert option in shown.stdout
    assert subprocess.run([sys.executable, package, "--version"], check=True).returncode == 0
