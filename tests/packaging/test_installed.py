"""A package installs, answers on the loopback address, and is removed; also as a Debian package."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request

import numpy as np
import pytest

from tests.builders.projects import spawn

pytestmark = pytest.mark.slow
START_S = 60


@pytest.fixture(scope="module")
def bundle(built):
    """The folder of a build."""
    return built[0] / "build" / "tablet-x86"


def package(*words, cache):
    done = spawn("package", *words, "--json", EDGEKIT_CACHE=cache)
    assert done.code == 0, done.err
    return json.loads(done.out)


def run(*command, **options):
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(port, path, body=None, kind="application/json"):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/{path}", data=body, headers={"Content-Type": kind}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def wait_until_ready(port):
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            if ask(port, "health")["ready"]:
                return
        except OSError:
            pass
        time.sleep(0.2)
    pytest.fail("the app does not answer")


@pytest.mark.parametrize("template", [None, "folder-watch"])
def test_a_package_answers_with_the_right_class(bundle, built, shared_cache, tmp_path, template):
    file = tmp_path / "digits.run"
    words = ["--template", template] if template else []
    package(bundle, "-o", file, "--name", "digits", *words, cache=shared_cache)
    prefix, watched = tmp_path / "prefix", tmp_path / "incoming"
    run("sh", file, "--prefix", prefix, "--no-start")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = prefix / "bin" / "digits"
    samples = np.load(built[0] / "eval.npz")
    rows = [json.dumps({"image": values.tolist()}).encode() for values in samples["image"][:20]]
    server = subprocess.Popen(
        [str(command), "serve", "--port", str(port)],
        env={"WATCH_FOLDER": str(watched), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    try:
        wait_until_ready(port)
        answers = [ask(port, "predict", row) for row in rows]
        right = sum(a["result"] == str(y) for a, y in zip(answers, samples["y"], strict=False))
        assert right >= 18
        assert all(0.0 <= answer["confidence"] <= 1.0 for answer in answers)
        if template == "folder-watch":
            (watched / "one.json").write_bytes(rows[0])
            found = read_when_there(watched / "one.json.result.json")
            assert (found["file"], found["result"]) == ("one.json", answers[0]["result"])
    finally:
        run(command, "stop")
        server.wait(30)
    run(command, "uninstall")
    assert not command.exists()


def read_when_there(path):
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if path.is_file():
            return json.loads(path.read_text())
        time.sleep(0.2)
    pytest.fail(f"{path} is not written")


def test_a_debian_package_holds_the_package_file_and_installs_it(bundle, shared_cache, tmp_path):
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb")
    first, again, file = tmp_path / "a.deb", tmp_path / "b.deb", tmp_path / "run.deb"
    for path in (first, again):
        package(*(bundle, "-o", path, "--name", "digits", "--format", "deb"), cache=shared_cache)
    done = spawn("package", bundle, "-o", file, "--name", "digits", EDGEKIT_CACHE=shared_cache)
    assert "then there: sh run.deb" in done.out, "the format counts, not the name of the file"
    assert first.read_bytes() == again.read_bytes()
    run("dpkg-deb", "--extract", first, tmp_path / "root")
    run("dpkg-deb", "--control", first, tmp_path / "control")
    inside = tmp_path / "root/opt/digits/digits.run"
    assert inside.read_bytes() == file.read_bytes()
    assert (tmp_path / "root/usr/bin/digits").readlink().as_posix() == "/opt/digits/bin/digits"
    fields = dict(
        line.split(": ", 1)
        for line in (tmp_path / "control/control").read_text().splitlines()
        if not line.startswith(" ")
    )
    assert (fields["Package"], fields["Architecture"]) == ("digits", "amd64")
    assert "python3 (>= 3.11), python3 (<< 3.12), libc6 (>= 2." in fields["Depends"]
    sums = (tmp_path / "control/md5sums").read_text()
    run("md5sum", "--check", "-", cwd=tmp_path / "root", input=sums)
    # The scripts do in a folder of the test what they do in /opt.
    prefix = tmp_path / "root/opt/digits"
    for name, argument in (("postinst", "configure"), ("prerm", "remove")):
        script = (tmp_path / "control" / name).read_text()
        moved = script.replace("/opt/digits", str(prefix))
        run("sh", "-c", moved, name, argument)
        assert (prefix / "bin/digits").exists() == (name == "postinst")
    assert sorted(path.name for path in prefix.iterdir()) == ["digits.run"]
