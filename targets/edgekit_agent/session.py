"""Session: a model in its folder, ready for samples as applications have them."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from edgekit_agent.failures import AgentError
from edgekit_agent.files import open_regular
from edgekit_agent.model_settings import ModelSettings, read_model_settings
from edgekit_agent.runtimes.import_errors import make_import_error
from edgekit_agent.sketches import Sketches

if TYPE_CHECKING:
    import types

    from numpy.typing import NDArray

    from edgekit_agent.prediction.samples import Prepared
    from edgekit_agent.worker_results import Health

_MOST_TOKENIZER_BYTES = 1 << 26


class Session:
    """A model that answers samples: images, sounds, texts, rows and arrays.

    Several threads may use it; the model runs one sample at a time.

    Args:
        folder: folder with the model and its ``manifest.json``: that of a build, or of a release.
        site: folder of the packages of the runtime, which are imported first.
        threads: threads of the runtime; ``None`` = as the manifest says.
        sketches: whether to count values of inputs, outputs and answers for monitoring.

    Raises:
        AgentError: the folder, the model or the runtime cannot be used; the text says why.
    """

    def __init__(
        self,
        folder: str,
        *,
        site: Optional[str] = None,
        threads: Optional[int] = None,
        sketches: bool = True,
    ) -> None:
        folder = os.path.expanduser(os.fspath(folder))
        self.settings: ModelSettings = read_model_settings(folder)
        self.sketches: Optional[Sketches] = Sketches() if sketches else None
        self._folder = folder
        self._lock = threading.Lock()
        if site is not None:
            _add_site(site)
        try:
            from edgekit_agent.prediction.predictor import Predictor
        except ImportError as error:
            what = f"cannot import {error.name or 'the packages of the runtime'}"
            hint = "install numpy, or give the folder of the packages as site"
            raise make_import_error(what, error, site, hint=hint) from error
        chosen = threads if threads is not None else self.settings.threads
        tokenizer = self._read_tokenizer() if self.settings.text is not None else None
        try:
            self._predictor: Optional[Predictor] = Predictor(
                folder, self.settings, chosen, tokenizer
            )
        except FileNotFoundError as error:
            raise AgentError(
                "missing_file", f"{error.filename or folder}: there is no such file"
            ) from error

    def predict(self, sample: object) -> Dict[str, Any]:
        """Answer a sample.

        Args:
            sample: bytes of an image or of a .wav file, or the path of one (``pathlib.Path``); a
                text; an array as the data of the build have them, without the axis of samples; a
                list of numbers; or a mapping from fields, or inputs, to values.

        Returns:
            The answer as JSON values: ``kind``, ``result``, ``confidence``, ``ms``, ``timings``.

        Raises:
            AgentError: ``bad_sample``: the model does not take the sample; ``model_failed``.
        """
        start = time.perf_counter()
        predictor = self._get_predictor()
        prepared = predictor.reader.read(sample)
        return self._answer(prepared, start)

    def predict_bytes(self, data: bytes, media_type: str) -> Dict[str, Any]:
        """Answer the body of a request.

        Args:
            data: an image, a .wav file, a text or a JSON row.
            media_type: its type, such as ``image/jpeg`` or ``application/json``.

        Raises:
            AgentError: as ``predict``.
        """
        start = time.perf_counter()
        prepared = self._get_predictor().reader.read_body(bytes(data), media_type)
        return self._answer(prepared, start)

    def stream(self) -> Stream:
        """Begin a stream, whose states are carried from one sample to the next."""
        return Stream(self, self._get_predictor().runner.start())

    def check(self) -> Health:
        """Run the golden samples and compare the outputs with those of the build.

        Raises:
            AgentError: the golden samples cannot be read, or the model fails.
        """
        from edgekit_agent.measure.health import check_model

        settings = self.settings
        golden = os.path.join(self._folder, settings.golden_samples)
        with self._lock:
            model = self._get_predictor().runner.model
            return check_model(model, golden, settings.max_relative_error, lambda *_: None)

    def close(self) -> None:
        """Release the model."""
        self._predictor = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: Optional[type],
        error: Optional[BaseException],
        trace: Optional[types.TracebackType],
    ) -> None:
        self.close()

    def _get_predictor(self) -> Any:  # noqa: ANN401 - its module needs numpy
        if self._predictor is None:
            raise AgentError("bad_job", "the session is closed")
        return self._predictor

    def _answer(
        self, prepared: Prepared, start: float, stream: Optional[Stream] = None
    ) -> Dict[str, Any]:
        ready = time.perf_counter()
        predictor = self._get_predictor()
        with self._lock:
            states = predictor.runner.start() if stream is None else stream.states
            begin_s = 0.0 if stream is None else stream.seconds
            found = predictor.run(prepared, states)
            if stream is not None:
                stream.states = found.states
        ran = time.perf_counter()
        answer: Dict[str, Any] = predictor.describe(prepared, found, begin_s)
        end = time.perf_counter()
        answer["ms"] = 1e3 * (end - start)
        answer["timings"] = {
            "preprocess": 1e3 * (ready - start) + found.stacking_ms,
            "run": 1e3 * (ran - ready) - found.stacking_ms,
            "postprocess": 1e3 * (end - ran),
        }
        if self.sketches is not None:
            self.sketches.add(found.inputs, found.outputs, answer)
        return answer

    def _read_tokenizer(self) -> bytes:
        text = self.settings.text
        path = os.path.join(self._folder, text.tokenizer if text is not None else "")
        try:
            with open_regular(path) as file:
                data = file.read(_MOST_TOKENIZER_BYTES + 1)
        except (OSError, ValueError) as error:
            raise AgentError("missing_file", f"{path}: cannot be read: {error}") from error
        if len(data) > _MOST_TOKENIZER_BYTES:
            raise AgentError("bad_bundle", f"{path}: too large a tokenizer")
        return data


class Stream:
    """A sequence of samples of a model with states, such as the blocks of a microphone.

    Attributes:
        states: states after the last sample.
        seconds: duration of the sound so far.
    """

    def __init__(self, session: Session, states: Dict[str, NDArray[Any]]) -> None:
        self.states = states
        self.seconds = 0.0
        self._session = session
        self._windows: Any = None

    def predict(self, sample: object) -> Dict[str, Any]:
        """Answer the next sample.

        A sound may have any length: what is left of it after the last whole step is kept for the
        next one. An answer of a block without a whole step has no decisions.

        Args:
            sample: as ``Session.predict``; for a sound also its values, a 1-D array.

        Raises:
            AgentError: as ``Session.predict``.
        """
        start = time.perf_counter()
        reader = self._session._get_predictor().reader
        audio = self._session.settings.audio
        if audio is None or audio.step is None:
            return self._session._answer(reader.read(sample), start, self)
        if self._windows is None:
            from edgekit_agent.prediction.windows import Windows

            self._windows = Windows(audio)
        windows: List[Any] = self._windows.add(reader.read_values_of_sound(sample))
        prepared = reader.prepare_windows(windows)
        answer = self._session._answer(prepared, start, self)
        self.seconds += len(windows) * audio.step / audio.rate
        return answer


def _add_site(site: str) -> None:
    import sys

    path = os.path.expanduser(site)
    if path not in sys.path:
        sys.path.insert(0, path)
