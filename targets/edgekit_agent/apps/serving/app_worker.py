"""Process of an app that holds its models and answers one sample at a time. Needs numpy."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import queue
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Tuple

from edgekit_agent.apps.installed import App, get_site, read_statement
from edgekit_agent.apps.package_format import Package
from edgekit_agent.apps.self_check import check_release
from edgekit_agent.apps.serving.frames import MOST_HEADER, read_frame, write_frame
from edgekit_agent.codec import encode
from edgekit_agent.failures import AgentError, to_failure
from edgekit_agent.limits import limit_memory
from edgekit_agent.user_modules import describe_user_error, import_user_function
from edgekit_agent.wire import guard_stdout

if TYPE_CHECKING:
    from edgekit_agent.session import Session

Answer = Callable[[bytes, str], Dict[str, Any]]
"""A function of the body of a request and its media type."""

# Bytes of a message around the answer.
_SPARE_BYTES = 1 << 10
# Memory that a runtime reserves and does not use: stacks of threads, arenas.
_RESERVED_BYTES = 512 << 20
# If memory is short, the kernel ends this process and not the server.
_OOM_SCORE = "500"


def run_app_worker(app: App, release: str) -> int:
    """Load the models, then answer the samples that come on standard input until it ends."""
    answer_fd = guard_stdout()
    frames: queue.SimpleQueue[Tuple[Dict[str, Any], bytes]] = queue.SimpleQueue()
    threading.Thread(target=_read_frames, args=(frames,), daemon=True).start()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_OOM_SCORE)
    try:
        package = read_statement(app.home, release)
        if package.memory_mib:
            limit_memory((package.memory_mib << 20) + _RESERVED_BYTES)
        check_release(app, release, package)
        answer = load_app(app, release, package)
    except Exception as error:  # noqa: BLE001 - the server reports every error
        write_frame(answer_fd, {"failure": encode(to_failure(error))})
        return _end(1)
    write_frame(answer_fd, {"ready": True})
    while True:
        header, body = frames.get()
        try:
            write_frame(answer_fd, _answer_one(answer, body, str(header["media_type"])))
        except BrokenPipeError:
            return _end(0)


def load_app(app: App, release: str, package: Package) -> Answer:
    """Load the models of a release, and the function of the app that combines them.

    Raises:
        AgentError: a model cannot be loaded, or the app's own code raises an error.
    """
    folder, site = app.home.release(release), get_site(app.home, package)
    from edgekit_agent.session import Session

    sessions = {
        model.name: Session(os.path.join(folder, model.folder), site=site, threads=model.threads)
        for model in package.models
    }
    if not package.entry:
        first = sessions[package.models[0].name]
        return first.predict_bytes
    function = import_user_function(package.entry, folder=os.path.join(folder, "app"))
    return _bind(package.entry, function, sessions)


def _bind(entry: str, function: Callable[..., Any], sessions: Dict[str, Session]) -> Answer:
    """Return a function that calls the app's own code, with the media type if it takes one."""
    try:
        inspect.signature(function).bind(sessions, None, "")
        takes_media_type = True
    except TypeError:
        takes_media_type = False

    def answer(body: bytes, media_type: str) -> Dict[str, Any]:
        begin = time.perf_counter()
        sample = decode_sample(media_type, body)
        arguments = (sessions, sample, media_type) if takes_media_type else (sessions, sample)
        try:
            found = function(*arguments)
        except (AgentError, MemoryError):
            raise
        except Exception as error:
            raise AgentError("app_failed", f"{entry}: {describe_user_error(error)}") from error
        if not isinstance(found, dict):
            raise AgentError("app_failed", f"{entry} returned {type(found).__name__}, not a dict")
        found.setdefault("ms", round((time.perf_counter() - begin) * 1000, 3))
        return found

    return answer


def _answer_one(answer: Answer, body: bytes, media_type: str) -> Dict[str, Any]:
    try:
        result = answer(body, media_type)
        # Arrays and numbers of numpy become lists and numbers of JSON.
        text = json.dumps(result, allow_nan=False, default=_to_plain)
        if len(text) > MOST_HEADER - _SPARE_BYTES:
            most = f"{MOST_HEADER >> 20} MiB"
            raise AgentError("app_failed", f"the answer has more than {most} of JSON")
        return {"result": json.loads(text)}
    except MemoryError as error:
        return {"failure": encode(to_failure(error)), "ends": True}
    except Exception as error:  # noqa: BLE001 - the server reports every error
        return {"failure": encode(to_failure(error))}


def decode_sample(media_type: str, body: bytes) -> object:
    """Convert the body of a request to the sample that the app's own code gets.

    Raises:
        AgentError: ``bad_sample``.
    """
    from edgekit_agent.prediction.bodies import decode_text, parse_json

    if media_type == "application/json":
        return parse_json(body)
    return decode_text(body) if media_type == "text/plain" else body


def _to_plain(value: Any) -> Any:  # noqa: ANN401 - any value
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _read_frames(frames: queue.SimpleQueue[Tuple[Dict[str, Any], bytes]]) -> None:
    """Read messages from the server; end this process when the server has ended."""
    while True:
        try:
            frames.put(read_frame(0))
        except (EOFError, ValueError, OSError):
            _end(0)


def _end(status: int) -> int:
    sys.stderr.flush()
    # Skip the interpreter's shutdown: some runtimes crash or hang in it.
    os._exit(status)
    return status
