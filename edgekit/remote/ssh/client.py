"""SSH transport over paramiko: connections, streams and jump hosts."""

from __future__ import annotations

import contextlib
import logging
import struct
import threading
import time
from typing import cast

import paramiko
from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm

from edgekit.errors import DeviceError
from edgekit.remote.ssh.host_settings import HostSettings, parse_host, read_settings
from edgekit.remote.ssh.keys import iter_identities
from edgekit.remote.ssh.known_hosts import (
    CERTIFICATE_KINDS,
    Address,
    HostKey,
    check_host_key,
    find_preferred_kinds,
)
from edgekit.remote.ssh.shell_quoting import quote_for_login_shell
from edgekit.remote.ssh.sockets import MonitoredSocket, Socket, connect_by_command, connect_by_tcp
from edgekit.remote.transport import (
    LONGEST_LINE_BYTES,
    SEND_SLICE_S,
    STDERR_KEPT_BYTES,
    Lines,
    Stream,
    decode_exit_status,
)

PYTHONS = ("python3", *(f"python3.{minor}" for minor in range(14, 8, -1)))
STALL_S = 60.0
PULSE_S = 15.0
LONGEST_JUMP = 8
CHUNK = 1 << 20
RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")

# paramiko raises all of these for a host that breaks the protocol.
BROKEN_LINK = (
    paramiko.SSHException,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    InvalidSignature,
    InvalidTag,
    UnsupportedAlgorithm,
)

# Without a handler Python prints paramiko's messages about a broken link on stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class SshTransport:
    """Transport over one authenticated connection, which may go through jump hosts.

    Args:
        host: a host as ``ssh`` accepts it.
        stall_s: the longest time in which nothing may be received from the host.

    Raises:
        DeviceError: the host is unreachable, its key is refused, or it refuses the login.
    """

    pythons = PYTHONS

    def __init__(self, host: str, *, stall_s: float = STALL_S) -> None:
        self.name = host
        self._stall_s = stall_s
        self._closing = contextlib.ExitStack()
        self._connect()

    def open(self, command: str) -> Stream:
        """Start a command line of ``sh``, from any login shell, and return its stream."""
        line = quote_for_login_shell(command).encode()
        try:
            channel = self._link.transport.open_session(timeout=self._stall_s)
            channel.exec_command(line)
        except BROKEN_LINK as error:
            why = self._link.dead or str(error) or "the connection ended"
            raise DeviceError(
                f"{self.name}: cannot start a command: {why}", transient=True
            ) from error
        return SshStream(self.name, channel, self._link, len(line))

    def reconnect(self) -> None:
        """Disconnect and connect again."""
        self.close()
        self._connect()

    def close(self) -> None:
        """Disconnect from the device and all jump hosts."""
        self._closing.close()

    def _connect(self) -> None:
        with contextlib.ExitStack() as closing:
            self._link = _connect(self.name, None, closing, self._stall_s, depth=0)
            self._closing = closing.pop_all()


class SshStream:
    """Stream of one command on one SSH channel."""

    def __init__(
        self, host: str, channel: paramiko.Channel, link: Link, command_bytes: int
    ) -> None:
        self.command_bytes = command_bytes
        self._host, self._channel, self._link = host, channel, link
        self._lines = Lines(self._receive)
        self._stderr = bytearray()

    def send(self, data: memoryview) -> int:
        """Send as many bytes as the window accepts within ``SEND_SLICE_S``; return their number."""
        self._channel.settimeout(SEND_SLICE_S)
        try:
            return int(self._channel.send(data))
        except TimeoutError:
            if self._channel.closed:
                raise self._make_lost_error() from None
            return 0
        except BROKEN_LINK as error:
            raise self._make_lost_error() from error

    def has_output(self) -> bool:
        """Return whether output, or its end, can be read now."""
        return self._lines.has_line() or self._channel.recv_ready() or self._channel.eof_received

    def readline(self, timeout_s: float, most_bytes: int = LONGEST_LINE_BYTES) -> bytes:
        """Read the next line; return no bytes at the end of the output."""
        return self._lines.readline(timeout_s, most_bytes)

    def stderr_tail(self) -> str:
        """Return the end of the command's stderr, at most ``STDERR_KEPT_BYTES``."""
        self._drain_stderr()
        return self._stderr.decode(errors="replace").strip()

    def wait(self, timeout_s: float) -> int:
        """Wait for the command and return its exit status, negative for a signal."""
        if not self._channel.status_event.wait(timeout_s):
            raise TimeoutError
        return decode_exit_status(int(self._channel.exit_status))

    def close(self) -> None:
        """Close the channel, which ends the command's input and output."""
        with contextlib.suppress(OSError, EOFError):  # already closed
            self._channel.close()

    def _receive(self, timeout_s: float) -> bytes:
        until = time.monotonic() + timeout_s
        while True:
            self._drain_stderr()
            self._channel.settimeout(max(0.0, min(1.0, until - time.monotonic())))
            try:
                data = bytes(self._channel.recv(CHUNK))
            except TimeoutError:
                if time.monotonic() >= until:
                    raise
                continue
            if not data and self._link.is_broken:
                raise self._make_lost_error()
            return data

    def _drain_stderr(self) -> None:
        while self._channel.recv_stderr_ready():
            self._stderr += self._channel.recv_stderr(CHUNK)
            del self._stderr[:-STDERR_KEPT_BYTES]

    def _make_lost_error(self) -> DeviceError:
        # The thread that reads the socket notices the end slightly later than the one that writes.
        self._link.transport.join(0.5)
        if not self._link.is_broken:
            return DeviceError(f"{self._host}: the command closed its input", transient=True)
        why = self._link.dead or "closed by the device"
        return DeviceError(
            f"{self._host}: the connection was lost: {why}",
            hint="run the command again to resume",
            transient=True,
        )


class Link:
    """An SSH connection that is closed if nothing is received for too long."""

    def __init__(self, sock: Socket, stall_s: float) -> None:
        self._sock = MonitoredSocket(sock)
        self._stall_s = stall_s
        self.dead = ""
        self.transport = paramiko.Transport(self._sock)

    @property
    def is_broken(self) -> bool:
        """Return whether the connection has ended."""
        return bool(self.dead) or not self.transport.is_active()

    def watch(self) -> None:
        """Start the threads that send keepalives and close a silent link; they end with it."""
        for task in (self._send_keepalives, self._close_if_silent):
            threading.Thread(target=task, daemon=True).start()

    def _send_keepalives(self) -> None:
        # Waits for the answer: paramiko's own keepalive asks for none and misses a dead link.
        with contextlib.suppress(*BROKEN_LINK):
            while self.transport.is_active():
                self.transport.global_request("keepalive@openssh.com", wait=True)
                self.transport.join(min(PULSE_S, self._stall_s / 4))

    def _close_if_silent(self) -> None:
        while self.transport.is_active():
            self.transport.join(min(1.0, self._stall_s / 4))
            if time.monotonic() - self._sock.heard > self._stall_s and self.transport.is_active():
                self.dead = f"no data received for {self._stall_s:g} s"
                self.transport.close()


def _connect(
    host: str,
    jumps: tuple[str, ...] | None,
    closing: contextlib.ExitStack,
    stall_s: float,
    depth: int,
) -> Link:
    """Connect and authenticate; ``jumps`` replaces the host's own ProxyJump unless it is None."""
    if depth > LONGEST_JUMP:
        raise DeviceError(f"{host}: ProxyJump goes through more than {LONGEST_JUMP} hosts")
    settings = read_settings(parse_host(host))
    if jumps is None:
        jumps = settings.proxy_jump
    if jumps:
        via = _connect(jumps[-1], jumps[:-1] or None, closing, stall_s, depth + 1)
        sock = _open_jump_channel(host, settings, via)
    elif settings.proxy_command:
        sock = connect_by_command(settings.proxy_command, closing)
    else:
        sock = connect_by_tcp(host, settings)
    closing.callback(sock.close)
    link = Link(sock, stall_s)
    closing.callback(link.transport.close)
    address = Address(
        host=settings.hostname,
        port=settings.port,
        alias=settings.host_key_alias,
        proxied=bool(jumps or settings.proxy_command),
    )
    _shake_hands(host, settings, address, link.transport)
    _log_in(host, settings, link.transport)
    link.watch()
    return link


def _open_jump_channel(host: str, settings: HostSettings, via: Link) -> Socket:
    place = (settings.hostname, settings.port)
    try:
        channel = via.transport.open_channel(
            "direct-tcpip", place, ("127.0.0.1", 0), timeout=settings.connect_timeout_s
        )
    except BROKEN_LINK as error:
        raise DeviceError(
            f"{host}: the jump host cannot reach {place[0]} port {place[1]}: {error}",
            transient=True,
        ) from error
    return cast(Socket, channel)


def _shake_hands(
    host: str, settings: HostSettings, address: Address, transport: paramiko.Transport
) -> None:
    options = transport.get_security_options()
    options.ciphers = (*CIPHERS, *(c for c in options.ciphers if c not in CIPHERS))
    known = [
        k
        for kind in find_preferred_kinds(settings.known_hosts, address)
        for k in _list_signatures(kind)
    ]
    supported = [k for k in known if k in (*options.key_types, *CERTIFICATE_KINDS)]
    options.key_types = (*supported, *(k for k in options.key_types if k not in supported))
    transport.banner_timeout = transport.handshake_timeout = settings.connect_timeout_s
    try:
        transport.start_client(timeout=settings.connect_timeout_s)
    except BROKEN_LINK as error:
        why = str(error) or "the device closed the connection"
        raise DeviceError(
            f"{host}: no SSH connection: {why}",
            hint=f"does an SSH server listen on {settings.hostname} port {settings.port}?",
            transient=True,
        ) from error
    if not transport.initial_kex_done:  # paramiko does not raise at a timeout
        raise DeviceError(
            f"{host}: no SSH connection within {settings.connect_timeout_s:g} s", transient=True
        )
    key = transport.get_remote_server_key()
    certificate = key.public_blob
    shown = (
        HostKey(kind=certificate.key_type, blob=certificate.key_blob)
        if certificate
        else HostKey(kind=key.get_name(), blob=key.asbytes())
    )
    check_host_key(host, shown, address, settings.known_hosts)


def _list_signatures(kind: str) -> tuple[str, ...]:
    return RSA_SIGNATURES if kind == "ssh-rsa" else (kind,)


def _log_in(host: str, settings: HostSettings, transport: paramiko.Transport) -> None:
    transport.auth_timeout = settings.connect_timeout_s
    tried: list[str] = []
    with contextlib.ExitStack() as closing:
        try:
            for identity in iter_identities(settings, tried, closing):
                tried.append(identity.name)
                if _try_key(settings.user, identity.key, transport):
                    return
        except BROKEN_LINK as error:
            tried.append(f"then {error or 'the connection ended'}")
    keys = "; ".join(tried) or "no key, as there is none"
    raise DeviceError(
        f"{host}: login as {settings.user} refused: tried {keys}",
        hint=f"install your key there: ssh-copy-id {host} (edgekit cannot log in with passwords)",
    )


def _try_key(user: str, key: paramiko.PKey, transport: paramiko.Transport) -> bool:
    try:
        more = transport.auth_publickey(user, key)
    except paramiko.AuthenticationException as error:
        if not transport.is_active():
            raise paramiko.SSHException("the device accepted no further key") from error
        return False
    if more:
        raise paramiko.SSHException(f"the device also requires {', '.join(more)}")
    return True
