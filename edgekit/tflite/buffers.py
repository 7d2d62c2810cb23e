"""Encoding of constants in .tflite files: little endian, integers below 8 bits packed in bytes."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UserError
from edgekit.tflite.ir import Array, Shape, Tensor

BITS = {"int4": 4, "uint4": 4, "int2": 2}
_HELD_AS = {"int4": "int8", "uint4": "uint8", "int2": "int8"}
_PLAIN = (
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16",
    "uint32", "uint64", "bool", "complex64", "complex128",
)  # fmt: skip


def count_stored_bytes(dtype: str, shape: Shape) -> int:
    """Return the number of bytes that a constant takes in the file.

    Raises:
        UserError: Constants of this type are not supported.
    """
    size = math.prod(shape)
    if dtype in BITS:
        return -(-size * BITS[dtype] // 8)
    if dtype not in _PLAIN:
        raise UserError(f"constants of type {dtype} are not supported")
    return size * np.dtype(dtype).itemsize


def decode_constant(raw: memoryview, dtype: str, shape: Shape) -> Array:
    """Decode a constant: a view of the file, or unpacked to 8 bits from fewer.

    Raises:
        UserError: Constants of this type are not supported, or the bytes do not fit the shape.
    """
    byte_count = count_stored_bytes(dtype, shape)
    if len(raw) != byte_count:
        raise UserError(f"{len(raw)} bytes stored, but {dtype}{list(shape)} needs {byte_count}")
    if dtype in BITS:
        return _unpack(np.frombuffer(raw, np.uint8), dtype, math.prod(shape)).reshape(shape)
    values: Array = np.frombuffer(raw, np.dtype(dtype).newbyteorder("<"))
    return values.reshape(shape)


def encode_constant(tensor: Tensor) -> bytes:
    """Encode a constant as the bytes that the file stores.

    Raises:
        UserError: The type is not supported, or the values do not fit type or shape.
    """
    data = tensor.data
    if data is None:
        return b""
    if data.shape != tensor.shape or data.dtype != np.dtype(
        _HELD_AS.get(tensor.dtype, tensor.dtype)
    ):
        raise UserError(
            f"constant {tensor.name}: {data.dtype}{list(data.shape)} is not "
            f"{tensor.dtype}{list(tensor.shape)}"
        )
    if tensor.dtype in BITS:
        return _pack(data, tensor).tobytes()
    count_stored_bytes(tensor.dtype, tensor.shape)
    return data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes()


def _unpack(raw: NDArray[np.uint8], dtype: str, size: int) -> Array:
    bits = BITS[dtype]
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes: NDArray[np.uint8] = (raw[:, None] >> shifts & (2**bits - 1)).reshape(-1)[:size]
    if dtype.startswith("u"):
        return codes
    top = 8 - bits
    signed: NDArray[np.int8] = (codes << top).view(np.int8) >> top
    return signed


def _pack(data: Array, tensor: Tensor) -> NDArray[np.uint8]:
    bits = BITS[tensor.dtype]
    low = 0 if tensor.dtype.startswith("u") else -(2 ** (bits - 1))
    if data.size and not (low <= int(data.min()) and int(data.max()) < low + 2**bits):
        raise UserError(f"constant {tensor.name}: values outside {tensor.dtype}")
    per_byte = 8 // bits
    codes = data.reshape(-1).view(np.uint8) & (2**bits - 1)
    codes = np.pad(codes, (0, -codes.size % per_byte)).reshape(-1, per_byte)
    shifted = codes << np.arange(0, 8, bits, dtype=np.uint8)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(shifted, axis=1).astype(np.uint8)
    return packed
