import platform
from dataclasses import replace

import pytest

from edgekit.bundle import open_bundle, write_bundle
from edgekit.errors import DeviceError
from edgekit.remote.deploy import push, rollback, status
from edgekit.remote.session import open_session
from tests.remote.servers import make_bundle, served


@pytest.fixture(params=["local", "dev"])
def device(request, tmp_path, monkeypatch):
    """A host and where edgekit lives on it: this machine, and one over SSH."""
    if request.param == "dev":
        return "dev", request.getfixturevalue("sshd").edgekit_home
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return "local", tmp_path / "data/edgekit"


@pytest.fixture
def bundles(tmp_path):
    return [make_bundle(tmp_path / f"b{i}", seed=i) for i in range(2)]


def test_push_push_again_go_back_and_ask(device, bundles, tmp_path):
    host, home = device
    said = []
    with open_session(host) as session:
        first = push(bundles[0], session, cache=tmp_path / "cache", progress=said.append)
        assert first.host == host
        assert first.previous is None
        assert first.health.healthy
        assert first.runtime.startswith("onnxruntime 1.")
        assert first.total_bytes > 600_000
        assert first.sent_bytes > 0.5 * first.total_bytes
        again = push(bundles[0], session, cache=tmp_path / "cache")
        assert again.release == first.release
        assert again.sent_bytes < 0.01 * again.total_bytes
        second = push(bundles[1], session, cache=tmp_path / "cache")
        assert second.previous == first.release != second.release
        assert status(session).current.name == second.release == served(home)
        assert rollback(session).current.name == first.release == served(home)
        assert status(session).previous.name == second.release
    with open_session(host) as session:
        anew = push(bundles[0], session, cache=tmp_path / "cache")
        assert anew.sent_bytes < 0.01 * anew.total_bytes
    assert {"stage", "done", "total"} <= set(said[0])


def test_a_bundle_file_is_the_same_as_its_folder(device, bundles, tmp_path):
    host, home = device
    folder = bundles[0].path
    write_bundle(tmp_path / "b.edgekit", {p.name: p.read_bytes() for p in folder.iterdir()})
    with open_session(host) as session:
        packed = push(open_bundle(tmp_path / "b.edgekit"), session, cache=tmp_path / "cache")
        plain = push(bundles[0], session, cache=tmp_path / "cache")
    assert packed.release == plain.release == served(home)


def test_going_back_from_nothing_is_one_line(device):
    with open_session(device[0]) as session:
        assert status(session).current is None
        with pytest.raises(DeviceError, match=f"^{device[0]}: "):
            rollback(session)


def test_another_architecture_is_refused_before_anything_is_sent(device, tmp_path):
    host, home = device
    bundle = make_bundle(tmp_path / "arm", arch="riscv64")
    with open_session(host) as session:
        sent = session.bytes_sent
        with pytest.raises(DeviceError, match="wrong architecture") as caught:
            push(bundle, session, cache=tmp_path / "cache")
        assert session.bytes_sent - sent < 1000
    assert platform.machine() in caught.value.message
    assert "riscv64" in caught.value.message
    assert caught.value.exit_code == 4
    assert not (home / "objects").exists()


def test_a_model_that_computes_something_else_there_is_not_switched_to(device, bundles, tmp_path):
    host, home = device
    with open_session(host) as session:
        good = push(bundles[0], session, cache=tmp_path / "cache")
        with pytest.raises(DeviceError, match="does not compute here what it did"):
            push(
                make_bundle(tmp_path / "bad", seed=9, wrong=True), session, cache=tmp_path / "cache"
            )
        assert status(session).current.name == good.release == served(home)


def test_a_file_of_the_bundle_that_was_changed_is_not_installed(device, bundles, tmp_path):
    host, home = device
    path = bundles[0].path / "model.onnx"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    with (
        open_session(host) as session,
        pytest.raises(DeviceError, match=f"^{host}: .*(arrived damaged|another|something else)"),
    ):
        push(bundles[0], session, cache=tmp_path / "cache")
    assert served(home) is None


def test_a_32_bit_userland_on_a_64_bit_kernel_is_what_counts(tmp_path):
    from edgekit.remote.deploy import _check_machine

    with open_session("local", home=str(tmp_path / "h")) as session:
        facts = session.facts()
    pi = replace(facts, machine="aarch64", pointer_bits=32)
    _check_machine("pi", pi, make_bundle(tmp_path / "a", arch="armv7l"))
    with pytest.raises(DeviceError, match=r"the device is armv7l .* the bundle is for aarch64"):
        _check_machine("pi", pi, make_bundle(tmp_path / "b", arch="aarch64"))
