"""Samples that are sent to a device and removed again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.remote.deploy import push
from edgekit.remote.session import open_session
from edgekit.remote.staging import forget, get_staged_digests, stage_file, stage_samples
from edgekit_agent.files import sha256_of
from edgekit_agent.samples import Column, Samples, State
from tests.builders.servers import make_bundle


@pytest.fixture
def device(tmp_path):
    with open_session("local", home=str(tmp_path / "home")) as session:
        yield session, tmp_path / "home"


def samples(folder, megabytes=1):
    """Rows that do not shrink, and their labels, in one file each."""
    rows = np.random.default_rng(0).standard_normal((megabytes << 8, 1 << 10), dtype=np.float32)
    columns = []
    for name, array in (("x", rows), ("label", np.arange(len(rows)))):
        path = folder / f"{name}.bin"
        path.write_bytes(array.tobytes())
        columns.append(Column(name, str(path), 0, array.dtype.str, array.shape))
    return Samples((columns[0],), columns[1])


def test_constants_states_sequences_targets_and_lengths_are_sent(device, tmp_path):
    session, home = device
    plain = samples(tmp_path)
    extra = []
    for name in ("rate", "state", "sequence", "box", "x"):
        path = tmp_path / f"{name}.bin"
        path.write_bytes(name.encode())
        extra.append(Column(name, str(path), 0, "uint8", (len(name),)))
    here = replace(
        plain,
        constants=(extra[0],),
        states=(State("next", extra[1]),),
        sequence=extra[2],
        targets=(extra[3],),
        lengths=(extra[4],),
    )
    there = stage_samples(session, here)

    assert [sha256_of(c.path) for c in there.files()] == [sha256_of(c.path) for c in here.files()]
    assert there.states[0].output == "next"
    assert Path(there.targets[0].path).read_bytes() == b"box"
    assert Path(there.lengths[0].path).read_bytes() == b"x"
    forget(session, get_staged_digests(there))
    assert list_kept(home) == []


def list_kept(home):
    return sorted(p.name for kind in ("objects", "parts") for p in (home / kind).iterdir())


def test_samples_are_found_there_and_forgotten_again(device, tmp_path):
    session, home = device
    here = samples(tmp_path)
    there = stage_samples(session, here)
    digests = get_staged_digests(there)
    assert digests == tuple(sha256_of(c.path) for c in (*here.columns, here.label))
    assert [sha256_of(c.path) for c in (*there.columns, there.label)] == list(digests)
    assert list_kept(home) == sorted(digests)
    assert forget(session, digests) == ()
    assert list_kept(home) == []
    assert forget(session, digests) == ()


def test_a_file_that_a_release_is_made_of_stays(device, tmp_path):
    session, home = device
    bundle = make_bundle(tmp_path / "bundle")
    push(bundle, session, cache=tmp_path / "cache")
    model = bundle.path / "model.onnx"
    stage_file(session, model)
    before = list_kept(home)
    staged = get_staged_digests(stage_samples(session, samples(tmp_path)))
    assert forget(session, [*staged, sha256_of(str(model))]) == (sha256_of(str(model)),)
    assert list_kept(home) == before


def test_nothing_stays_of_samples_that_were_interrupted(device, tmp_path):
    session, home = device

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage_samples(session, samples(tmp_path, megabytes=64), interrupt)
    assert list_kept(home) == []


def test_forgetting_nothing_sends_nothing(device):
    session, _ = device
    before = session.bytes_sent
    assert forget(session, ()) == ()
    assert session.bytes_sent == before
