"""Hostile bytes, texts, numbers and TOML tokens."""

from __future__ import annotations

BYTES = (b"", b"\0", b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x80" * 9 + b"\x01", b"\0" * 64)
TEXTS = (
    "", "\0", "a" * 5000, "../../etc/passwd", "/dev/zero", "\x1b[2J\x1b]0;x\a", "a\nedgekit: b",
    "\u202eabc", "\U0001f600", "%s%n{}", "1e999", "-1", "nan",
)  # fmt: skip
NUMBERS = (0, -1, 1, 1 << 31, 1 << 63, -(1 << 63), 1 << 70, 1e308, -1e308, 1e-320, 10**400)
TOKENS = (
    "1e999", "-1", "0", "nan", "inf", '""', '"\\u0000"', "[]", "{}", "true", "1979-05-27",
    "99999999999999999999999", "[[[[[[[[1]]]]]]]]", '"' + "x" * 300 + '"', "1_000", "0x7fffffff",
)  # fmt: skip
