"""Ctrl-C ends a pass as an interruption, whatever a library makes of it."""

import contextlib
import signal

import pytest

from edgekit.compression.interruption import keep_interruption


@pytest.fixture(autouse=True)
def python_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def fail_like_tensorflow():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise SystemError("bad argument to internal function") from None


def drop_an_interruption():
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_interruption_that_became_another_error_is_one_again():
    with pytest.raises(KeyboardInterrupt) as caught, keep_interruption():
        fail_like_tensorflow()
    assert isinstance(caught.value.__cause__, SystemError)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interruption_that_was_dropped_is_raised_at_the_end():
    with pytest.raises(KeyboardInterrupt), keep_interruption():
        drop_an_interruption()


def test_other_errors_and_handlers_stay():
    with pytest.raises(ValueError, match="a fault"), keep_interruption():
        raise ValueError("a fault")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with keep_interruption():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
