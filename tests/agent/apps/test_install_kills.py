"""Kills of an installation: the app is the old or the new one, whole, or not there yet."""

import shutil

import pytest

from tests.builders.apps.kills import (
    check_leftovers,
    check_state,
    kill_install,
    measure_install,
)

pytestmark = pytest.mark.slow


def test_a_killed_first_installation_leaves_no_app_or_a_whole_one(device, package):
    seconds = measure_install(lambda: device.install(package))
    for part, whole in ((0.4, True), (0.8, False)):
        shutil.rmtree(device.prefix)
        kill_install(device, package, part * seconds, whole=whole)
        check_state(device, {"", "1.0"})
    assert device.install(package).returncode == 0
    assert check_state(device, {"1.0"}) == "1.0"
    check_leftovers(device)


def test_a_killed_upgrade_leaves_the_old_or_the_new_app(device, package, newer_package):
    assert device.install(package).returncode == 0
    for seconds, whole in ((0.5, False), (1.5, True), (3.0, True)):
        kill_install(device, newer_package, seconds, whole=whole)
        check_state(device, {"1.0", "1.1"})
    assert device.install(newer_package).returncode == 0
    assert check_state(device, {"1.1"}) == "1.1"
    check_leftovers(device)
