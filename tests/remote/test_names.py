"""Releases under names, pushed to a device over SSH."""

import json

import pytest

import edgekit
from edgekit.errors import ArgumentError, DeviceError, ExitCode
from edgekit.remote.session import open_session
from edgekit.remote.trust import trust_key
from edgekit.remote.uninstall import uninstall
from edgekit.signing.keys import make_key
from edgekit.signing.releases import Signer
from tests.attacks.test_push_cut import until_cut
from tests.builders.projects import edgekit as run
from tests.builders.projects import listing
from tests.builders.servers import make_bundle
from tests.builders.signed import with_signature
from tests.builders.watched_device import wait_until, watchers

pytestmark = pytest.mark.sshd


@pytest.fixture
def bundles(tmp_path):
    return [make_bundle(tmp_path / f"b{seed}", seed=seed, width=400) for seed in range(4)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


def states(*more):
    done = run("status", "dev", "--json", *more)
    assert done.code == 0, done.err
    (state,) = json.loads(done.out)
    return state


def both(state):
    return tuple(state[which] and state[which]["name"] for which in ("current", "previous"))


def own_files(home):
    """Return what the main home holds, without what belongs to names."""
    found = listing(home)
    return {k: v for k, v in found.items() if not k.startswith(("apps", "audit", "agent"))}


def test_a_name_never_replaces_another(sshd, bundles):
    home = sshd.edgekit_home
    main = edgekit.push(bundles[0], "dev", watch=0)
    before = own_files(home)
    done = [edgekit.push(b, "dev", name=n, watch=0) for b, n in
            ((bundles[1], "door"), (bundles[2], "door"), (bundles[3], "gate"))]  # fmt: skip
    assert own_files(home) == before
    assert [(each.name, each.previous) for each in done] == [
        ("door", None), ("door", done[0].release), ("gate", None),
    ]  # fmt: skip
    state = states()
    assert both(state) == (main.release, None)
    assert [(app["name"], *both(app)) for app in state["apps"]] == [
        ("door", done[1].release, done[0].release), ("gate", done[2].release, None),
    ]  # fmt: skip
    assert both(states("--name", "gate")) == (done[2].release, None)
    assert (home / "apps/door/current/model.onnx").is_file()

    back = run("rollback", "dev", "--name", "door")
    assert f"dev (door): rolled back to {done[0].release}" in back.out
    assert both(states("--name", "door")) == (done[0].release, done[1].release)
    assert own_files(home) == before

    gone = run("uninstall", "dev", "door")
    assert gone.code == 0, gone.err
    assert f"dev: removed door, which served {done[0].release}" in gone.out
    assert [app["name"] for app in states()["apps"]] == ["gate"]
    assert own_files(home) == before
    assert [path.name for path in (home / "apps").iterdir()] == ["gate"]
    again = run("uninstall", "dev", "door")
    assert again.code == 4
    assert "nothing is installed under the name door; names there: gate" in again.err


def test_what_another_name_holds_is_not_sent_again(sshd, bundles):
    first = edgekit.push(bundles[0], "dev", watch=0)
    named = edgekit.push(bundles[0], "dev", name="door", watch=0)
    assert named.release == first.release
    assert first.sent_bytes > named.total_bytes
    assert named.sent_bytes < named.total_bytes / 10
    home = sshd.edgekit_home
    edgekit.uninstall("dev", "door")
    assert (home / "current/model.onnx").read_bytes() == (
        bundles[0].path / "model.onnx"
    ).read_bytes()


def test_a_new_release_under_a_name_is_watched_and_rolled_back_alone(sshd, bundles, monkeypatch):
    home = sshd.edgekit_home
    main = edgekit.push(bundles[0], "dev", watch=0)
    old = edgekit.push(bundles[1], "dev", name="door", watch=0)
    with monkeypatch.context() as patch:
        patch.setattr("edgekit.remote.deploy.confirm", lambda *_: None)
        new = edgekit.push(bundles[2], "dev", name="door", watch=20)
    state = states()
    assert state["watch"] is None
    assert state["apps"][0]["watch"]["release"] == new.release
    text = run("status", "dev").out
    assert f"    note: {new.release} is not confirmed yet" in text
    # The main release can be replaced meanwhile.
    other = edgekit.push(bundles[3], "dev", watch=0)
    wait_until(lambda: not watchers(home / "apps" / "door"))
    state = states("--log")
    assert both(state) == (other.release, main.release)
    assert both(state["apps"][0]) == (old.release, new.release)
    assert ("go back", "door") in [(line["action"], line["app"]) for line in state["log"]]


def test_the_keys_of_the_device_count_for_names_and_each_has_its_own_version(
    sshd, bundles, tmp_path, monkeypatch
):
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "config"))
    key = make_key("own")

    def sign(number, version):
        bundle = bundles[number]
        signer = Signer(key=key, version=version, valid_days=10)
        return with_signature(bundle, signer.sign(bundle.manifest, bundle.manifest_bytes))

    with open_session("dev") as session:
        trust_key(session, key.get_trusted_key(), None)
    edgekit.push(sign(0, 9), "dev", watch=0)
    with pytest.raises(DeviceError, match="not signed"):
        edgekit.push(bundles[1], "dev", name="door", watch=0)
    assert not (sshd.edgekit_home / "apps").exists()
    edgekit.push(sign(1, 5), "dev", name="door", watch=0)
    with pytest.raises(DeviceError, match="its version 4 is lower than 5"):
        edgekit.push(sign(2, 4), "dev", name="door", watch=0)
    edgekit.uninstall("dev", "door")
    with pytest.raises(DeviceError, match="its version 4 is lower than 5"):
        edgekit.push(sign(2, 4), "dev", name="door", watch=0)
    done = edgekit.push(sign(2, 4), "dev", name="door", watch=0, allow_downgrade=True)
    assert edgekit.status("dev", name="door").current.name == done.release
    with pytest.raises(DeviceError, match="its version 8 is lower than 9"):
        edgekit.push(sign(3, 8), "dev", watch=0)


def test_a_removal_whose_link_breaks_is_reported_as_it_is(sshd, bundles):
    def remove(session):
        return uninstall(session, "door")

    edgekit.push(bundles[0], "dev", name="door", watch=0)
    whole, error = until_cut(remove, -1)
    assert error is None
    for at in range(1, len(whole) + 1):
        edgekit.push(bundles[0], "dev", name="door", watch=0)
        _, error = until_cut(remove, at)
        is_there = bool(edgekit.status("dev").apps)
        assert is_there == (error is not None)
        assert error is None or error.exit_code == ExitCode.DEVICE
    edgekit.push(bundles[0], "dev", name="door", watch=0)
    _, error = until_cut(remove, len(whole), comes_back=False)
    assert error.exit_code == ExitCode.UNKNOWN_STATE


@pytest.mark.parametrize("name", ["", "../x", "Door", "a" * 33])
def test_the_functions_refuse_what_is_no_name(name):
    for call in (
        lambda: edgekit.status("local", name=name),
        lambda: edgekit.rollback("local", name=name),
        lambda: edgekit.uninstall("local", name),
    ):
        with pytest.raises(ArgumentError, match="name"):
            call()
