"""Timeouts of the agent's input."""

import os
import time

import pytest

from edgekit_agent.failures import PeerGone
from edgekit_agent.wire import Inlet


def test_a_link_that_goes_silent_in_the_middle_of_a_file_ends_the_agent():
    ours, theirs = os.pipe()
    os.write(theirs, b"half")
    with os.fdopen(ours, "rb") as stream:
        inlet = Inlet(stream, stall_s=0.3)
        inlet.expect(8)
        assert inlet.take(8) == b"half"
        started = time.monotonic()
        with pytest.raises(PeerGone):
            inlet.take(8)
        assert time.monotonic() - started < 5
    os.close(theirs)
