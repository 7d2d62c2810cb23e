"""Sessions with the agent on a device: jobs are sent, results and progress are received."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from edgekit.errors import DeviceError
from edgekit.progress import format_duration
from edgekit.remote.agent_answers import (
    Bounds,
    LimitTracker,
    bounds_of,
    check_known_to_first,
    find_greeting,
    parse_line,
    read_progress,
    read_result,
)
from edgekit.remote.agent_file import pack_agent
from edgekit.remote.agent_version import check_agent_version, is_bad_job, make_failure_error
from edgekit.remote.home import Home
from edgekit.remote.host_names import LOCAL, get_ssh_argument
from edgekit.remote.local import LocalTransport
from edgekit.remote.start_commands import OLDEST_PYTHON, make_fast_start, make_launch
from edgekit.remote.transport import LineTooLong, Stream, Transport, signal_name, write_all
from edgekit_agent.codec import decode, encode_job
from edgekit_agent.jobs import ProbeJob
from edgekit_agent.protocol import FIRST, PROTOCOL, Version, read_version
from edgekit_agent.results import DeviceFacts, Greeting
from edgekit_agent.worker_results import Failure, StageProgress

R = TypeVar("R")
Progress = Callable[[StageProgress], None]

# The longest time without an accepted byte while edgekit sends.
STALL_S = 60.0
# The longest time without a line while the agent works; long jobs report their progress.
SILENCE_S = 600.0
START_S = 120.0
# Limits of the agent's start, which may include its transfer over a slow link.
START_BOUNDS = Bounds(total_s=600.0)
# The most bytes that login scripts may print before the agent's greeting.
MOST_NOISE_BYTES = 1 << 20


@contextlib.contextmanager
def open_session(host: str, *, home: str | Home = "") -> Iterator[Session]:
    """Connect to a device and start its agent.

    Args:
        host: ``local``, or a host as ``ssh`` accepts it.
        home: edgekit's folder on the device, and who set it; ``EDGEKIT_HOME`` on the device
            overrides a plain path. Empty = ``${XDG_DATA_HOME:-~/.local/share}/edgekit``.

    Yields:
        The session, whose agent runs.

    Raises:
        DeviceError: the device is not reachable, has no Python, or cannot store the agent.
    """
    transport = _make_transport(host)
    try:
        session = Session(transport, home=home)
        try:
            session.start()
            yield session
        finally:
            session.close()
    finally:
        transport.close()


def _make_transport(host: str) -> Transport:
    if host == LOCAL:
        return LocalTransport()
    alias = get_ssh_argument(host)
    from edgekit.remote.ssh.client import (
        SshTransport,  # slow to import, and `local` needs none of it
    )

    return SshTransport(alias)


class Session:
    """A connection to the agent on one device, which runs one job at a time.

    Attributes:
        name: the host as the user named it.
        home: edgekit's folder on the device, absolute.
        bytes_sent: all bytes sent so far: command lines, the agent, jobs and files, without the
            overhead of SSH.
        delivered: whether the last job was sent completely.
    """

    def __init__(self, transport: Transport, *, home: str | Home = "") -> None:
        self.name = transport.name
        where = home if isinstance(home, Home) else Home(path=home)
        self.home, self._rule = where.path, where.rule
        self.bytes_sent = 0
        self.delivered = False
        self._reported = 0
        self._agent: Version | None = None  # the agent's protocol, once it has answered
        self._agent_states_version = True  # False = it is of version 1.0, and may refuse a version
        self._transport = transport
        self._stream: Stream | None = None

    def facts(self, sites: tuple[str, ...] = ()) -> DeviceFacts:
        """Ask for the facts of the device and of its runtimes, also of those in ``sites``."""
        return self.ask(ProbeJob(home=self.home, sites=sites), DeviceFacts)

    def count_newly_sent(self) -> int:
        """Return the bytes sent since the last call; the first call counts the agent too."""
        count = self.bytes_sent - self._reported
        self._reported = self.bytes_sent
        return count

    def ask(
        self,
        job: object,
        result: type[R],
        *,
        payload: Iterable[bytes] = (),
        progress: Progress | None = None,
        silence_s: float = SILENCE_S,
        total_s: float = math.inf,
    ) -> R:
        """Send a job and wait for its result.

        Args:
            job: one of the agent's job records.
            result: the type of the record that answers the job.
            payload: bytes that follow the job, piece by piece.
            progress: called with the progress reports of the agent.
            silence_s: the longest time without a line from the agent.
            total_s: the longest time for the job, if its type allows more.

        Raises:
            DeviceError: the job or the device failed.
        """
        self.delivered = False
        stream = self._stream or self.start()
        bounds = bounds_of(job)
        watch = LimitTracker(replace(bounds, total_s=min(bounds.total_s, total_s)), job)
        try:
            known = self._agent
            if not self._agent_states_version:
                check_known_to_first(self.name, job)
            answer = self._exchange(stream, job, payload, watch, silence_s, progress)
            if known is None and not self._agent_states_version and is_bad_job(answer):
                check_known_to_first(self.name, job)
                try:
                    answer = self._exchange(stream, job, payload, watch, silence_s, progress)
                except DeviceError:
                    self.close()  # the first answer counts
        except BaseException:
            # A new agent for the next job, which must not read the rest of this answer.
            self.close()
            raise
        return self._decode_result(result, answer, job)

    def _exchange(
        self,
        stream: Stream,
        job: object,
        payload: Iterable[bytes],
        watch: LimitTracker,
        silence_s: float,
        progress: Progress | None,
    ) -> dict[str, Any]:
        """Send a job in the version of the agent, as far as it is known, and read its answer."""
        message = encode_job(job, peer=PROTOCOL if self._agent_states_version else FIRST)
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        answer = self._send(stream, [line], payload, watch, progress)
        while answer is None:
            answer = self._read(stream, silence_s, watch, progress)
        return answer

    def start(self) -> Stream:
        """Start the agent; send it first if the device lacks it."""
        watch = LimitTracker(START_BOUNDS)
        stream = self._open(
            make_fast_start(self._transport.pythons[0], Home(path=self.home, rule=self._rule))
        )
        try:
            said = self._read_greeting(stream, watch)
            if said.home is None:
                self.close()
                stream, said = self._start_agent(watch)
            if said.home is None:
                raise self._make_ended_error(stream)
        except BaseException:
            self.close()
            raise
        self.home = said.home
        return stream

    def _start_agent(self, watch: LimitTracker) -> tuple[Stream, Greeting]:
        """Find Python on the device, send the agent and start it."""
        stream = self._open(
            make_launch(self._transport.pythons, Home(path=self.home, rule=self._rule))
        )
        said = self._read_greeting(stream, watch)
        if said.send is not None:
            self._write(stream, pack_agent().data)
            said = self._read_greeting(stream, watch)
        if said.python is False:
            raise self._make_no_python_error()
        if said.error is not None:
            raise DeviceError(
                f"{self.name}: {said.error}",
                hint="free some space or mount it, or choose another folder: --home, "
                "EDGEKIT_HOME on the "
                "device, or connection.home in your profile of the device",
            )
        return stream, said

    def _open(self, command: str) -> Stream:
        self._stream = self._transport.open(command)
        self.bytes_sent += self._stream.command_bytes
        return self._stream

    def reconnect(self) -> None:
        """Disconnect and connect again, once; the next job starts the agent.

        Raises:
            DeviceError: the device cannot be reached.
        """
        self.close()
        self._transport.reconnect()

    def close(self) -> None:
        """End the agent; the next job starts it again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _make_no_python_error(self) -> DeviceError:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return DeviceError(
            f"{self.name}: no Python {oldest} or newer found there",
            hint=f"looked for {', '.join(self._transport.pythons)}; install one "
            "(Debian: apt install python3)",
        )

    def _read_greeting(self, stream: Stream, watch: LimitTracker) -> Greeting:
        """Read the agent's greeting; return an empty one if the agent ends without it."""
        until, noise = time.monotonic() + START_S, 0
        while noise <= MOST_NOISE_BYTES:
            line = self._read_line(stream, max(0.0, until - time.monotonic()), watch)
            if not line:
                return Greeting()
            try:
                said = find_greeting(line)
            except ValueError as error:
                raise self._make_wrong_answer_error(error) from error
            if said is not None:
                return said
            noise += len(line)
        raise DeviceError(f"{self.name}: the login scripts print too much before the agent answers")

    def _send(
        self,
        stream: Stream,
        head: list[bytes],
        payload: Iterable[bytes],
        watch: LimitTracker,
        progress: Progress | None,
    ) -> dict[str, Any] | None:
        """Send all bytes; return the answer if it comes before the end, else None."""
        for piece in itertools.chain(head, payload):
            answer = self._push(stream, piece, watch, progress)
            if answer is not None:
                self.close()  # the agent still waits for the rest
                return answer
        self.delivered = True
        return None

    def _push(
        self, stream: Stream, piece: bytes, watch: LimitTracker, progress: Progress | None
    ) -> dict[str, Any] | None:
        view, moved = memoryview(piece), time.monotonic()
        while view:
            if stream.has_output():
                answer = self._read(stream, STALL_S, watch, progress)
                if answer is not None:
                    return answer
            taken = stream.send(view)
            self.bytes_sent += taken
            view = view[taken:]
            if taken:
                moved = time.monotonic()
            elif time.monotonic() - moved > STALL_S:
                raise self._make_stall_error()
            if watch.remaining_s() <= 0:
                raise self._timeout_error(watch)
        return None

    def _write(self, stream: Stream, data: bytes) -> None:
        try:
            write_all(stream, data, stall_s=STALL_S)
        except TimeoutError as error:
            raise self._make_stall_error() from error
        self.bytes_sent += len(data)

    def _make_stall_error(self) -> DeviceError:
        return DeviceError(f"{self.name}: no data accepted for {STALL_S:g} s", transient=True)

    def _read(
        self, stream: Stream, silence_s: float, watch: LimitTracker, progress: Progress | None
    ) -> dict[str, Any] | None:
        """Read one line from the agent; return None for a progress report."""
        line = self._read_line(stream, silence_s, watch)
        if not line:
            raise self._make_ended_error(stream)
        if not watch.count_line():
            raise DeviceError(f"{self.name}: the agent sent too many lines")
        try:
            value = parse_line(line)
        except ValueError as error:
            raise self._make_garbled_error(line) from error
        if not {"progress", "result", "error"} & set(value):
            raise self._make_garbled_error(line)
        try:
            self._agent, self._agent_states_version = read_version(value), "protocol" in value
            check_agent_version(self.name, self._agent)
            if "progress" not in value:
                return value
            said = read_progress(value["progress"], watch.job, peer=self._agent or PROTOCOL)
        except ValueError as error:
            raise self._make_wrong_answer_error(error) from error
        if progress is not None:
            progress(said)
        return None

    def _read_line(self, stream: Stream, silence_s: float, watch: LimitTracker) -> bytes:
        left_s = watch.remaining_s()
        if left_s <= 0:
            raise self._timeout_error(watch)
        try:
            return stream.readline(min(silence_s, left_s), watch.bounds.line_bytes)
        except LineTooLong as error:
            raise DeviceError(f"{self.name}: the agent sent {error}") from error
        except TimeoutError as error:
            if left_s < silence_s:
                raise self._timeout_error(watch) from error
            raise DeviceError(
                f"{self.name}: no answer of the agent for {silence_s:g} s", transient=True
            ) from error

    def _timeout_error(self, watch: LimitTracker) -> DeviceError:
        limit = format_duration(watch.bounds.total_s)
        return DeviceError(f"{self.name}: not finished within {limit}", transient=True)

    def _decode_result(self, result: type[R], answer: dict[str, Any], job: object) -> R:
        try:
            if "error" not in answer:
                return read_result(result, answer["result"], job, peer=self._agent or PROTOCOL)
            failure = decode(Failure, answer["error"], peer=self._agent or PROTOCOL)
        except ValueError as error:
            self.close()
            raise self._make_wrong_answer_error(error) from error
        raise make_failure_error(self.name, job, failure)

    def _make_wrong_answer_error(self, error: ValueError) -> DeviceError:
        return DeviceError(f"{self.name}: invalid answer of the agent: {error}")

    def _make_garbled_error(self, line: bytes) -> DeviceError:
        text = line[:100].decode(errors="replace").strip()
        return DeviceError(f"{self.name}: unexpected output of the agent:  {text!r}")

    def _make_ended_error(self, stream: Stream) -> DeviceError:
        try:
            status = stream.wait(2.0)
        except TimeoutError:
            status = 0
        how = f"with status {status}" if status >= 0 else f"by {signal_name(-status)}"
        tail = stream.stderr_tail().splitlines()
        why = f": {tail[-1]}" if tail else ""
        hint = (
            "SIGKILL usually means that the device ran out of memory"
            if status == -signal.SIGKILL
            else ""
        )
        return DeviceError(
            f"{self.name}: the agent ended {how}{why}", hint=hint, transient=status < 0
        )
