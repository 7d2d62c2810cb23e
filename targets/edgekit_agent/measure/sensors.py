"""Conditions during a measurement: throttling, load by other programs, and energy."""

from __future__ import annotations

import glob
import os
import time
from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

from edgekit_agent.measure.cpu import count_cores
from edgekit_agent.measure.sysfs import read_int, read_text

# Shares of the whole machine (load) and of the clock frequency (drop).
_OTHERS_LIMIT = 0.2
_LOAD_LIMIT = 0.5
_FREQUENCY_DROP = 0.1
# In a shorter span, the kernel's 10 ms ticks are too coarse to tell the load.
_MIN_SPAN_S = 0.2


@dataclass(frozen=True)
class MachineSnapshot:
    """Counters of the machine at one time; ``None`` or empty if they cannot be read."""

    at_s: float
    own_cpu_s: float
    busy_cpu_s: Optional[float]
    throttle_events: Dict[str, int]
    frequency_khz: Optional[int]


def take_snapshot(root: str = "/") -> MachineSnapshot:
    """Read the counters of the machine now."""
    return MachineSnapshot(
        at_s=time.monotonic(),
        own_cpu_s=time.process_time(),
        busy_cpu_s=_read_busy_cpu_s(root),
        throttle_events=_read_throttle_events(root),
        frequency_khz=read_int(f"{root}sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"),
    )


def is_throttled(before: MachineSnapshot, after: MachineSnapshot) -> bool:
    """Return whether the processor was slowed down between two moments under the same load."""
    for name, count in after.throttle_events.items():
        if count > before.throttle_events.get(name, 0):
            return True
    if before.frequency_khz is None or after.frequency_khz is None:
        return False
    return after.frequency_khz < (1 - _FREQUENCY_DROP) * before.frequency_khz


def is_loaded(before: MachineSnapshot, after: MachineSnapshot) -> bool:
    """Return whether other programs, or other guests of the host, used the processor in between.

    The load average, which counts this process too, is used only where the kernel does not
    report processor times.
    """
    span = after.at_s - before.at_s
    if before.busy_cpu_s is None or after.busy_cpu_s is None or span < _MIN_SPAN_S:
        return os.getloadavg()[0] > _LOAD_LIMIT * count_cores() + 1
    others = (after.busy_cpu_s - before.busy_cpu_s) - (after.own_cpu_s - before.own_cpu_s)
    return others > _OTHERS_LIMIT * span * (os.cpu_count() or 1)


def _read_busy_cpu_s(root: str) -> Optional[float]:
    """Return the busy processor seconds of all cores since boot, stolen time included."""
    lines = (read_text(f"{root}proc/stat") or "").splitlines()
    words = lines[0].split() if lines else []
    if len(words) < 9 or words[0] != "cpu":
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(w) for w in words[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _read_throttle_events(root: str) -> Dict[str, int]:
    """Read counters and states that rise only while the processor is slowed down."""
    patterns = (
        "sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count",  # x86
        "sys/class/thermal/cooling_device*/cur_state",
    )
    events = {}
    for pattern in patterns:
        for path in glob.glob(root + pattern):
            value = read_int(path)
            if value is not None and _is_cpu_device(path):
                events[path] = value
    # Raspberry Pi: bits 0 to 3 are the state now (under-voltage, capped, throttled, too hot).
    firmware = read_text(f"{root}sys/devices/platform/soc/soc:firmware/get_throttled")
    if firmware is not None:
        events["firmware"] = int(firmware, 16) & 0xF
    return events


def _is_cpu_device(path: str) -> bool:
    if not path.endswith("cur_state"):
        return True
    device_type = read_text(os.path.join(os.path.dirname(path), "type")) or ""
    return "cpu" in device_type.lower() or device_type == "Processor"


class EnergyMeter:
    """A meter of the energy that the device uses from its construction on, idle share included.

    Counters (RAPL, hwmon ``energy*_input``) are read at both ends. Where there are only power
    sensors (INA226 and the like), ``sample`` integrates power over time.
    """

    def __init__(self, root: str = "/") -> None:
        self._counters = _find_energy_counters(root)
        self._start = {path: read_int(path) for path in self._counters}
        self._power = [] if self._counters else sorted(glob.glob(root + _POWER))
        self._energy_uj, self._last = 0.0, self._read_power()

    def sample(self) -> None:
        """Read the power drawn now; call it between runs, never within one."""
        if self._last is not None:
            power = self._read_power()
            if power is not None:
                self._energy_uj += (power[1] + self._last[1]) / 2 * (power[0] - self._last[0])
                self._last = power

    def used_mj(self) -> Optional[float]:
        """Return the millijoules used so far; ``None`` where no sensor can be read."""
        if self._counters:
            return self._count_uj() / 1e3
        self.sample()
        return None if self._last is None else self._energy_uj / 1e3

    def _count_uj(self) -> float:
        total = 0.0
        for path, wraps_at in self._counters.items():
            start, end = self._start[path], read_int(path)
            if start is not None and end is not None:
                total += end - start + (wraps_at if end < start else 0)
        return total

    def _read_power(self) -> Optional[Tuple[float, float]]:
        """Return the time in s and the sum of all power sensors in µW."""
        values = [v for v in (read_int(path) for path in self._power) if v is not None]
        return (time.monotonic(), float(sum(values))) if values else None


_POWER = "sys/class/hwmon/hwmon*/power*_input"


def _find_energy_counters(root: str) -> Dict[str, int]:
    """Find the readable energy counters in µJ, and where each wraps around (0 = it does not)."""
    # Top-level RAPL domains only: "intel-rapl:0:0" is a part of "intel-rapl:0".
    domains = [d for d in glob.glob(f"{root}sys/class/powercap/*-rapl:*") if d.count(":") == 1]
    counters: List[Tuple[str, int]] = [
        (f"{domain}/energy_uj", read_int(f"{domain}/max_energy_range_uj") or 0)
        for domain in domains
    ]
    counters = counters or [
        (p, 0) for p in glob.glob(f"{root}sys/class/hwmon/hwmon*/energy*_input")
    ]
    return {path: wraps_at for path, wraps_at in counters if read_int(path) is not None}
