"""Verification of Ed25519 signatures (RFC 8032) with the standard library alone.

Only public values are handled here, so nothing has to run in constant time.
"""

from __future__ import annotations

import hashlib
from typing import List, Optional, Tuple

PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64

# A point in extended coordinates (X, Y, Z, T): x = X/Z, y = Y/Z, x*y = T/Z.
Point = Tuple[int, int, int, int]

# RFC 8032, section 5.1: the field, the order of the base point, and the curve's constant.
_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_2D = 2 * _D % _P
_SQRT_MINUS_1 = pow(2, (_P - 1) // 4, _P)
_IDENTITY: Point = (0, 1, 1, 0)
# Signed digits of a scalar are odd and below 2**(width - 1).
_WIDTH = 5


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether a signature of a message is valid under a public key.

    Non-canonical encodings of the key, of the point R and of the scalar S are refused, so that
    a signature has one form only.
    """
    if len(public) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    key = _decompress(public)
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or scalar >= _ORDER:
        return False
    hashed = hashlib.sha512(signature[:32] + public + message).digest()
    challenge = int.from_bytes(hashed, "little") % _ORDER
    # R = S*B - k*A, compared in its encoded form.
    return _compress(_double_multiply(scalar, _BASE, challenge, _negate(key))) == signature[:32]


def is_usable_key(public: bytes) -> bool:
    """Return whether a public key is a canonical point that is not of small order.

    Anybody can make signatures for a point of small order.
    """
    point = _decompress(public) if len(public) == PUBLIC_BYTES else None
    if point is None:
        return False
    for _ in range(3):
        point = _double(point)
    x, y, z, _ = point
    return not (x % _P == 0 and (y - z) % _P == 0)


def _decompress(encoded: bytes) -> Optional[Point]:
    """Decode a point from 32 bytes (RFC 8032, 5.1.3); ``None`` if they encode no point."""
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= _P:
        return None
    # x**2 = u / v
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    v3 = v * v * v % _P
    x = u * v3 * pow(u * v3 * v3 * v, (_P - 5) // 8, _P) % _P
    if v * x * x % _P != u:
        x = x * _SQRT_MINUS_1 % _P
    if v * x * x % _P != u or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return (x, y, 1, x * y % _P)


def _compress(point: Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, _P - 2, _P)
    x, y = x * inverse % _P, y * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _negate(point: Point) -> Point:
    x, y, z, t = point
    return (_P - x, y, z, _P - t)


def _add(one: Point, other: Point) -> Point:
    """Add two points (RFC 8032, 5.1.4); the formula has no exceptions."""
    x1, y1, z1, t1 = one
    x2, y2, z2, t2 = other
    a = (y1 - x1) * (y2 - x2) % _P
    b = (y1 + x1) * (y2 + x2) % _P
    c = t1 * _2D % _P * t2 % _P
    d = 2 * z1 * z2 % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _double(point: Point) -> Point:
    x, y, z, _ = point
    a, b = x * x % _P, y * y % _P
    h = a + b
    e = h - (x + y) * (x + y) % _P
    g = a - b
    f = 2 * z * z % _P + g
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _double_multiply(one: int, first: Point, other: int, second: Point) -> Point:
    """Compute ``one * first + other * second`` in one chain of doublings (Straus' method)."""
    columns = [
        (digits, _odd_multiples(point))
        for digits, point in ((_signed_digits(one), first), (_signed_digits(other), second))
    ]
    total = _IDENTITY
    for position in reversed(range(max(len(digits) for digits, _ in columns))):
        total = _double(total)
        for digits, multiples in columns:
            digit = digits[position] if position < len(digits) else 0
            if digit > 0:
                total = _add(total, multiples[digit >> 1])
            elif digit < 0:
                total = _add(total, _negate(multiples[-digit >> 1]))
    return total


def _odd_multiples(point: Point) -> List[Point]:
    """Return 1, 3, 5 ... times a point."""
    twice, multiples = _double(point), [point]
    for _ in range((1 << (_WIDTH - 2)) - 1):
        multiples.append(_add(multiples[-1], twice))
    return multiples


def _signed_digits(scalar: int) -> List[int]:
    """Return the non-adjacent form of a scalar, lowest digit first; few digits are not zero."""
    digits, base, half = [], 1 << _WIDTH, 1 << (_WIDTH - 1)
    while scalar:
        digit = 0
        if scalar & 1:
            digit = scalar & (base - 1)
            digit -= base if digit >= half else 0
            scalar -= digit
        digits.append(digit)
        scalar >>= 1
    return digits


# The base point: y is 4/5, and x is the even one of the two solutions.
_BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_BASE_Y = 46316835694926478169428394003475163141307993866256225615783033603165251855960
_BASE: Point = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % _P)
