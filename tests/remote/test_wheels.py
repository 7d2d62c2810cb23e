"""Choice, download and locking of runtime wheels."""

import json
import zipfile

import pytest

from edgekit.config.profile import RuntimeSpec
from edgekit.errors import DeviceError
from edgekit.remote.python_tags import DevicePython, read_device_python
from edgekit.remote.wheel_resolver import read_wheel, resolve
from edgekit.remote.wheels import choose_litert_packages, fetch_runtime, list_candidates

PI = DevicePython(version="3.11.2", arch="aarch64", glibc=(2, 36), kernel="6.1")
PI32 = DevicePython(version="3.11.2", arch="armv7l", glibc=(2, 36), kernel="6.1")
OLD = DevicePython(version="3.9.2", arch="aarch64", glibc=(2, 31), kernel="5.10")
ANY = RuntimeSpec(version=">=1.15")
NATIVE = "cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64"


def wheel(folder, name, version, tag="py3-none-any", requires=()):
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {r}" for r in requires]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        tags = "".join(f"Tag: {t}\n" for t in [tag])
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n{tags}")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The only package index that pip uses."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def entries_of(lock):
    seal, _, text = lock.read_text().partition("\n")
    assert len(seal) == 64
    return [(e["file"], e["sha256"]) for e in json.loads(text)["wheels"]]


def fetch(tmp_path, runtime="onnxruntime", spec=ANY, python=PI, tested="1.32.0"):
    return fetch_runtime(runtime, spec, python, tested_version=tested, cache=tmp_path / "cache")


def test_the_tested_version_is_taken_with_all_it_needs(tmp_path, index):
    wheel(index, "numpy", "2.4.0", NATIVE)
    wheel(index, "flat", "1.0")
    wheel(index, "unused", "1.0")
    for version in ("1.31.0", "1.32.0", "1.33.0"):
        needs = ["numpy>=2", "flat; python_version >= '3'", "unused; extra == 'x'"]
        wheel(index, "onnxruntime", version, NATIVE, needs)
    got = fetch(tmp_path)
    names = [p.name.split("-")[0] for p, _ in got.files]
    assert (got.version, names) == ("1.32.0", ["onnxruntime", "flat", "numpy"])
    assert got.name.startswith("onnxruntime-1.32.0-")
    assert all(p.parent == tmp_path / "cache" for p, _ in got.files)


def test_without_a_wheel_of_the_tested_version_another_allowed_one_is_taken(tmp_path, index):
    wheel(index, "numpy", "2.0.0", "cp39-cp39-manylinux2014_aarch64")
    wheel(index, "onnxruntime", "1.19.2", "cp39-cp39-manylinux_2_27_aarch64", ["numpy"])
    wheel(index, "onnxruntime", "1.32.0", NATIVE, ["numpy"])
    assert fetch(tmp_path, python=OLD).version == "1.19.2"


def test_the_second_time_nothing_is_asked_of_pip(tmp_path, index, monkeypatch):
    wheel(index, "numpy", "2.4.0", NATIVE)
    wheel(index, "onnxruntime", "1.32.0", NATIVE, ["numpy"])
    first = fetch(tmp_path)
    monkeypatch.setattr("sys.executable", "/no/python")
    assert fetch(tmp_path) == first


def test_a_wheel_missing_from_the_cache_is_fetched_again(tmp_path, index):
    wheel(index, "numpy", "2.4.0", NATIVE)
    wheel(index, "onnxruntime", "1.32.0", NATIVE, ["numpy"])
    first = fetch(tmp_path)
    first.files[0][0].write_bytes(b"half")
    assert fetch(tmp_path) == first
    assert first.files[0][0].stat().st_size > 4


def test_requirements_excluded_by_the_hosts_markers_are_downloaded(tmp_path, index):
    wheel(index, "numpy", "2.4.0", NATIVE)
    wheel(index, "armonly", "1.0")
    needs = ["numpy", "armonly>=1; platform_machine == 'aarch64'"]
    wheel(index, "onnxruntime", "1.32.0", NATIVE, needs)
    assert "armonly-1.0-py3-none-any.whl" in [p.name for p, _ in fetch(tmp_path).files]


def test_requirements_that_cannot_be_met_are_an_error(tmp_path, index):
    wheel(index, "numpy", "2.4.0", NATIVE)
    needs = ["numpy", "absent>=1; platform_machine == 'aarch64'"]
    wheel(index, "onnxruntime", "1.32.0", NATIVE, needs)
    with pytest.raises(DeviceError, match="absent") as caught:
        fetch(tmp_path)
    assert "\n" not in caught.value.message


def test_a_failure_of_pip_causes_one_line(tmp_path, index):
    wheel(index, "onnxruntime", "1.32.0", "cp311-cp311-manylinux_2_99_aarch64")
    with pytest.raises(DeviceError, match=r"cannot fetch onnxruntime>=1\.15 for Python 3") as e:
        fetch(tmp_path)
    assert "No matching distribution" in e.value.message
    assert "\n" not in e.value.message


def test_a_damaged_lock_is_written_again(tmp_path, index):
    wheel(index, "numpy", "2.4.0", NATIVE)
    wheel(index, "onnxruntime", "1.32.0", NATIVE, ["numpy"])
    first = fetch(tmp_path)
    (lock,) = (tmp_path / "cache").glob("*.lock.json")
    lock.write_text("{")
    assert fetch(tmp_path) == first
    assert entries_of(lock) == [(p.name, d) for p, d in first.files]


def test_a_wheel_for_another_device_is_refused(tmp_path):
    for tag in (
        "cp311-cp311-manylinux_2_99_aarch64",
        "cp310-cp310-linux_aarch64",
        "py3-none-win32",
    ):
        with pytest.raises(DeviceError, match="does not run on Python"):
            read_wheel(wheel(tmp_path, "x", "1.0", tag), PI)
    for tag in ("cp39-abi3-manylinux2014_aarch64", "py2.py3-none-any", "cp311-none-any", NATIVE):
        read_wheel(wheel(tmp_path, "x", "1.0", tag), PI)


def test_extras_and_versions_are_followed(tmp_path):
    made = [
        wheel(tmp_path, "root", "1.0", requires=["a[fast]>=2"]),
        wheel(tmp_path, "a", "2.0", requires=["b; extra == 'fast'", "c; extra == 'slow'"]),
        wheel(tmp_path, "b", "1.0", requires=["d<1"]),
        wheel(tmp_path, "d", "1.5"),
    ]
    wheels = [read_wheel(p, PI) for p in made]
    needed, missing = resolve(["root"], wheels, PI, frozenset())
    assert [w.name for w in needed] == ["a", "b", "root"]
    assert missing == ("d<1",)


@pytest.mark.parametrize(
    ("specifiers", "packages"),
    [
        ([""], ("ai-edge-litert", "tflite-runtime")),
        (["==2.14.*", "==2.14.0", "~=2.14.0", ">=2.14,<2.15"], ("tflite-runtime",)),
        ([">=2.0", ">=2.14", "<=2.14", "==2.1.*", ">=2.0,<3", "~=2.14"], ("ai-edge-litert",)),
    ],
)
def test_a_version_of_litert_selects_one_package(specifiers, packages):
    assert [choose_litert_packages(s) for s in specifiers] == [packages] * len(specifiers)


def test_litert_is_what_the_profile_means_and_there_is_for_the_device():
    new, old, free = (RuntimeSpec(version=v) for v in (">=2.0", "==2.14.*", ""))
    late = DevicePython(**{**vars(PI32), "version": "3.13.0"})
    (tested, _) = list_candidates("litert", new, PI, "2.3.0")
    assert tested.requirements[0] == "ai-edge-litert==2.3.0"
    assert list_candidates("litert", free, PI, "")[0].requirements[0] == "ai-edge-litert"
    for spec in (old, free):
        (early,) = list_candidates("litert", spec, OLD, "2.3.0")
        assert early.requirements == ("tflite-runtime==2.14.0", "numpy<2")
        (small,) = list_candidates("litert", spec, PI32, "2.3.0")
        assert (small.requirements, small.provided) == (("tflite-runtime==2.14.0",), {"numpy"})
    (asked_for,) = list_candidates("litert", old, PI, "2.3.0")
    assert asked_for.requirements == ("tflite-runtime==2.14.0", "numpy<2")
    for python in (OLD, PI32):
        with pytest.raises(DeviceError, match="no wheel of ai-edge-litert for Python 3") as caught:
            list_candidates("litert", new, python, "2.3.0")
        assert "'==2.14.*'" in caught.value.hint
    with pytest.raises(DeviceError, match="no wheel of ai-edge-litert or tflite-runtime"):
        list_candidates("litert", free, late, "2.3.0")
    with pytest.raises(DeviceError, match="no wheel of tflite-runtime"):
        list_candidates("litert", old, late, "2.3.0")


@pytest.mark.parametrize("version", ["", "none", "1.0 --pre", "1.0; extra == 'x'", "1.0 @ file:/x"])
@pytest.mark.parametrize("allowed", ["", ">=1.15"])
def test_an_invalid_tested_version_is_not_requested(version, allowed):
    """It comes from a bundle, and was put into what pip is asked for."""
    (wanted,) = list_candidates("onnxruntime", RuntimeSpec(version=allowed), PI, version)
    assert wanted.requirements == (f"onnxruntime{allowed}", "numpy")
    (first, _) = list_candidates("onnxruntime", RuntimeSpec(version=allowed), PI, " 1.32.0\n")
    assert first.requirements[0] == "onnxruntime==1.32.0"


def test_onnxruntime_is_not_available_for_32_bits():
    with pytest.raises(DeviceError, match="onnxruntime has no wheels for armv7l"):
        list_candidates("onnxruntime", ANY, PI32, "1.32.0")


def test_on_32_bits_numpy_stays_the_devices_own(tmp_path, index):
    tag = "cp311-cp311-manylinux_2_34_armv7l"
    wheel(index, "tflite_runtime", "2.14.0", tag, ["numpy>=1.23"])
    got = fetch(tmp_path, runtime="litert", spec=RuntimeSpec(version="==2.14.*"), python=PI32)
    assert [p.name for p, _ in got.files] == [f"tflite_runtime-2.14.0-{tag}.whl"]
    assert got.provided == {"numpy"}


def test_platforms_go_from_new_to_old():
    assert PI.platforms()[0] == "manylinux_2_36_aarch64"
    assert PI.platforms()[-3:] == (
        "manylinux_2_17_aarch64",
        "manylinux2014_aarch64",
        "linux_aarch64",
    )
    pc = DevicePython(version="3.12.1", arch="x86_64", glibc=(2, 28), kernel="6")
    assert {"manylinux1_x86_64", "manylinux2010_x86_64", "manylinux_2_5_x86_64"} <= set(
        pc.platforms()
    )


@pytest.mark.parametrize("libc", ["musl 1.2.4", ""])
def test_without_glibc_no_runtime_can_be_installed(libc, local_facts):
    from dataclasses import replace

    with pytest.raises(DeviceError, match="pi: no runtime is built for its libc"):
        read_device_python("pi", replace(local_facts, libc=libc))


@pytest.fixture
def local_facts(tmp_path):
    from edgekit.remote.session import open_session

    with open_session("local", home=str(tmp_path / "home")) as session:
        return session.facts()


def test_the_lock_names_every_file_and_digest(tmp_path, index):
    wheel(index, "numpy", "2.4.0", NATIVE)
    wheel(index, "onnxruntime", "1.32.0", NATIVE, ["numpy"])
    got = fetch(tmp_path)
    (lock,) = (tmp_path / "cache").glob("onnxruntime*.lock.json")
    assert entries_of(lock) == [(p.name, d) for p, d in got.files]


def test_versions_in_the_lock_are_kept_although_newer_ones_exist(tmp_path, index):
    wheel(index, "numpy", "2.4.0", NATIVE)
    wheel(index, "onnxruntime", "1.32.0", NATIVE, ["numpy"])
    first = fetch(tmp_path)
    first.files[1][0].unlink()
    wheel(index, "numpy", "2.5.0", NATIVE)
    assert fetch(tmp_path) == first
