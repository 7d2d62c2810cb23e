"""Push, rollback and status against a local device."""

import platform
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.bundle.bundle_file import open_bundle, write_bundle
from edgekit.bundle.packing import encode_for_transfer
from edgekit.config.profile import RuntimeSpec
from edgekit.errors import DeviceError
from edgekit.remote.agent_file import pack_agent
from edgekit.remote.deploy import check_machine, ensure_runtime, push, rollback, status
from edgekit.remote.session import open_session
from edgekit.remote.upload import PackedFiles, send, sha256
from edgekit_agent.results import RuntimeFacts
from edgekit_agent.worker_results import StageProgress
from tests.builders.servers import get_served, make_bundle


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


def test_push_push_again_roll_back_and_ask_for_the_status(device, bundles, tmp_path):
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
        assert status(session).current.name == second.release == get_served(home)
        assert rollback(session).current.name == first.release == get_served(home)
        assert status(session).previous.name == second.release
    with open_session(host) as session:
        anew = push(bundles[0], session, cache=tmp_path / "cache")
        assert 500 < anew.sent_bytes < 0.01 * anew.total_bytes
        assert anew.health.healthy
    assert isinstance(said[0], StageProgress)


def test_a_small_bundle_pushed_again_costs_next_to_nothing(device, tmp_path):
    bundle = make_bundle(tmp_path / "small", width=380)
    agent = len(pack_agent().data)
    for most in (105_000 + agent, 1000):
        with open_session(device[0]) as session:
            report = push(bundle, session, cache=tmp_path / "cache")
        assert 95_000 < report.total_bytes < 105_000
        assert report.sent_bytes < most


@pytest.mark.parametrize("file", ["release.json", "model.onnx"])
def test_pushing_again_repairs_a_damaged_release(device, bundles, tmp_path, file):
    host, home = device
    with open_session(host) as session:
        first = push(bundles[0], session, cache=tmp_path / "cache")
        path = home / "current" / file
        path.unlink()
        path.write_text("rot")
        assert status(session).current.name == first.release
        again = push(bundles[0], session, cache=tmp_path / "cache")
        assert again.release == first.release == get_served(home)
        path.unlink()
        path.write_text("rot")
        other = push(bundles[1], session, cache=tmp_path / "cache")
        assert (other.release, other.previous) == (get_served(home), first.release)


def test_a_bundle_file_is_the_same_as_its_folder(device, bundles, tmp_path):
    host, home = device
    folder = bundles[0].path
    write_bundle(tmp_path / "b.edgekit", {p.name: p.read_bytes() for p in folder.iterdir()})
    with open_session(host) as session:
        packed = push(open_bundle(tmp_path / "b.edgekit"), session, cache=tmp_path / "cache")
        plain = push(bundles[0], session, cache=tmp_path / "cache")
    assert packed.release == plain.release == get_served(home)


@pytest.mark.parametrize("form", ["folder", "file", "file of an older edgekit"])
def test_few_bit_weights_are_sent_packed_and_served_unchanged(device, tmp_path, form):
    host, home = device
    bundle = make_bundle(tmp_path / "b", low_bits=True, width=6000)
    model = bundle.path / "model.onnx"
    sent = encode_for_transfer(model.read_bytes())
    assert sent.encoding == "packed"
    members = {p.name: p.read_bytes() for p in bundle.path.iterdir()}
    if form != "folder":
        if form == "file":
            members |= {"model.onnx.packed": sent.data}
            del members["model.onnx"]
        write_bundle(tmp_path / "b.edgekit", members)
        bundle = open_bundle(tmp_path / "b.edgekit")
    with open_session(host) as session:
        session.count_newly_sent()
        report = push(bundle, session, cache=tmp_path / "cache")
    others = sum(len(data) for name, data in members.items() if not name.startswith("model"))
    assert report.sent_bytes < len(sent.data) + others + 6000
    assert report.sent_bytes < 0.5 * model.stat().st_size
    assert report.release == get_served(home)
    assert (home / "current" / "model.onnx").read_bytes() == model.read_bytes()


def test_a_device_that_cannot_expand_gets_the_model_deflated(device, tmp_path):
    bundle = make_bundle(tmp_path / "b", low_bits=True, width=600)
    said, site = [], tmp_path / "site"
    (site / "numpy").mkdir(parents=True)
    (site / "numpy/__init__.py").write_text("raise ImportError('no numpy for this processor')")
    with open_session(device[0]) as session:
        model = bundle.manifest.file("model.onnx")
        packed = PackedFiles(
            find=lambda _: bundle.encode_for_transfer("model.onnx"), site=str(site)
        )
        sources = [(bundle.path / model.name, model.digest)]
        there = send(session, sources, said.append, packed)
    assert all(sha256(Path(path).read_bytes()) == digest for digest, path in there.items())
    assert any("no numpy for this processor; sent with deflate instead" in s.stage for s in said)


def test_a_rollback_without_a_release_causes_one_line(device):
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


def test_a_model_with_other_outputs_on_the_device_is_not_served(device, bundles, tmp_path):
    host, home = device
    with open_session(host) as session:
        good = push(bundles[0], session, cache=tmp_path / "cache")
        with pytest.raises(DeviceError, match="differ from those on the host"):
            push(
                make_bundle(tmp_path / "bad", seed=9, wrong=True), session, cache=tmp_path / "cache"
            )
        assert status(session).current.name == good.release == get_served(home)


def test_a_file_of_the_bundle_that_was_changed_is_not_installed(device, bundles, tmp_path):
    host, home = device
    path = bundles[0].path / "model.onnx"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    with (
        open_session(host) as session,
        pytest.raises(
            DeviceError,
            match=f"^{host}: .*(damaged in transfer|does not match its digest|other content)",
        ),
    ):
        push(bundles[0], session, cache=tmp_path / "cache")
    assert get_served(home) is None


@pytest.fixture
def session(tmp_path):
    with open_session("local", home=str(tmp_path / "home")) as session:
        yield session


def test_a_32_bit_userland_on_a_64_bit_kernel_is_what_counts(session, tmp_path):
    pi = replace(session.facts(), machine="aarch64", pointer_bits=32)
    narrow, wide = (
        make_bundle(tmp_path / arch, arch=arch).manifest.profile for arch in ("armv7l", "aarch64")
    )
    check_machine("pi", pi, narrow)
    with pytest.raises(DeviceError, match=r"the device is armv7l .* profile test is for aarch64"):
        check_machine("pi", pi, wide)


@pytest.mark.parametrize(
    ("package", "version", "allowing", "refusing"),
    [
        ("tflite-runtime", "2.14.0", ("==2.14.*", ""), (">=2.0", ">=2.14", "<=2.14")),
        ("ai-edge-litert", "2.3.0", (">=2.0", ""), ("==2.14.*", ">=2.14")),
        ("ai-edge-litert", "2.14.0", (">=2.0",), ("==2.14.*",)),
    ],
)
def test_one_runtimes_version_is_not_taken_for_the_others(
    session, tmp_path, package, version, allowing, refusing
):
    own = RuntimeFacts("litert", version, package, None, works=True)
    facts = replace(
        session.facts(), machine="riscv64", libc="glibc 2.36", python="3.11.2", runtimes=(own,)
    )

    def ensured(specifier):
        spec = RuntimeSpec(version=specifier)
        return ensure_runtime(session, facts, "litert", spec, "", cache=tmp_path / "cache")

    for specifier in allowing:
        assert ensured(specifier) == own
    for specifier in refusing:
        with pytest.raises(DeviceError, match=rf"no wheel of .*\(its own {package} .*not allowed"):
            ensured(specifier)
