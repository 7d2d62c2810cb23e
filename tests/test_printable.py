"""Control characters in outside text are escaped."""

import pytest

from edgekit.errors import UserError
from edgekit.printable import escape_lines, escape_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ümläute, 模型, 🙂", "plain text, ümläute, 模型, 🙂"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("\x9b1m\x85", "\\x9b1m\\x85"),
        ("a\nb\r\tc\x00", "a\\nb\\r\\tc\\x00"),
        ("\u202eexe.onnx\u2066\u200b", "\\u202eexe.onnx\\u2066\\u200b"),
        ("line\u2028para\u2029", "line\\u2028para\\u2029"),
        ("bad\udcff", "bad\\udcff"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_invisible_characters_are_escaped(text, shown):
    assert escape_text(text) == shown


def test_lines_and_tabs_of_a_table_stay():
    assert escape_lines("a\tb\n\x1b[1m\n") == "a\tb\n\\x1b[1m\n"


def test_a_name_in_a_message_cannot_begin_a_line():
    error = UserError("m\nedgekit: all is well: no such file\n  1: see\n  2: here", hint="a\nb\x1b")
    assert str(error).splitlines() == [
        "m\\nedgekit: all is well: no such file",
        "  1: see",
        "  2: here",
        "  a",
        "b\\x1b",
    ]
