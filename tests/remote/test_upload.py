"""Transfers of bytes and files to a device."""

import hashlib
import os
from pathlib import Path

import pytest

from edgekit.remote.session import open_session
from edgekit.remote.upload import send, sha256


@pytest.fixture
def session(tmp_path):
    with open_session("local", home=str(tmp_path / "home")) as session:
        session.facts()
        yield session


def test_bytes_and_files_arrive_whole(session, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(os.urandom(3 << 20))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    contents = {sha256(c): c for c in (b"", b"x", b"zeros" * 100_000, os.urandom(70_000))}
    got = send(session, [(file, digest), *((c, d) for d, c in contents.items())])
    for digest, path in got.items():
        assert sha256(Path(path).read_bytes()) == digest
    assert len(got) == 5


def test_compressible_data_is_sent_compressed_and_other_data_raw(session):
    before = session.bytes_sent
    zeros = bytes(10 << 20)
    send(session, [(zeros, sha256(zeros))])
    assert session.bytes_sent - before < 50_000
    before = session.bytes_sent
    noise = os.urandom(1 << 20)
    send(session, [(noise, sha256(noise))])
    assert 0 <= session.bytes_sent - before - len(noise) < 3000


def test_existing_files_are_not_sent_again(session):
    noise = os.urandom(1 << 20)
    first = send(session, [(noise, sha256(noise))])
    before = session.bytes_sent
    assert send(session, [(noise, sha256(noise)), (noise, sha256(noise))]) == first
    assert session.bytes_sent - before < 500


def test_an_upload_of_nothing_sends_nothing(session):
    assert send(session, []) == {}
