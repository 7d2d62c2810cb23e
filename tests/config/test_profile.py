"""Device profiles: the built-in ones are plausible and sourced; wrong ones are explained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgekit.config.profile import (
    list_shipped_names,
    load_profile,
    may_saturate,
    parse_profile,
    read_profile,
)
from edgekit.errors import ExitCode, UserError

FOLDER = Path(__file__).parents[2] / "device_profiles"

ISA = {
    "aarch64": {"neon", "fp16", "dotprod", "i8mm", "bf16"},
    "armv7l": {"neon", "fp16"},
    "x86_64": {"avx2", "f16c", "fma", "avx_vnni", "avx512_vnni"},
    "riscv64": {"rvv"},
}

SOURCE = re.compile(r"#\s*(product brief|datasheet|manual|release notes|derived): \S+")

# What stands for a figure: a number after the equals sign, but for the schema's own number.
FIGURE = re.compile(r"^(?!schema\b)\w+ = [0-9]")

GOOD = """\
schema = 1
name = "bench"
summary = "the board on the bench"

[hardware]
arch = "aarch64"
cpu = "Cortex-A72"
cores = 4
threads = 2
memory_mib = 1024

[runtimes.onnxruntime]
version = ">=1.20"

[budget]
model_mib = 5
"""


def test_the_devices_that_the_documentation_names_are_shipped():
    assert list_shipped_names() == [
        "beaglebone-black",
        "imx8m-plus",
        "jetson-orin-nano",
        "raspberry-pi-4",
        "raspberry-pi-5",
        "raspberry-pi-zero-2w",
        "tablet",
        "tablet-web",
        "tablet-x86",
    ]


@pytest.mark.parametrize("name", list_shipped_names())
def test_a_shipped_profile_parses_and_has_the_name_of_its_file(name):
    assert load_profile(name).name == name


@pytest.mark.parametrize("name", list_shipped_names())
def test_a_built_in_profile_is_plausible(name):
    profile = load_profile(name)
    hardware, budget = profile.hardware, profile.budget

    assert 1 <= hardware.threads <= hardware.cores
    assert set(hardware.isa) <= ISA[hardware.arch]
    assert budget.peak_rss_mib is not None
    assert budget.peak_rss_mib < hardware.memory_mib
    assert budget.model_mib is not None
    assert budget.model_mib < budget.peak_rss_mib, "a loaded model takes its size at least"
    assert budget.transfer_mib is not None
    assert budget.latency_p95_ms is not None


@pytest.mark.parametrize("name", list_shipped_names())
def test_every_value_of_a_built_in_profile_has_a_source(name):
    lines = (FOLDER / f"{name}.toml").read_text(encoding="utf-8").splitlines()

    figures = [i for i, line in enumerate(lines) if FIGURE.match(line)]
    unsourced = [lines[i] for i in figures if not _list_sources(lines, i)]

    assert len(figures) >= 8
    assert unsourced == []


def _list_sources(lines: list[str], at: int) -> bool:
    above = []
    for line in reversed(lines[:at]):
        if not line.startswith("#"):
            break
        above.insert(0, line)
    return bool(SOURCE.search(lines[at]) or SOURCE.search("\n".join(above)))


def test_the_opset_limit_is_that_of_the_lowest_runtime_allowed():
    highest = {
        ">=1.20": 21,
        ">=1.21": 22,
        ">=1.22": 22,
        ">=1.23": 23,
        ">=1.30": 26,
    }  # by loading models in each
    for name in list_shipped_names():
        runtime = load_profile(name).runtimes.get("onnxruntime")
        if runtime is not None:
            assert runtime.opset_max == highest[runtime.version], name


def test_a_device_without_onnxruntime_wheels_runs_litert_only():
    profile = load_profile("beaglebone-black")

    assert profile.hardware.arch == "armv7l"
    assert set(profile.runtimes) == {"litert"}


def test_a_custom_profile_is_read_from_its_file(tmp_path):
    path = tmp_path / "bench.toml"
    path.write_text(GOOD, encoding="utf-8")

    profile = load_profile(str(path))

    assert profile == read_profile(path)
    assert profile.budget.model_mib == 5
    assert profile.budget.latency_p95_ms is None
    assert profile.budget.accuracy_drop_points == 1.0


def test_a_wrong_file_reports_every_error_at_once_with_its_path():
    text = (
        GOOD.replace("cores = 4", 'cores = "four"')
        .replace("memory_mib = 1024\n", "")
        .replace("model_mib = 5", "model_mib = -5\nlatency_p99_ms = 10")
    )

    with pytest.raises(UserError) as caught:
        parse_profile(text, where="bench.toml")

    message = str(caught.value)
    assert message.startswith("bench.toml:\n")
    assert "hardware.cores: " in message
    assert "'four'" in message
    assert "hardware.memory_mib: missing" in message
    assert "budget.model_mib: " in message
    assert "budget.latency_p99_ms: unknown key" in message
    assert len(message.strip().splitlines()) == 5


def test_a_single_error_stays_on_one_line():
    with pytest.raises(UserError) as caught:
        parse_profile(GOOD.replace('name = "bench"\n', ""), where="bench.toml")

    assert str(caught.value) == "bench.toml: name: missing"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="no device profile named 'tablte'") as caught:
        load_profile("tablte")

    assert all(name in caught.value.hint for name in list_shipped_names())
    assert caught.value.exit_code == ExitCode.BAD_REQUEST


def test_a_file_that_is_not_toml_is_named_with_the_place():
    with pytest.raises(UserError, match=r"bench\.toml: not TOML: .*line 1"):
        parse_profile("schema: 1\n", where="bench.toml")


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "bench.toml"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(UserError, match="cannot read the profile"):
        load_profile(str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.toml: cannot read the profile"):
        load_profile(str(tmp_path / "nowhere.toml"))


def test_a_bad_version_specifier_is_shown_with_a_good_one():
    with pytest.raises(UserError) as caught:
        parse_profile(GOOD.replace(">=1.20", "1.20 or so"), where="bench.toml")

    assert "runtimes.onnxruntime.version" in str(caught.value)
    assert "'>=1.20'" in str(caught.value)
    assert "'1.20 or so'" in str(caught.value)


def test_an_unknown_runtime_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"runtimes\.tensorrt: .*onnxruntime.*litert"):
        parse_profile(GOOD.replace("runtimes.onnxruntime", "runtimes.tensorrt"), where="bench.toml")


def test_a_profile_of_a_later_schema_is_refused():
    with pytest.raises(UserError, match="schema"):
        parse_profile(GOOD.replace("schema = 1", "schema = 2"), where="bench.toml")


@pytest.mark.parametrize(
    ("arch", "isa", "saturated"),
    [
        ("x86_64", ("avx2", "fma"), True),
        ("x86_64", ("avx2", "avx_vnni"), False),
        ("x86_64", ("avx512_vnni",), False),
        ("aarch64", ("neon",), False),
    ],
)
def test_only_x86_without_vnni_saturates(arch, isa, saturated):
    assert may_saturate(arch, isa) is saturated
