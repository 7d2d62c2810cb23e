"""Folders of ``.wav`` files as samples: signals, or spectrograms of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.config.audio import AudioSettings
from edgekit.data.audio.wav_files import read_wav, read_wav_format
from edgekit.data.audio.wav_streams import list_streams
from edgekit.data.cached_arrays import (
    Locate,
    build_cached_table,
    check_padded_size,
    open_padded_rows,
    open_rows,
    save_array,
)
from edgekit.data.listed_files import FileListing, list_files
from edgekit.data.sample_errors import raise_user_errors
from edgekit.data.table import SampleReading, Table
from edgekit.errors import UserError
from edgekit.model import TensorSpec
from edgekit.progress import Tick
from edgekit_agent.metrics.ragged import get_length_name
from edgekit_agent.preprocess.audio import choose_shape, convert_wave, iter_windows, pad_wave
from edgekit_agent.preprocess.settings import Audio

WAVES = (".wav", ".wave")
_VERSION = 1
_LENGTH = get_length_name("x")


def read_wav_folder(
    source: str,
    path: Path,
    cache: Path,
    *,
    settings: AudioSettings | None,
    inputs: Sequence[TensorSpec],
    most: int | None,
    tick: Tick,
) -> Table:
    """Read the ``.wav`` files of a folder as rows of the model's input.

    If neither settings nor model give a length, each file keeps its own.

    Args:
        source: Name of the folder, for messages.
        path: The folder, with targets as for images.
        cache: Folder for the arrays.
        settings: Sampling rate, length and spectrogram.
        inputs: Inputs of the model that the samples feed.
        most: Largest number of files to read, spread over the folder; ``None`` = all.
        tick: Progress callback.

    Raises:
        UserError: A file cannot be read, or has another sampling rate, or another length although
            the model has no free axis for it.
    """
    listing = list_files(source, path, WAVES).select_spread(most)
    if not listing.files:
        raise UserError(f"{source}: has no .wav files")
    settings = settings or AudioSettings()
    sizes = inputs[0].shape[1:] if len(inputs) == 1 else ()
    rate = _check_rates(listing.files, settings)
    if settings.step is not None:
        return _read_streams(source, listing, settings, settings.step, rate, sizes, cache, tick)
    length = _choose_length(source, listing.files, settings, rate, sizes)
    how = settings.to_audio(rate, length)
    if length is None:
        shapes = [
            _choose_shape(f"{source}: {file.name}", read_wav_format(file).count, how, sizes)
            for file in listing.files
        ]
    else:
        shapes = [_choose_shape(source, length, how, sizes)] * len(listing.files)
    shape = tuple(map(max, zip(*shapes, strict=True)))
    if length is None:
        check_padded_size(source, len(shapes), "float32", shape)

    def fill(locate: Locate) -> None:
        lengths = locate(_LENGTH) if length is None else None
        with open_padded_rows(locate("x"), lengths, "float32", shape) as append:
            for number, (file, own) in enumerate(zip(listing.files, shapes, strict=True)):
                tick(f"reading {source}", number, len(listing.files))
                wave = read_wav(file, length)
                row = convert_wave(pad_wave(wave, length or len(wave)), how)
                append(row.reshape(own))
        for name, values in listing.arrays.items():
            save_array(locate(name), values)

    facts = f"wav {_VERSION} {settings} {rate} {length} {shape} {listing.describe()}"
    names = ["x", *([_LENGTH] if length is None else []), *listing.arrays]
    table = build_cached_table(source, facts, names, fill, cache)
    return replace(table, class_names=listing.class_names, reading=SampleReading(audio=how))


def _read_streams(
    source: str,
    listing: FileListing,
    settings: AudioSettings,
    step: int,
    rate: int,
    sizes: Sequence[int | str | None],
    cache: Path,
    tick: Tick,
) -> Table:
    """Read each file as a sequence of steps."""
    window = _choose_window(settings, step, rate, sizes)
    how = settings.to_audio(rate, window)
    shape = _choose_shape(source, window, how, sizes)
    streams = list_streams(listing, window=window, step=step)

    def fill(locate: Locate) -> None:
        with open_rows(locate("x"), "float32", shape) as append:
            for number, file in enumerate(listing.files):
                tick(f"reading {source}", number, len(listing.files))
                for values in iter_windows(read_wav(file), window, step):
                    append(convert_wave(values, how).reshape(1, *shape))
        for name, values in streams.arrays.items():
            save_array(locate(name), values)

    facts = f"streams {_VERSION} {settings} {rate} {shape} {streams.digest}"
    table = build_cached_table(source, facts, ["x", *streams.arrays], fill, cache)
    return replace(table, reading=SampleReading(audio=how))


def _choose_window(
    settings: AudioSettings, step: int, rate: int, sizes: Sequence[int | str | None]
) -> int:
    """Return the number of values that the model gets in each step: as set, needed, or new."""
    length = settings.samples or _find_needed_length(settings, sizes) or step
    if settings.length_s is not None:
        length = max(1, round(settings.length_s * rate))
    if length < step:
        raise UserError(
            f"edgekit.toml: data.audio.step: {step} is more than the {length} values of a sample"
        )
    return length


def _check_rates(files: Sequence[Path], settings: AudioSettings) -> int:
    """Return the sampling rate of all files."""
    rate = settings.rate
    for file in files:
        found = read_wav_format(file).rate
        if rate is not None and found != rate:
            other = "[data.audio] rate" if settings.rate else f"the rate of {files[0].name}"
            raise UserError(
                f"{file}: has {found} values per second, but {other} is {rate}",
                hint=f"resample it: ffmpeg -i FILE -ar {rate} OUT.wav",
            )
        rate = found
    return rate or 0


def _choose_length(
    source: str,
    files: Sequence[Path],
    settings: AudioSettings,
    rate: int,
    sizes: Sequence[int | str | None],
) -> int | None:
    """Return the length of all samples: as set, as the model needs, or as all files have it.

    ``None`` = files differ, and the model leaves the length free.
    """
    if settings.samples is not None:
        return settings.samples
    if settings.length_s is not None:
        return max(1, round(settings.length_s * rate))
    if needed := _find_needed_length(settings, sizes):
        return needed
    lengths = {file.name: read_wav_format(file).count for file in files}
    first = next(iter(lengths))
    empty = next((name for name, n in lengths.items() if not n), None)
    if empty is not None:
        raise UserError(f"{source}: {empty} has no values")
    other = next((name for name, n in lengths.items() if n != lengths[first]), None)
    if other is not None and _is_length_free(settings, sizes):
        return None
    if other is not None:
        raise UserError(
            f"{source}: {other} has {lengths[other]} values, {first} {lengths[first]}",
            hint="set [data.audio] length_s or samples; longer files are cut, shorter ones filled "
            "with zeros",
        )
    return lengths[first]


def _is_length_free(settings: AudioSettings, sizes: Sequence[int | str | None]) -> bool:
    """Return whether the model takes signals, or spectrograms, of any length."""
    wanted = [size for size in sizes if size != 1]
    if settings.spectrogram is None:
        return len(wanted) == 1 and not isinstance(wanted[0], int)
    frames = 0 if settings.layout == "frames-bins" else 1
    return len(wanted) == 2 and not isinstance(wanted[frames], int)


def _find_needed_length(settings: AudioSettings, sizes: Sequence[int | str | None]) -> int | None:
    """Return the length that a model of fixed sizes needs; ``None`` if it leaves it free."""
    wanted = [size for size in sizes if size != 1]
    if settings.spectrogram is None:
        only = wanted[0] if len(wanted) == 1 else None
        return only if isinstance(only, int) else None
    if len(wanted) != 2:
        return None
    frames = wanted[0 if settings.layout == "frames-bins" else 1]
    if not isinstance(frames, int):
        return None
    padding = 2 * (settings.n_fft // 2) if settings.center else 0
    return settings.n_fft + (frames - 1) * settings.hop - padding


def _choose_shape(
    source: str, length: int, how: Audio, sizes: Sequence[int | str | None]
) -> tuple[int, ...]:
    with raise_user_errors():
        return choose_shape(source, length, how, sizes)
