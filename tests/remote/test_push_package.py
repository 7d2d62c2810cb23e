"""Package files of apps, pushed to a device over SSH."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import edgekit
from edgekit.bundle.bundle_file import encode_signature
from edgekit.errors import ArgumentError, DeviceError, ExitCode, UserError
from edgekit.remote.session import open_session
from edgekit.remote.trust import revoke_key, trust_key
from edgekit.signing.keys import make_key
from edgekit.signing.releases import sign_statement
from edgekit_agent.apps.package_format import PACKAGE, get_release_name
from edgekit_agent.files import sha256_of
from edgekit_agent.trust.statements import SignedFile, Statement
from tests.attacks.test_push_cut import until_cut
from tests.builders.apps.packages import draft_package
from tests.builders.projects import edgekit as run
from tests.builders.projects import listing
from tests.builders.servers import free_port, make_bundle, make_proxy
from tests.builders.watched_device import wait_until, watchers

pytestmark = pytest.mark.sshd


@pytest.fixture(scope="module")
def draft(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "leaf"
    make_bundle(folder, width=2000)
    return draft_package(folder)


@pytest.fixture(scope="module")
def package(draft, tmp_path_factory):
    return draft.write(tmp_path_factory.mktemp("package") / "leaf.run")


@pytest.fixture(scope="module")
def newer(draft, tmp_path_factory):
    """Version 1.1, with another page."""
    changed = draft.replace({"pages/index.html": b"<title>Version 1.1</title>"}, version="1.1")
    return changed.write(tmp_path_factory.mktemp("newer") / "leaf.run")


def call(sshd, *command):
    """Run a command on the device, as its user does."""
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=300, check=False,
        env={"HOME": str(sshd.home), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
    )  # fmt: skip


def facts(sshd):
    return json.loads(call(sshd, sshd.home / ".local/bin/leaf", "status", "--json").stdout)


def test_a_package_is_pushed_updated_rolled_back_and_removed(sshd, package, newer):
    done = run("push", package, "dev", "--json", "--watch", "0")
    assert done.code == 0, done.err
    (first,) = json.loads(done.out)
    assert (first["name"], first["previous"]) == ("leaf", None)
    assert first["health"]["healthy"]
    assert "files of leaf 1.0" in first["sent"]["names"][0]
    assert facts(sshd)["version"] == "1.0"
    checked = call(sshd, sshd.home / ".local/bin/leaf", "check")
    assert checked.returncode == 0, checked.stderr

    second = edgekit.push(newer, "dev", watch=0)
    assert second.previous == first["release"]
    # Neither the wheels nor the model were sent again.
    assert second.sent_bytes < 40_000
    assert first["sent_bytes"] > 5_000_000
    assert facts(sshd)["version"] == "1.1"
    assert edgekit.status("dev").apps[0].name == "leaf"
    again = edgekit.push(newer, "dev", watch=0)
    assert (again.release, again.health.healthy) == (second.release, True)

    back = edgekit.rollback("dev", name="leaf")
    assert back.current.name == first["release"]
    assert facts(sshd)["version"] == "1.0"
    assert run("uninstall", "dev", "leaf").code == 0
    assert not (sshd.home / ".local/bin/leaf").exists()
    assert list((sshd.edgekit_home / "runtimes").iterdir()) == []
    assert edgekit.status("dev").apps == ()


def test_the_app_is_the_one_that_the_file_itself_installs(sshd, package, newer):
    installed = call(sshd, "sh", package, "--no-start")
    assert installed.returncode == 0, installed.stderr
    pushed = edgekit.push(newer, "dev", watch=0)
    assert pushed.previous is not None
    assert pushed.sent_bytes < 500_000
    assert facts(sshd)["version"] == "1.1"
    again = call(sshd, "sh", newer, "--no-start")
    assert "was installed already" in again.stdout
    gone = call(sshd, sshd.home / ".local/bin/leaf", "uninstall")
    assert gone.returncode == 0, gone.stderr
    assert edgekit.status("dev").apps == ()


def test_an_unconfirmed_app_goes_back(sshd, package, newer, monkeypatch):
    old = edgekit.push(package, "dev", watch=0)
    with monkeypatch.context() as patch:
        patch.setattr("edgekit.remote.push_package.confirm", lambda *_: None)
        new = edgekit.push(newer, "dev", watch=20)
    state = edgekit.status("dev", name="leaf")
    assert (state.current.name, state.watch.release) == (new.release, new.release)
    wait_until(lambda: not watchers(sshd.edgekit_home / "apps" / "leaf"))
    assert edgekit.status("dev", name="leaf").current.name == old.release
    assert facts(sshd)["version"] == "1.0"
    done = edgekit.push(newer, "dev", watch=60)
    assert done.watch.seconds == 60
    assert edgekit.status("dev", name="leaf").watch is None


def test_a_rollback_on_the_device_ends_the_wait_for_a_confirmation(
    sshd, package, newer, monkeypatch
):
    old = edgekit.push(package, "dev", watch=0)
    with monkeypatch.context() as patch:
        patch.setattr("edgekit.remote.push_package.confirm", lambda *_: None)
        edgekit.push(newer, "dev", watch=600)
    assert call(sshd, sshd.home / ".local/bin/leaf", "rollback").returncode == 0
    state = edgekit.status("dev", name="leaf")
    assert (state.current.name, state.watch) == (old.release, None)
    wait_until(lambda: not watchers(sshd.edgekit_home / "apps" / "leaf"))


def test_an_app_that_runs_is_started_again_and_stopped_when_removed(sshd, package, newer):
    def ask():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as answer:
            return json.load(answer)

    port = free_port()
    started = call(sshd, "sh", package, "--port", port)
    assert started.returncode == 0, started.stderr
    assert ask()["version"] == "1.0"
    edgekit.push(newer, "dev", watch=0)
    assert ask()["version"] == "1.1"
    edgekit.rollback("dev", name="leaf")
    assert ask()["version"] == "1.0"
    edgekit.uninstall("dev", "leaf")
    with pytest.raises(OSError, match="refused"):
        ask()


WRONG = [
    ({"arch": "riscv64"}, "needs riscv64; the programs of this device are for"),
    ({"python": (3, 99)}, r"needs Python 3\.99; this is Python"),
    ({"glibc": (9, 0)}, r"needs glibc 9\.0 or newer; this device has"),
]


@pytest.mark.parametrize(("change", "says"), WRONG, ids=lambda each: str(each)[:20])
def test_what_the_device_cannot_run_is_refused_before_anything_changes(
    sshd, draft, tmp_path, change, says
):
    edgekit.status("dev")
    before = listing(sshd.home)
    file = draft.replace(**change).write(tmp_path / "leaf.run")
    with pytest.raises(DeviceError, match=says) as caught:
        edgekit.push(file, "dev", watch=0)
    assert (caught.value.exit_code, caught.value.kind) == (ExitCode.DEVICE, "unsuitable")
    assert "\n" not in caught.value.message
    assert listing(sshd.home) == before


def test_a_broken_link_resumes_and_leaves_the_old_app(sshd, package, newer, tmp_path, monkeypatch):
    with (
        make_proxy(sshd, tmp_path, monkeypatch, cut_after=6_000_000),
        pytest.raises(DeviceError, match="connection was lost"),
    ):
        edgekit.push(package, "dev", watch=0)
    assert edgekit.status("dev").apps == ()
    done = edgekit.push(package, "dev", watch=0)
    size = package.stat().st_size
    assert done.sent_bytes < size - 3_000_000
    assert facts(sshd)["version"] == "1.0"


def test_the_reported_result_of_an_interrupted_push_is_true(sshd, package, newer):
    from edgekit.bundle.package_file import open_app_package
    from edgekit.remote.push_package import push_package

    files = [open_app_package(path) for path in (package, newer)]
    edgekit.push(package, "dev", watch=0)
    lines, error = until_cut(lambda s: push_package(files[1], s), -1)
    assert error is None
    for at in range(1, len(lines) + 1):
        before = edgekit.status("dev", name="leaf").current.name
        other = next(file for file in files if file.release != before)
        _, error = until_cut(lambda s, file=other: push_package(file, s), at)
        served = edgekit.status("dev", name="leaf").current.name
        assert served == (before if error else other.release)
        assert error is None or error.exit_code == ExitCode.DEVICE


def test_the_keys_of_the_device_count_for_packages(sshd, draft, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "config"))
    key = make_key("own")
    with open_session("dev") as session:
        trust_key(session, key.get_trusted_key(), None)

    def write(version, number):
        changed = draft.replace(version=version)
        data = changed.state()
        (tmp_path / PACKAGE).write_bytes(data)
        file = SignedFile(PACKAGE, sha256_of(str(tmp_path / PACKAGE)), len(data))
        statement = Statement(
            key=key.public, name="leaf", release=get_release_name(data), version=number,
            signed_s=number, expires_s=number + 10**9, arch=changed.facts["arch"], profile="test",
            model="main", runtime="onnxruntime", threads=1, golden_samples="",
            max_relative_error=0.0, files=(file,),
        )  # fmt: skip

        def sign(members):
            members["signature.json"] = encode_signature(sign_statement(key, statement))

        return changed.write(tmp_path / f"{version}.run", change=sign)

    unsigned = draft.write(tmp_path / "unsigned.run")
    with pytest.raises(DeviceError, match="not signed"):
        edgekit.push(unsigned, "dev", watch=0)
    assert not (sshd.edgekit_home / "apps").exists()
    old, new = write("1.0", 1_900_000_000), write("2.0", 1_900_000_100)
    edgekit.push(new, "dev", watch=0)
    with pytest.raises(DeviceError, match="is lower than"):
        edgekit.push(old, "dev", watch=0)
    edgekit.push(old, "dev", watch=0, allow_downgrade=True)
    assert facts(sshd)["version"] == "1.0"
    served = edgekit.status("dev", name="leaf").current
    assert (served.key, served.version) == (key.public, 1_900_000_000)
    with open_session("dev") as session:
        trust_key(session, make_key("other").get_trusted_key(), None)
        revoke_key(session, "own")
    with pytest.raises(DeviceError, match="has been revoked"):
        edgekit.rollback("dev", name="leaf")


def test_a_damaged_package_is_refused_before_the_device_is_asked(package, tmp_path):
    data = bytearray(package.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bad.run").write_bytes(data)
    with pytest.raises(UserError, match=r"bad\.run: not a complete package file"):
        edgekit.push(tmp_path / "bad.run", "nowhere.invalid", watch=0)


def test_an_app_keeps_its_name_and_takes_no_other(sshd, package, tmp_path):
    with pytest.raises(ArgumentError, match="is the app leaf"):
        edgekit.push(package, "dev", name="door", watch=0)
    bundle = make_bundle(tmp_path / "b", width=8)
    edgekit.push(bundle, "dev", name="leaf", watch=0)
    with pytest.raises(DeviceError, match="a model that was pushed under the name leaf"):
        edgekit.push(package, "dev", watch=0)
    edgekit.uninstall("dev", "leaf")
    edgekit.push(package, "dev", watch=0)
    with pytest.raises(DeviceError, match="leaf is an app"):
        edgekit.push(bundle, "dev", name="leaf", watch=0)
    assert facts(sshd)["version"] == "1.0"
    with pytest.raises(DeviceError, match="not a folder share/edgekit"):
        edgekit.push(package, "dev", home=str(tmp_path / "elsewhere"), watch=0)
