"""Facts of a device: processor, memory, C library, interpreters and runtimes."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit_agent.jobs import ProbeJob, ReceiveJob
from edgekit_agent.measure import cpu, memory
from edgekit_agent.measure.probe import find_libc
from edgekit_agent.results import DeviceFacts, ReceiveResult

TARGETS = Path(__file__).resolve().parents[2] / "targets"

PI_4 = """processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3

processor	: 1
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU part	: 0xd08

Hardware	: BCM2835
Model		: Raspberry Pi 4 Model B Rev 1.4
"""
BIG_LITTLE = """processor	: 0
Features	: fp asimd asimddp i8mm
CPU implementer	: 0x41
CPU part	: 0xd05

processor	: 1
Features	: fp asimd asimdhp asimddp sve
CPU implementer	: 0x41
CPU part	: 0xd0b
"""
ARM_32 = """processor	: 0
model name	: ARMv7 Processor rev 2 (v7l)
Features	: half thumb fastmult vfp neon vfpv3 tls
CPU implementer	: 0x41
CPU part	: 0xc08
"""
X86 = """processor	: 0
model name	: Intel(R) Celeron(R) N5105
flags		: fpu sse4_2 aes
"""


@pytest.fixture
def root(tmp_path):
    """Create a tree of /proc and /sys files."""

    def make(**files):
        for path, text in files.items():
            target = tmp_path / path.replace("__", "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return f"{tmp_path}/"

    return make


@pytest.mark.parametrize(
    ("text", "name", "isa"),
    [
        (PI_4, "Cortex-A72", ("neon",)),
        (BIG_LITTLE, "Cortex-A55 + Cortex-A76", ("dotprod", "neon")),
        (ARM_32, "Cortex-A8", ("neon",)),
        (X86, "Intel(R) Celeron(R) N5105", ("sse4_2",)),
        ("processor : 0\nisa : rv64imafdcv_zicsr\nuarch : sifive,u74\n", "sifive,u74", ("rvv",)),
    ],
)
def test_processors_are_identified_by_name_and_instructions(root, text, name, isa):
    assert cpu.read_name_and_isa(root(proc__cpuinfo=text)) == (name, isa)


def test_the_board_is_named_if_the_device_reports_it(tmp_path):
    (tmp_path / "proc" / "device-tree").mkdir(parents=True)
    (tmp_path / "proc" / "device-tree" / "model").write_bytes(b"Raspberry Pi 5\0")
    (tmp_path / "proc" / "cpuinfo").write_text(PI_4)
    assert cpu.read_name_and_isa(f"{tmp_path}/")[0] == "Cortex-A72 (Raspberry Pi 5)"


def test_an_unknown_arm_core_is_described_by_its_numbers(root):
    text = "CPU implementer : 0x99\nCPU part : 0x123\nFeatures : asimd\n"
    assert cpu.read_name_and_isa(root(proc__cpuinfo=text))[0] == "Arm core 0x99:0x123"


MEMINFO = "MemTotal:        1000 kB\nMemAvailable:     600 kB\n"


def test_memory_is_that_of_the_device(root):
    made = root(proc__meminfo=MEMINFO, proc__self__cgroup="0::/\n")
    assert (memory.total_bytes(made), memory.available_bytes(made)) == (1024000, 614400)


@pytest.mark.parametrize(
    ("cgroup", "limit", "used"),
    [
        ("0::/a/b\n", "sys__fs__cgroup__a__memory.max", "sys__fs__cgroup__a__memory.current"),
        (
            "4:memory:/a/b\n0::/\n",
            "sys__fs__cgroup__memory__a__b__memory.limit_in_bytes",
            "sys__fs__cgroup__memory__a__b__memory.usage_in_bytes",
        ),
    ],
)
def test_a_lower_limit_of_a_control_group_is_used(root, cgroup, limit, used):
    files = {"proc__meminfo": MEMINFO, "proc__self__cgroup": cgroup, limit: "5000", used: "2000"}
    made = root(**files)
    assert (memory.total_bytes(made), memory.available_bytes(made)) == (5000, 3000)


def test_a_control_group_without_a_limit_is_ignored(root):
    made = root(
        proc__meminfo=MEMINFO,
        proc__self__cgroup="4:memory:/\n",
        **{"sys__fs__cgroup__memory__memory.limit_in_bytes": "9223372036854771712"},
    )
    assert memory.total_bytes(made) == 1024000


def test_facts_that_a_device_does_not_report_are_none(tmp_path):
    empty = f"{tmp_path}/"
    assert memory.total_bytes(empty) is None
    assert cpu.read_governor(empty) is None
    assert cpu.read_temperature_c(empty) is None
    assert cpu.read_name_and_isa(empty)[1] == ()


def test_the_temperature_is_that_of_the_hottest_zone(root):
    made = root(
        sys__class__thermal__thermal_zone0__temp="41000",
        sys__class__thermal__thermal_zone0__type="cpu-thermal",
        sys__class__thermal__thermal_zone1__temp="90000",
        sys__class__thermal__thermal_zone1__type="battery",
    )
    assert cpu.read_temperature_c(made) == 41.0


def test_this_machine_is_probed(agent, tmp_path):
    facts = agent.ask(ProbeJob(str(tmp_path / "not" / "yet")), DeviceFacts)
    assert facts.machine == platform.machine()
    assert facts.python == platform.python_version()
    assert facts.cores >= 1
    assert facts.memory_bytes > facts.free_memory_bytes > 0
    assert facts.free_disk_bytes > 0
    found = {runtime.package: runtime for runtime in facts.runtimes}
    assert found["onnxruntime"].works, found["onnxruntime"].detail
    assert found["onnxruntime"].site is None
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("import os; os.kill(os.getpid(), 4)", "crashed with SIGILL"),
        ("raise RuntimeError('numpy is too new')", "RuntimeError: numpy is too new"),
        ("import no_such_thing", "No module named 'no_such_thing'"),
        ("print('hello')", "AttributeError"),
    ],
)
def test_a_runtime_that_does_not_work_is_reported_with_the_reason(agent, tmp_path, code, detail):
    package = tmp_path / "site" / "tflite_runtime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "interpreter.py").write_text(code)
    site = str(tmp_path / "site")
    facts = agent.ask(ProbeJob(str(tmp_path), (site,)), DeviceFacts)
    (found,) = [runtime for runtime in facts.runtimes if runtime.site == site]
    assert (found.name, found.package, found.works) == ("litert", "tflite-runtime", False)
    assert detail in found.detail


@pytest.mark.skipif(shutil.which("ldd") is None, reason="no ldd to compare with")
def test_the_c_library_is_the_one_that_ldd_reports():
    done = subprocess.run(["ldd", "--version"], capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    name, version = find_libc().split()
    assert version in told
    assert name == ("musl" if "musl" in told else "glibc")


OLDEST = """
import importlib, pkgutil, sys
import edgekit_agent
sys.path[:] = [p for p in sys.path if "site-packages" not in p]
for module in pkgutil.walk_packages(edgekit_agent.__path__, "edgekit_agent."):
    if not set(module.name.split(".")[1:]) & set(sys.argv[1:]):
        importlib.import_module(module.name)
"""
NEED_NUMPY = [
    *("feeds", "benchmark", "accuracy", "health", "relative_error", "ort", "litert"),
    *("scored_samples", "metrics", "postprocess", "combined_model"),
    *("prediction", "preprocess"),
]


def interpreters():
    """This Python, the oldest that will do and a newer one, as far as this machine has them."""
    found = [sys.executable]
    for minor in (9, 13):
        places = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        on_path = shutil.which(f"python3.{minor}")
        found += [str(places[-1])] if places else [on_path] if on_path else []
    return found


def test_python_3_9_is_among_the_interpreters_tried():
    versions = [
        subprocess.run([p, "-V"], capture_output=True, text=True, check=False).stdout
        for p in interpreters()
    ]
    if not any(v.startswith("Python 3.9.") for v in versions):
        pytest.skip("no Python 3.9 here to try the agent with")


@pytest.mark.parametrize("python", interpreters())
def test_the_agent_needs_nothing_but_the_standard_library(python, start_agent, blob, tmp_path):
    done = subprocess.run(
        [python, "-S", "-W", "error", "-c", OLDEST, *NEED_NUMPY],
        env={"PYTHONPATH": str(TARGETS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    agent = start_agent([python, "-m", "edgekit_agent"])
    facts = agent.ask(ProbeJob(str(tmp_path)), DeviceFacts)
    assert facts.python.startswith("3.")
    described, wire = blob(b"abc" * 1000, "zlib")
    received = agent.ask(ReceiveJob(str(tmp_path), (described,), (0,)), ReceiveResult, wire)
    assert received == ReceiveResult(1, len(wire))
