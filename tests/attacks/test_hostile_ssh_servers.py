"""An SSH server that violates the protocol causes one line, in bounded time."""

import contextlib
import random
import socket
import struct
import threading
import time

import pytest

from edgekit.errors import DeviceError
from edgekit.remote.ssh.client import SshTransport

BANNER = b"SSH-2.0-OpenSSH_9.0\r\n"
ALGORITHMS = (b"ecdh-sha2-nistp256", b"ssh-ed25519", *[b"aes128-ctr"] * 2, *[b"hmac-sha2-256"] * 2)
LISTS = (*ALGORITHMS, b"none", b"none", b"", b"")


def text(data):
    return struct.pack(">I", len(data)) + data


def packet(payload):
    padding = 8 - (len(payload) + 5) % 8
    padding += 8 if padding < 4 else 0
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)


def proposal(lists=LISTS):
    return b"\x14" + bytes(16) + b"".join(map(text, lists)) + bytes(5)


def reply(point):
    key = text(b"ssh-ed25519") + text(bytes(range(32)))
    signature = text(b"ssh-ed25519") + text(bytes(64))
    return b"\x1f" + text(key) + text(point) + text(signature)


def mutate(payload, seed):
    draw, data = random.Random(seed), bytearray(payload)
    for _ in range(5):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data)


SENT = {
    "noise": [bytes(range(256)) * 16],
    "no banner": [b"x" * 70 + b"\r\n"] * 5000,
    "no line": [b"x" * 65536] * 100,
    "terminal in the banner": [b"SSH-2.0-\x1b[2J\xff\r\n", packet(proposal())],
    "no algorithm": [BANNER, packet(proposal([b"none"] * 10))],
    "names that are no text": [BANNER, packet(proposal([b"\xff\xfe"] * 10))],
    "an endless list": [BANNER, packet(b"\x14" + bytes(16) + b"\x7f\xff\xff\xff")],
    "an endless packet": [BANNER, b"\x7f\xff\xff\xff" + bytes(100_000)],
    "a farewell that is no text": [BANNER, packet(b"\x01" + bytes(4) + text(b"\x1b[2J\xff"))],
    "an empty reply": [BANNER, packet(proposal()), packet(b"\x1f")],
    "a point that is none": [BANNER, packet(proposal()), packet(reply(b"abc"))],
    "a wrong point": [BANNER, packet(proposal()), packet(reply(b"\x04" + bytes(64)))],
    **{f"mutation {i}": [BANNER, packet(mutate(proposal(), i))] for i in range(8)},
    **{
        f"mutated reply {i}": [BANNER, packet(proposal()), packet(mutate(reply(bytes(65)), i))]
        for i in range(8)
    },
}


@pytest.fixture
def speaking(tmp_path, monkeypatch):
    """Return a function that starts a server, as host ``bad``, that sends the given bytes."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = tmp_path / "config"
        config.write_text(
            f"Host bad\n  HostName 127.0.0.1\n  Port {server.getsockname()[1]}\n  User nobody\n"
            f"  ConnectTimeout 2\n  UserKnownHostsFile {tmp_path}/none\n  IdentityAgent none\n"
        )
        monkeypatch.setenv("EDGEKIT_SSH_CONFIG", str(config))

        def serve(pieces):
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    for piece in pieces:
                        connection.sendall(piece)
                        time.sleep(0.1 if len(pieces) < 10 else 0)
                    connection.recv(1)
                    time.sleep(0.5)

        yield lambda pieces: threading.Thread(target=serve, args=(pieces,), daemon=True).start()


@pytest.mark.parametrize("what", SENT)
def test_a_server_that_violates_the_protocol_causes_one_line(speaking, capfd, what):
    speaking(SENT[what])
    started = time.monotonic()
    with pytest.raises(DeviceError) as caught:
        SshTransport("bad")
    assert time.monotonic() - started < 15
    assert caught.value.message.startswith("bad: no SSH connection")
    assert caught.value.message.isprintable()
    assert "Traceback" not in capfd.readouterr().err
