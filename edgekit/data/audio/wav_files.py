"""Samples of ``.wav`` files of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgekit.data.sample_errors import raise_user_errors
from edgekit.errors import UserError, reason
from edgekit_agent.files import open_regular
from edgekit_agent.preprocess import wav


def read_wav_format(file: Path) -> wav.WavFormat:
    """Read the format of a file from its header.

    Raises:
        UserError: It is not a ``.wav`` file, damaged, or compressed.
    """
    with _open(file) as opened:
        return wav.read_wav_format(opened, str(file))


def read_wav(file: Path, most: int | None = None) -> NDArray[np.float32]:
    """Read the mean of all channels, integers scaled to -1..1.

    Args:
        file: The file.
        most: Largest number of values to read; ``None`` = all.

    Raises:
        UserError: As ``read_wav_format``; or a value is not finite.
    """
    with _open(file) as opened:
        return wav.read_wav(opened, str(file), most)


@contextmanager
def _open(file: Path) -> Iterator[BinaryIO]:
    try:
        with raise_user_errors(), open_regular(str(file)) as opened:
            yield opened
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read: {reason(error)}") from error
