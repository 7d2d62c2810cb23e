"""Wheels of an app are those of its lock; an older, changed or missing one is an error."""

import tarfile
import zipfile

import pytest

from edgekit.errors import UserError
from edgekit.packaging.lock_file import LockedWheel, encode_lock, read_lock
from edgekit.packaging.locked_wheels import WheelSource, collect_wheels
from edgekit.packaging.requirements import LEAVES
from edgekit.packaging.target_platform import TargetPlatform
from edgekit.packaging.wheel_contents import read_contents
from edgekit.remote.python_tags import DevicePython
from edgekit.remote.wheel_download import WheelRequest
from tests.packaging.wheels import digest, make_wheel

PI = DevicePython(version="3.11.0", arch="aarch64", glibc=(2, 36), kernel="")
PLATFORM = TargetPlatform(python=PI)
NATIVE = "cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64"
REQUEST = WheelRequest(requirements=("onnxruntime>=1.20", "numpy"), leaves=LEAVES)


@pytest.fixture
def folder(tmp_path):
    """A folder with the wheels of an app."""
    made = tmp_path / "wheels"
    needs = ["numpy>=1.21", "protobuf>=4"]
    make_wheel(made, "onnxruntime", "1.32.0", NATIVE, needs)
    make_wheel(made, "numpy", "2.4.6", NATIVE)
    return made


def collect(folder, tmp_path, request=REQUEST, **options):
    source = WheelSource(cache=tmp_path / "cache", folder=folder)
    return collect_wheels([request], PLATFORM, source, **options)


def test_parts_that_are_never_imported_bring_no_wheels(folder, tmp_path):
    found = collect(folder, tmp_path)
    assert [(w.name, w.version) for w in found.entries] == [
        ("numpy", "2.4.6"),
        ("onnxruntime", "1.32.0"),
    ]
    assert [digest(path) for path, _ in found.files] == [w.sha256 for w in found.entries]
    assert not found.is_locked


def test_a_further_package_brings_all_that_it_needs(folder, tmp_path):
    make_wheel(folder, "scipy", "1.15.0", requires=["numpy>=2", "pooch"])
    make_wheel(folder, "pooch", "1.8.0", requires=["packaging"])
    make_wheel(folder, "packaging", "25.0")
    request = WheelRequest(requirements=(*REQUEST.requirements, "scipy>=1.11"), leaves=LEAVES)
    names = [w.name for w in collect(folder, tmp_path, request).entries]
    assert names == ["numpy", "onnxruntime", "packaging", "pooch", "scipy"]


def test_the_locked_version_is_taken_and_a_newer_one_left_alone(folder, tmp_path):
    lock = collect(folder, tmp_path).entries
    make_wheel(folder, "numpy", "2.5.0", NATIVE)
    found = collect(folder, tmp_path, lock=lock, must_be_locked=True)
    assert (found.entries, found.is_locked) == (lock, True)


def test_a_newer_wheel_in_place_of_the_locked_one_changes_the_lock_if_it_may(folder, tmp_path):
    lock = collect(folder, tmp_path).entries
    next(folder.glob("numpy-*")).unlink()
    make_wheel(folder, "numpy", "2.5.0", NATIVE)
    found = collect(folder, tmp_path, lock=lock)
    assert (found.entries[0].version, found.is_locked) == ("2.5.0", False)
    with pytest.raises(UserError, match="--locked"):
        collect(folder, tmp_path, lock=lock, must_be_locked=True)


def test_an_older_wheel_than_the_locked_one_is_an_error(folder, tmp_path):
    lock = collect(folder, tmp_path).entries
    next(folder.glob("numpy-*")).unlink()
    make_wheel(folder, "numpy", "2.4.5", NATIVE)
    with pytest.raises(UserError, match=r"numpy 2\.4\.5 is older than the locked version 2\.4\.6"):
        collect(folder, tmp_path, lock=lock)


def test_a_changed_wheel_of_the_locked_version_is_an_error(folder, tmp_path):
    lock = collect(folder, tmp_path).entries
    with zipfile.ZipFile(next(folder.glob("numpy-*")), "a") as archive:
        archive.writestr("numpy/more.py", "x = 1\n")
    with pytest.raises(UserError, match=r"numpy-2\.4\.6.*its sha256 is .*, that of numpy-2"):
        collect(folder, tmp_path, lock=lock)


def test_a_source_distribution_is_an_error_with_its_name(folder, tmp_path):
    next(folder.glob("numpy-*")).unlink()
    (tmp_path / "setup.py").write_text("raise SystemExit('never run')\n")
    with tarfile.open(folder / "numpy-2.4.6.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "setup.py", "numpy-2.4.6/setup.py")
    with pytest.raises(UserError, match=r"numpy has no wheel.*source distribution \(numpy \(2\.4"):
        collect(folder, tmp_path)


def test_a_wheel_for_another_device_does_not_count(folder, tmp_path):
    next(folder.glob("numpy-*")).unlink()
    make_wheel(folder, "numpy", "2.4.6", NATIVE.replace("aarch64", "x86_64"))
    with pytest.raises(UserError, match="numpy"):
        collect(folder, tmp_path)


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(UserError, match=r"--wheels: .*no such folder"):
        collect(tmp_path / "absent", tmp_path)


def test_a_lock_must_hold_what_is_required(folder, tmp_path):
    lock = collect(folder, tmp_path).entries
    with pytest.raises(UserError, match="--locked"):
        collect(folder, tmp_path, lock=lock[:1], must_be_locked=True)


def test_a_lock_file_is_read_as_it_was_written(folder, tmp_path):
    lock = collect(folder, tmp_path).entries
    path = tmp_path / "edgekit.lock"
    path.write_bytes(encode_lock({"b": lock, "a": lock[:1]}))
    assert read_lock(path).platforms == {"a": lock[:1], "b": lock}
    assert path.read_bytes() == encode_lock({"a": lock[:1], "b": tuple(reversed(lock))})
    assert "http" not in path.read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"),
        ("[]", "not a lock file"),
        ('{"schema": 2}', "schema"),
        (
            '{"schema": 1, "platforms": {"a": [{"name": "numpy"}]}}',
            "platforms.a.0.version: missing",
        ),
    ],
)
def test_a_damaged_lock_is_told_with_its_path(tmp_path, text, said):
    path = tmp_path / "edgekit.lock"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        read_lock(path)
    assert str(path) in str(caught.value)


def test_files_that_are_never_loaded_are_left_out_and_the_rest_is_the_same(tmp_path):
    unused = ["numpy/tests/test_a.py", "numpy/fft/tests/test_b.py", "numpy/f2py/x.py"]
    path = make_wheel(tmp_path, "numpy", "2.4.6", NATIVE, files=["numpy/core.py", *unused])
    contents = read_contents(path, "numpy")
    assert contents.data == read_contents(path, "numpy").data
    (tmp_path / "less.whl").write_bytes(contents.data)
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(tmp_path / "less.whl") as less:
        assert less.testzip() is None
        assert {*whole.namelist()} - {*less.namelist()} == {*unused}
        assert all(less.read(name) == whole.read(name) for name in less.namelist())
    assert contents.left_out == ("numpy/*/tests/*", "numpy/tests/*", "numpy/f2py/*")


def test_wheels_of_the_user_stay_whole(tmp_path):
    path = make_wheel(tmp_path, "scipy", "1.15.0", files=["scipy/tests/test_a.py"])
    assert read_contents(path, "scipy").data == path.read_bytes()


def test_a_damaged_wheel_is_told(tmp_path):
    path = make_wheel(tmp_path, "numpy", "2.4.6", NATIVE, files=["numpy/tests/a.py"])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="not a wheel"):
        read_contents(path, "numpy")


def test_a_wheel_is_described_by_plain_names():
    with pytest.raises(ValueError, match="name"):
        LockedWheel(name="../x", version="1", file="x.whl", sha256="0" * 64)
