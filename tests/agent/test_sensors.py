"""Sensors of clock frequency, load, temperature and energy."""

import subprocess
import sys
import time

import pytest

from edgekit_agent.measure import sensors

POWERCAP = "sys/class/powercap/intel-rapl:0"
POWER = "sys/class/hwmon/hwmon3/power1_input"
FREQUENCY = "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
COUNT = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"


@pytest.fixture
def write(tmp_path):
    def put(path, value):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{value}\n")

    return put


@pytest.mark.parametrize(
    ("path", "before", "after", "throttled"),
    [
        (FREQUENCY, 1_800_000, 1_795_000, False),
        (FREQUENCY, 1_800_000, 1_200_000, True),
        (COUNT, 7, 7, False),
        (COUNT, 7, 8, True),
        (FIRMWARE, "50000", "50000", False),
        (FIRMWARE, "50000", "50004", True),
    ],
)
def test_a_slowed_down_processor_is_noticed(tmp_path, write, path, before, after, throttled):
    root = f"{tmp_path}/"
    write(path, before)
    first = sensors.take_snapshot(root)
    write(path, after)
    assert sensors.is_throttled(first, sensors.take_snapshot(root)) is throttled


def test_a_fan_that_spins_up_is_not_reported_as_throttling(tmp_path, write):
    root, device = f"{tmp_path}/", "sys/class/thermal/cooling_device0"
    write(f"{device}/type", "pwm-fan")
    write(f"{device}/cur_state", 0)
    first = sensors.take_snapshot(root)
    write(f"{device}/cur_state", 3)
    assert not sensors.is_throttled(first, sensors.take_snapshot(root))
    write(f"{device}/type", "cpufreq-cpu0")
    assert sensors.is_throttled(first, sensors.take_snapshot(root))


def test_another_program_that_keeps_a_core_busy_is_noticed():
    before = sensors.take_snapshot()
    if before.busy_cpu_s is None:
        pytest.skip("this machine has no /proc/stat")
    others = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(sensors.count_cores())
    ]
    time.sleep(0.8)
    after = sensors.take_snapshot()
    for other in others:
        other.kill()
        other.wait()
    assert sensors.is_loaded(before, after)


def test_energy_is_read_off_counters_also_where_they_wrap_around(tmp_path, write):
    write(f"{POWERCAP}/energy_uj", 9_000_000)
    write(f"{POWERCAP}/max_energy_range_uj", 10_000_000)
    write(f"{POWERCAP}:0/energy_uj", 1)
    meter = sensors.EnergyMeter(f"{tmp_path}/")
    write(f"{POWERCAP}/energy_uj", 500_000)
    write(f"{POWERCAP}:0/energy_uj", 999)
    assert meter.used_mj() == pytest.approx(1500)


def test_energy_is_power_over_time_where_there_are_no_counters(tmp_path, write):
    write(POWER, 2_000_000)
    start = time.monotonic()
    meter = sensors.EnergyMeter(f"{tmp_path}/")
    time.sleep(0.05)
    write(POWER, 4_000_000)
    assert 0 < meter.used_mj() <= 3000 * (time.monotonic() - start)


def test_without_a_sensor_there_is_no_energy(tmp_path):
    assert sensors.EnergyMeter(f"{tmp_path}/").used_mj() is None
