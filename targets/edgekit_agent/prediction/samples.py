"""Samples of an application as rows of a model's inputs. Needs numpy."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, List, Mapping, Optional

import numpy as np

from edgekit_agent.failures import AgentError
from edgekit_agent.prediction.bodies import (
    MOST_TEXT,
    MOST_WAV_BYTES,
    check_size,
    decode_text,
    load_array,
    parse_json,
    read_file,
)
from edgekit_agent.preprocess.audio import choose_shape, convert_wave, iter_windows, pad_wave
from edgekit_agent.preprocess.images import Pixels, arrange_image, decode_image
from edgekit_agent.preprocess.rows import read_fields, read_values, shape_numbers
from edgekit_agent.preprocess.texts import convert_text
from edgekit_agent.preprocess.wav import read_wav, read_wav_format

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.model_settings import ModelSettings
    from edgekit_agent.preprocess.settings import Audio
    from edgekit_agent.runtimes import Arrays, Tensor

MOST_PIXELS = 1 << 26
MOST_IMAGE_BYTES = 64 << 20
# First bytes of the kinds of images that are read.
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF8")
_NUMPY = b"\x93NUMPY"
_KINDS = {"image": "images", "audio": "sounds (.wav)", "text": "texts", "row": "rows of numbers"}


@dataclass(frozen=True, eq=False)
class Prepared:
    """A sample as rows of the model's inputs, one row for each step of a stream.

    Attributes:
        rows: rows of the inputs by name, without the axis of the samples.
        pixels: the image, if the sample is one.
        tokens: number of tokens, if the sample is a text.
        seconds: duration of what the rows cover, if the sample is a sound: also of zeros behind it.
    """

    rows: List[Arrays] = field(default_factory=list)
    pixels: Optional[Pixels] = None
    tokens: Optional[int] = None
    seconds: Optional[float] = None


class SampleReader:
    """Reader of samples for one model.

    Args:
        settings: settings of the model.
        tokenizer: the tokenizer of texts, if the model takes any.
        axes: axis of the samples of each input; -1 = there is none.
        tensors: inputs of the loaded model that samples feed.
    """

    def __init__(
        self,
        settings: ModelSettings,
        tokenizer: Any,  # noqa: ANN401 - the library has no types
        axes: Mapping[str, int],
        tensors: Mapping[str, Tensor],
    ) -> None:
        self._settings = settings
        self._tokenizer = tokenizer
        self._axes = axes
        self._tensors = tensors

    def read(self, sample: object) -> Prepared:
        """Convert a sample to rows.

        Args:
            sample: bytes of an image or of a .wav file, a path of one, a text, an array, numbers,
                or a mapping: fields to numbers, inputs to arrays, or ``text`` and ``text_pair``.

        Raises:
            AgentError: ``bad_sample``: the model does not take it; the text says why.
        """
        if isinstance(sample, os.PathLike):
            sample = read_file(os.fspath(sample))
        if isinstance(sample, (bytes, bytearray, memoryview)):
            return self._read_bytes(bytes(sample))
        if isinstance(sample, str):
            return self._read_text(sample, None)
        if isinstance(sample, Mapping):
            return self._read_mapping(sample)
        if isinstance(sample, (list, tuple)):
            return Prepared(rows=[self._read_numbers(sample)])
        if isinstance(sample, np.ndarray):
            return self.read_array(sample)
        raise AgentError(
            "bad_sample",
            f"the sample is an object of type {type(sample).__name__}",
            hint=self._hint(),
        )

    def read_body(self, data: bytes, media_type: str) -> Prepared:
        """Convert the body of a request to rows.

        Args:
            data: the body.
            media_type: its type, such as ``image/jpeg``; others than text and JSON are told by the
                first bytes.

        Raises:
            AgentError: ``bad_sample``: as ``read``; or it is not what its type says.
        """
        kind = media_type.partition(";")[0].strip().lower()
        if kind == "application/json" or kind.endswith("+json"):
            return self.read(parse_json(data))
        if kind == "text/plain":
            return self.read(decode_text(data))
        return self._read_bytes(data)

    def read_wave(self, wave: NDArray[np.float32]) -> Prepared:
        """Convert the values of a sound, at the sampling rate of the model, to rows."""
        how = self._get_audio()
        if how.step is not None:
            if len(wave) < how.step:
                raise AgentError(
                    "bad_sample",
                    f"the recording is too short: {len(wave)} values, and a step has {how.step}",
                )
            windows = iter_windows(wave, how.samples or how.step, how.step)
            rows = [self.convert_window(window) for window in windows]
            return Prepared(rows=rows, seconds=len(wave) / how.rate)
        length = how.samples or len(wave)
        if not len(wave):
            raise AgentError("bad_sample", "the recording is empty")
        rows = [self.convert_window(pad_wave(wave[:length], length))]
        return Prepared(rows=rows, seconds=length / how.rate)

    def convert_window(self, wave: NDArray[np.float32]) -> Arrays:
        """Convert the values of one step, or of a whole sound, to a row."""
        how, tensor = self._get_audio(), self._get_only_input()
        sizes = [s for place, s in enumerate(tensor.shape) if place != self._axes[tensor.name]]
        shape = choose_shape("the recording", len(wave), how, sizes)
        return {tensor.name: convert_wave(wave, how).astype(np.float32).reshape(shape)}

    def read_values_of_sound(self, sample: object) -> NDArray[np.float32]:
        """Return the values of a block of a stream: those of an array, or of a .wav file."""
        if isinstance(sample, os.PathLike):
            sample = read_file(os.fspath(sample))
        if isinstance(sample, (bytes, bytearray, memoryview)):
            return self._read_wave_file(bytes(sample))
        if isinstance(sample, (np.ndarray, list, tuple)):
            array = np.asarray(sample)
            if array.size == 0:
                return np.zeros(0, np.float32)
            if array.ndim == 1:
                return np.asarray(read_values(array, "the recording"), np.float32)
        raise AgentError("bad_sample", "a block of sound is a .wav file or a row of values")

    def prepare_windows(self, windows: List[NDArray[np.float32]]) -> Prepared:
        """Convert the windows of the steps of a stream to rows."""
        return Prepared(rows=[self.convert_window(window) for window in windows])

    def read_array(self, array: NDArray[Any]) -> Prepared:
        """Convert an array to rows: that of the only input, a sound, or an image of other size."""
        if array.dtype.kind not in "biuf":
            raise AgentError("bad_sample", f"an array of {array.dtype} has no numbers")
        if self._settings.audio is not None and array.ndim == 1:
            return self.read_wave(np.asarray(read_values(array, "the recording"), np.float32))
        tensor = self._get_only_input()
        if self._is_picture(array, tensor):
            return self._read_picture(array)
        return Prepared(rows=[{tensor.name: self._fit(array, tensor)}])

    def _read_bytes(self, data: bytes) -> Prepared:
        if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
            return self._read_sound(data)
        if data.startswith(_IMAGES) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
            return self._read_image(data)
        if data.startswith(_NUMPY):
            return self.read_array(load_array(data))
        expected = self._settings.input_kind
        if expected == "text":
            return self._read_text(decode_text(data), None)
        if expected == "row":
            return self.read(parse_json(data))
        if not data:
            raise AgentError("bad_sample", "the sample is empty", hint=self._hint())
        return self._read_image(data) if expected == "image" else self._read_sound(data)

    def _read_image(self, data: bytes) -> Prepared:
        return self._place_pixels(self._decode_pixels(data))

    def _decode_pixels(self, data: bytes) -> Pixels:
        look = self._settings.images
        if look is None or self._settings.input_kind not in ("image", "row"):
            raise self._refuse("images")
        check_size(data, MOST_IMAGE_BYTES, "the image")
        file = io.BytesIO(data)
        return decode_image(file, look, "the image", most_pixels=MOST_PIXELS, upright=True)

    def _read_picture(self, array: NDArray[Any]) -> Prepared:
        """Read an array of pixels (RGB) that has not the size of the input, as an image."""
        from PIL import Image

        look = self._settings.images
        if look is None:
            raise self._refuse("images")
        image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
        return self._place_pixels(
            arrange_image(image.convert("L" if look.gray else "RGB"), look, "the image")
        )

    def _place_pixels(self, pixels: Pixels) -> Prepared:
        tensor = self._get_only_input(rank=4)
        row = pixels.values
        if tensor.shape[0] == 1 and self._axes[tensor.name] < 0:
            row = row[np.newaxis]
        return Prepared(rows=[{tensor.name: row}], pixels=pixels)

    def _read_sound(self, data: bytes) -> Prepared:
        return self.read_wave(self._read_wave_file(data))

    def _read_wave_file(self, data: bytes) -> NDArray[np.float32]:
        how = self._get_audio()
        check_size(data, MOST_WAV_BYTES, "the recording")
        file = io.BytesIO(data)
        found = read_wav_format(file, "the recording")
        if found.rate != how.rate:
            raise AgentError(
                "bad_sample",
                f"the recording has {found.rate} values per second, the model takes {how.rate}",
                hint=f"record at {how.rate} Hz, or convert: ffmpeg -i FILE -ar {how.rate} OUT.wav",
            )
        file.seek(0)
        most = how.samples if how.step is None else None
        return read_wav(file, "the recording", most)

    def _read_text(self, text: str, pair: Optional[str]) -> Prepared:
        how = self._settings.text
        if how is None:
            raise self._refuse("texts")
        if len(text) + len(pair or "") > MOST_TEXT:
            raise AgentError("bad_sample", f"the text has more than {MOST_TEXT:,} characters")
        rows, count = convert_text(self._tokenizer, text, pair, how)
        return Prepared(rows=[rows], tokens=count)

    def _read_mapping(self, sample: Mapping[Any, Any]) -> Prepared:
        if self._settings.text is not None and isinstance(sample.get("text"), str):
            pair = sample.get("text_pair")
            if set(sample) - {"text", "text_pair"} or not isinstance(pair, (str, type(None))):
                raise AgentError("bad_sample", 'a text has "text" and at most "text_pair"')
            return self._read_text(sample["text"], pair)
        named = {name: value for name, value in sample.items() if name in self._tensors}
        if set(named) == set(self._tensors) == set(sample):
            return Prepared(rows=[{n: self._read_named(n, v) for n, v in named.items()}])
        return Prepared(rows=[self._read_fields(sample)])

    def _read_named(self, name: str, value: object) -> NDArray[Any]:
        if isinstance(value, os.PathLike):
            value = read_file(os.fspath(value))
        if isinstance(value, (bytes, bytearray)):
            return self._decode_pixels(bytes(value)).values
        is_bool = self._tensors[name].dtype == "bool"
        array = (
            value if isinstance(value, np.ndarray) else read_values(value, name, is_bool=is_bool)
        )
        if not isinstance(value, np.ndarray) and array.dtype.kind in "iuf":
            array = np.asarray(array, np.dtype(self._tensors[name].dtype))
            if not np.array_equal(array, np.asarray(value)) and array.dtype.kind != "f":
                raise AgentError("bad_sample", f"{name}: has values that are not of {array.dtype}")
        return self._fit(array, self._tensors[name])

    def _read_fields(self, sample: Mapping[Any, Any]) -> Arrays:
        """Return the rows of all inputs for a row of fields."""
        known = {each.input: each.fields for each in self._settings.fields}
        if not known:
            names = ", ".join(self._tensors)
            wrong = next((n for n in sample if n not in self._tensors), None)
            lacking = next((n for n in self._tensors if n not in sample), "")
            told = f"there is no input {wrong!r:.60}" if wrong else f"{lacking} is missing"
            raise AgentError(
                "bad_sample", f"the sample: {told}", hint=f"the model's inputs are {names}"
            )
        listed = [name for names in known.values() for name in names]
        values = dict(zip(listed, read_fields(sample, listed)))
        return {
            name: shape_numbers(
                [values[each] for each in fields], self._tensors[name], self._axes[name]
            )
            for name, fields in known.items()
        }

    def _read_numbers(self, sample: object) -> Arrays:
        """Return the row for numbers in the order of the fields, or of the only input."""
        array = read_values(sample, "the row", is_bool=self._takes_bools())
        known = self._settings.fields
        if len(known) > 1:
            listed = [name for each in known for name in each.fields]
            if array.shape != (len(listed),):
                raise AgentError(
                    "bad_sample",
                    f"the row has {array.size} numbers, but the model takes {len(listed)}",
                )
            return self._read_fields(dict(zip(listed, array.tolist())))
        tensor = self._get_only_input()
        if array.ndim == 1:
            return {tensor.name: shape_numbers(array, tensor, self._axes[tensor.name])}
        return {tensor.name: self._read_named(tensor.name, sample)}

    def _takes_bools(self) -> bool:
        return all(tensor.dtype == "bool" for tensor in self._tensors.values())

    def _get_audio(self) -> Audio:
        if self._settings.audio is None:
            raise self._refuse("sounds")
        return self._settings.audio

    def _get_only_input(self, rank: Optional[int] = None) -> Tensor:
        found = [t for t in self._tensors.values() if rank is None or len(t.shape) == rank]
        if len(found) != 1 or (rank is not None and len(self._tensors) != 1):
            raise AgentError(
                "bad_sample",
                f"the model has {len(self._tensors)} inputs, and the sample is one",
                hint=f"give a value for each: {', '.join(self._tensors)}",
            )
        return found[0]

    def _is_picture(self, array: NDArray[Any], tensor: Tensor) -> bool:
        """Return whether an array is an image that must be resized to fit the input."""
        look = self._settings.images
        if look is None or array.dtype != np.uint8 or array.ndim != 3:
            return False
        if array.shape[-1] not in (1, 3) or not 0 < array.size <= 3 * MOST_PIXELS:
            return False
        sizes = [s for place, s in enumerate(tensor.shape) if place != self._axes[tensor.name]]
        preprocess = self._settings.preprocess
        if preprocess is not None and preprocess.channels_first and len(sizes) == 3:
            sizes = [*sizes[1:], sizes[0]]
        fits = len(sizes) == 3 and all(
            not isinstance(want, int) or want == have for want, have in zip(sizes, array.shape)
        )
        return not fits

    def _fit(self, array: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
        """Return an array as a row: without the axis of the samples if that has length 1."""
        axis, rank = self._axes[tensor.name], len(tensor.shape)
        if axis >= 0 and array.ndim == rank and array.shape[axis] == 1:
            array = np.squeeze(array, axis)
        elif axis < 0 and array.ndim == rank - 1 and tensor.shape[0] == 1:
            array = array[np.newaxis]
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise AgentError("bad_sample", f"{tensor.name}: has a value that is not finite")
        look = self._settings.images
        is_image = array.dtype == np.uint8 and array.ndim == 3 and array.shape[-1] == 3
        return array[..., ::-1] if look and look.reversed_channels and is_image else array

    def _refuse(self, given: str) -> AgentError:
        return AgentError("bad_sample", f"this model does not take {given}", hint=self._hint())

    def _hint(self) -> str:
        return f"it takes {_KINDS[self._settings.input_kind]}"
