"""Contents of files and of bodies of requests: texts, JSON and arrays of bounded size."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit_agent import strictjson
from edgekit_agent.failures import AgentError
from edgekit_agent.files import open_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_WAV_BYTES = 256 << 20
MOST_ARRAY_BYTES = 256 << 20
MOST_TEXT = 1 << 20
MOST_JSON_BYTES = 16 << 20


def read_file(path: str) -> bytes:
    """Read a file of bounded size.

    Raises:
        AgentError: ``bad_sample``: it cannot be read.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MOST_WAV_BYTES + 1)
    except (OSError, ValueError) as error:
        told = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise AgentError("bad_sample", f"{path}: cannot be read: {told}") from error
    check_size(data, MOST_WAV_BYTES, path)
    return data


def check_size(data: bytes, most: int, name: str) -> None:
    """Check the size of data.

    Raises:
        AgentError: ``bad_sample``: they are larger.
    """
    if len(data) > most:
        raise AgentError("bad_sample", f"{name} is larger than {most >> 20} MiB")


def decode_text(data: bytes) -> str:
    """Decode a text.

    Raises:
        AgentError: ``bad_sample``: it is not UTF-8.
    """
    check_size(data, 4 * MOST_TEXT, "the text")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise AgentError(
            "bad_sample", "the text is not UTF-8", hint="save or send it as UTF-8"
        ) from error


def parse_json(data: bytes) -> object:
    """Parse JSON; a single number becomes a list.

    Raises:
        AgentError: ``bad_sample``: it is not JSON.
    """
    check_size(data, MOST_JSON_BYTES, "the row")
    try:
        value: object = strictjson.loads(data)
    except ValueError as error:
        raise AgentError("bad_sample", f"the row is not JSON: {str(error)[:100]}") from error
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return [value]
    return value


def load_array(data: bytes) -> NDArray[Any]:
    """Read a ``.npy``.

    Raises:
        AgentError: ``bad_sample``: it cannot be read.
    """
    check_size(data, MOST_ARRAY_BYTES, "the array")
    try:
        file = io.BytesIO(data)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        size = int(np.prod(shape, dtype=np.float64)) * dtype.itemsize
        if dtype.hasobject or size > MOST_ARRAY_BYTES or size > len(data):
            raise ValueError("its header does not fit its bytes")
        file.seek(0)
        array: NDArray[Any] = np.load(file, allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python and raises anything
        raise AgentError("bad_sample", f"the array cannot be read: {_first_line(error)}") from error
    return array


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:100]
