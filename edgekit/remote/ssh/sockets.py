"""Sockets under an SSH connection: TCP, a proxy command, or a channel through a jump host."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from typing import Protocol

from edgekit.errors import DeviceError
from edgekit.remote.ssh.host_settings import HostSettings


class Socket(Protocol):
    """A socket, or a channel of the connection to a jump host."""

    def send(self, data: bytes, /) -> int: ...  # noqa: D102
    def recv(self, size: int, /) -> bytes: ...  # noqa: D102
    def settimeout(self, seconds: float | None, /) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class MonitoredSocket:
    """A socket that remembers when it last received data; ``heard`` is that time."""

    def __init__(self, sock: Socket) -> None:
        self._sock = sock
        self.heard = time.monotonic()
        self._closed = False  # paramiko reads this attribute
        self.send, self.settimeout = sock.send, sock.settimeout

    def close(self) -> None:
        """Close the socket."""
        self._closed = True
        self._sock.close()

    def recv(self, size: int) -> bytes:
        """Receive at most ``size`` bytes."""
        data = bytes(self._sock.recv(size))
        self.heard = time.monotonic()
        return data


def connect_by_tcp(host: str, settings: HostSettings) -> socket.socket:
    """Connect to a host by TCP.

    Raises:
        DeviceError: the name does not resolve, or the host does not answer or refuses.
    """
    place = f"{settings.hostname} port {settings.port}"
    try:
        sock = socket.create_connection(
            (settings.hostname, settings.port), settings.connect_timeout_s
        )
    except socket.gaierror as error:
        raise DeviceError(
            f"{host}: no address for {settings.hostname}: {error.strerror}",
            hint="is it a Host alias of ~/.ssh/config, or a name that resolves?",
        ) from error
    except TimeoutError as error:
        raise DeviceError(
            f"{host}: no answer from {place} within {settings.connect_timeout_s:g} s",
            transient=True,
        ) from error
    except OSError as error:
        raise DeviceError(
            f"{host}: cannot reach {place}: {error.strerror}", transient=True
        ) from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def connect_by_command(command: str, closing: contextlib.ExitStack) -> socket.socket:
    """Connect through a ProxyCommand; closing ``closing`` kills the command."""
    # A socket pair instead of pipes: paramiko waits on it as on any other connection.
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            process_group=0,
        )
    closing.callback(process.wait)
    closing.callback(process.kill)
    return ours
