"""Fixtures of the tests of devices."""

from tests.builders.servers import running_sshd, sshd

__all__ = ["running_sshd", "sshd"]
