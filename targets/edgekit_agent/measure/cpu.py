"""Name, instruction sets, cores, frequency governor and temperature of the processor."""

from __future__ import annotations

import glob
import os
import platform
from typing import Dict, List, Optional, Tuple

from edgekit_agent.measure.sysfs import read_int, read_text

# Architecture of the kernel -> that of 32-bit programs on it.
_NARROW = {"aarch64": "armv7l", "x86_64": "i686", "armv8l": "armv7l"}

# Word of /proc/cpuinfo ("flags" on x86, "Features" on Arm) -> name used here.
_ISA = {
    "sse4_2": "sse4_2",
    "avx": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "avx512_fp16": "avx512_fp16",
    "avx_vnni": "avx_vnni",
    "amx_int8": "amx_int8",
    "neon": "neon",
    "asimd": "neon",
    "vfpv4": "vfpv4",
    "asimdhp": "fp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
    "sve2": "sve2",
}

# (implementer, part) of MIDR_EL1, as in util-linux's lscpu-arm.c and Arm's reference manuals.
_ARM_PARTS = {
    (0x41, 0xB76): "ARM1176",
    (0x41, 0xC05): "Cortex-A5",
    (0x41, 0xC07): "Cortex-A7",
    (0x41, 0xC08): "Cortex-A8",
    (0x41, 0xC09): "Cortex-A9",
    (0x41, 0xC0E): "Cortex-A17",
    (0x41, 0xC0F): "Cortex-A15",
    (0x41, 0xD01): "Cortex-A32",
    (0x41, 0xD02): "Cortex-A34",
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4B): "Cortex-A78C",
    (0x41, 0xD4D): "Cortex-A715",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720",
    (0x4E, 0x004): "NVIDIA Carmel",
    (0x51, 0x800): "Kryo 2xx Gold",
    (0x51, 0x801): "Kryo 2xx Silver",
    (0x51, 0x804): "Kryo 4xx Gold",
    (0x51, 0x805): "Kryo 4xx Silver",
}


def userland(machine: str, pointer_bits: int) -> str:
    """Return the architecture of the programs: a 64-bit kernel may run 32-bit programs."""
    return _NARROW.get(machine, machine) if pointer_bits == 32 else machine


def read_name_and_isa(root: str = "/") -> Tuple[str, Tuple[str, ...]]:
    """Return the processor's name (with the board's, if known) and its instruction sets, sorted."""
    processors = _parse_processors(read_text(f"{root}proc/cpuinfo") or "")
    board = read_text(f"{root}proc/device-tree/model")
    name = _find_name(processors)
    return (f"{name} ({board})" if board else name), _find_common_isa(processors)


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def read_governor(root: str = "/") -> Optional[str]:
    """Return the frequency governor of the first core."""
    return read_text(f"{root}sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def read_temperature_c(root: str = "/") -> Optional[float]:
    """Return the temperature of the hottest thermal zone of the processor, in °C.

    Of all zones of the device where no zone is the processor's; ``None`` where there are none.
    """
    zones: Dict[str, List[float]] = {"cpu": [], "other": []}
    for zone in sorted(glob.glob(f"{root}sys/class/thermal/thermal_zone*")):
        value = read_int(f"{zone}/temp")
        if value is not None:
            zone_type = (read_text(f"{zone}/type") or "").lower()
            is_cpu = any(word in zone_type for word in ("cpu", "x86_pkg", "soc", "core"))
            zones["cpu" if is_cpu else "other"].append(value / 1000)
    return max(zones["cpu"] or zones["other"], default=None)


def _parse_processors(text: str) -> List[Dict[str, str]]:
    """Parse /proc/cpuinfo into one dictionary per block."""
    blocks = []
    for block in text.split("\n\n"):
        pairs = [line.partition(":") for line in block.splitlines()]
        blocks.append({key.strip(): value.strip() for key, colon, value in pairs if colon})
    return blocks


def _find_name(processors: List[Dict[str, str]]) -> str:
    for key in ("model name", "uarch", "cpu model"):
        # On Arm "model name" is only the architecture, the core type is in the part number.
        names = [p[key] for p in processors if key in p and "CPU part" not in p]
        if names:
            return names[0]
    cores = {_name_arm_core(p): None for p in processors if "CPU part" in p}
    return " + ".join(cores) or platform.processor() or platform.machine()


def _name_arm_core(processor: Dict[str, str]) -> str:
    implementer = int(processor.get("CPU implementer", "0"), 0)
    part = int(processor["CPU part"], 0)
    return _ARM_PARTS.get((implementer, part), f"Arm core {implementer:#04x}:{part:#05x}")


def _find_common_isa(processors: List[Dict[str, str]]) -> Tuple[str, ...]:
    """Return the instruction sets that all cores have: on big.LITTLE a thread may use any core."""
    sets = []
    for processor in processors:
        words = processor.get("flags") or processor.get("Features")
        if words is not None:
            sets.append({_ISA[word] for word in words.split() if word in _ISA})
        elif processor.get("isa", "").startswith("rv"):
            letters = processor["isa"].split("_")[0][4:]
            sets.append({"rvv"} if "v" in letters else set())
    return tuple(sorted(set.intersection(*sets))) if sets else ()
