"""Standard streams that withstand any encoding, closed descriptors and closed pipes."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from edgekit.errors import UserError, reason

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STANDARD = (0, 1, 2)


class _Pipe(io.FileIO):
    """Writer to a descriptor whose reader may close it; later output is dropped."""

    def __init__(self, descriptor: int, *, drops_all: bool) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.drops_all = drops_all

    def write(self, data: ReadableBuffer, /) -> int:
        """Write the text, or drop it if the reader has closed the pipe."""
        try:
            return super().write(data)
        except OSError as error:
            if self.drops_all or error.errno == errno.EPIPE:
                return memoryview(data).nbytes
            raise


def prepare_streams() -> None:
    """Make stdout and stderr accept any text; results that cannot be stored still raise.

    Failures to write to stderr never change the exit code, nor does a reader that closes stdout.
    """
    _open_closed_descriptors()
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _wrap_stream(1, sys.stdout, drops_all=False)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _wrap_stream(2, sys.stderr, drops_all=True)


@contextmanager
def reserve_stdout() -> Iterator[None]:
    """Send everything that is written to stdout in this context to stderr instead.

    Stdout is for the answer of the command; code of the user, libraries and processes that they
    start print there too.
    """
    if sys.stdout is not None:
        sys.stdout.flush()
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(answer, 1)
        os.close(answer)


def drop_output() -> None:
    """Discard output that stdout could not store, so that Python does not report it at exit."""
    if sys.stdout is not None and isinstance(sys.stdout, io.TextIOWrapper):
        raw = getattr(sys.stdout.buffer, "raw", None)
        if isinstance(raw, _Pipe):
            raw.drops_all = True


def _open_closed_descriptors() -> None:
    # A file opened later would reuse a closed descriptor and receive output of libraries.
    for descriptor in STANDARD:
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)


def _wrap_stream(descriptor: int, given: TextIO | None, *, drops_all: bool) -> TextIO:
    if given is not None:
        with suppress(OSError):
            given.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Pipe(descriptor, drops_all=drops_all)),
        encoding=given.encoding if given is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=os.isatty(descriptor) or drops_all,
        write_through=False,
    )


def use_utf8() -> None:
    """Restart Python in UTF-8 mode if the locale has another encoding.

    Native libraries accept file names only in UTF-8. Text on the terminal keeps its encoding.
    """
    if sys.flags.utf8_mode or sys.getfilesystemencoding().lower() in ("utf-8", "utf8"):
        return
    stdout = sys.stdout.encoding if sys.stdout is not None else "utf-8"
    os.environ.setdefault("PYTHONIOENCODING", f"{stdout}:backslashreplace")
    arguments = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
    os.execv(sys.executable, arguments)


def check_command_line(arguments: Sequence[str]) -> None:
    """Refuse empty arguments, and names that are not UTF-8, as no model library could open them.

    Raises:
        UserError: An argument is empty, it or the current folder is not UTF-8, or the folder is
            gone.
    """
    _check_for_empty(arguments)
    try:
        here = str(Path.cwd())
    except OSError as error:
        raise UserError(f"the current folder cannot be used: {reason(error)}") from error
    for argument in (*arguments, here):
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{argument}: this name is not valid UTF-8", hint="rename the file or folder"
            ) from error


def _check_for_empty(arguments: Sequence[str]) -> None:
    """Refuse an empty argument, which would stand for the current folder or for no value at all."""
    for before, argument in pairwise(("", *arguments)):
        option = argument.removesuffix("=")
        if argument == "":
            where = f" after {before}" if before else ""
        elif option != argument and re.fullmatch(r"--[a-z-]+", option):
            where = f" of {option}"
        else:
            continue
        raise UserError(f"empty argument{where}", hint="is a variable of the shell not set?")
