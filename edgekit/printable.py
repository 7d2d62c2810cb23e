"""Escaping of untrusted text for the terminal: control characters and forged lines.

Names in models and bundles, file names, and all answers of a device may hold escape sequences that
clear the screen, set its title or hide text, characters that reverse the reading order, and line
ends that make one message look like two.
"""

from __future__ import annotations


def escape_text(text: str) -> str:
    """Escape every character that is not printable; the result is one line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def escape_lines(text: str) -> str:
    """Escape every character that is not printable, except tabs and line ends."""
    return "\n".join("\t".join(map(escape_text, line.split("\t"))) for line in text.split("\n"))


def escape_message(text: str) -> str:
    """Escape every character that is not printable; only indented lines stay lines.

    A name that contains a line end cannot begin a line of its own.
    """
    return "\n  ".join(map(escape_text, text.split("\n  ")))


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
