"""Unpacking of runtime wheels on the device."""

import io
import stat
import zipfile

import pytest

from edgekit_agent.jobs import NamedBlob, RuntimeJob
from edgekit_agent.results import RuntimeResult
from edgekit_agent.worker_jobs import BenchJob, ModelRef
from edgekit_agent.worker_results import Report


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def wheel(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o100755 if ".so" in name else 0o100600) << 16
            archive.writestr(info, content)
    return buffer.getvalue()


GOOD = {
    "kit/__init__.py": "VALUE = 1\n",
    "kit/native.cpython-311.so": "elf",
    "kit-1.data/purelib/kit/pure.py": "",
    "kit-1.data/platlib/kit_native.py": "",
    "kit-1.data/scripts/kit": "#!python",
    "kit-1.data/headers/kit.h": "",
    "kit-1.data/data/etc/kit.conf": "",
    "kit-1.dist-info/METADATA": "Name: kit\nVersion: 1\n",
}


@pytest.fixture
def unpack(agent, deliver, tmp_path):
    def run(name, wheels):
        named = deliver(tmp_path, wheels)
        return agent.ask(RuntimeJob(str(tmp_path), name, named), RuntimeResult)

    return run


def test_wheels_are_unpacked_so_that_they_can_be_imported(unpack, tmp_path):
    other = wheel({"other.py": ""})
    unpacked = unpack("kit-1", {"kit.whl": wheel(GOOD), "other.whl": other})
    site = tmp_path / "runtimes" / "kit-1"
    assert unpacked == RuntimeResult(str(site))
    found = sorted(str(p.relative_to(site)) for p in site.rglob("*") if p.is_file())
    assert found == [
        "edgekit-files.json",
        "kit-1.dist-info/METADATA",
        "kit/__init__.py",
        "kit/native.cpython-311.so",
        "kit/pure.py",
        "kit_native.py",
        "other.py",
    ]
    mode = (site / "kit" / "native.cpython-311.so").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600, "an import needs no more"


def test_a_damaged_installed_runtime_is_replaced(unpack, tmp_path):
    site = tmp_path / "runtimes" / "kit-1"
    unpack("kit-1", {"kit.whl": wheel(GOOD)})
    (site / "kit/__init__.py").write_text("rot")
    (site / "kit/native.cpython-311.so").unlink()
    (site / "stray.py").write_text("")
    assert unpack("kit-1", {"kit.whl": wheel(GOOD)}) == RuntimeResult(str(site))
    assert (site / "kit/__init__.py").read_text() == GOOD["kit/__init__.py"]
    assert (site / "kit/native.cpython-311.so").exists()
    assert not (site / "stray.py").exists()
    assert names(tmp_path / "runtimes") == ["kit-1"]


def test_an_installed_runtime_is_used_without_its_wheels(agent, unpack, tmp_path):
    unpack("kit-1", {"kit.whl": wheel(GOOD)})
    absent = (NamedBlob("kit.whl", "0" * 64),)
    failure = agent.ask(RuntimeJob(str(tmp_path), "kit-1", absent), RuntimeResult)
    assert failure.kind == "missing_blob"
    assert (tmp_path / "runtimes/kit-1/kit/__init__.py").exists()


@pytest.mark.parametrize(
    "name", ["../evil.py", "/evil.py", "a/../../evil.py", "k.data/purelib/../../../evil.py"]
)
def test_a_member_that_leaves_the_folder_is_refused(unpack, tmp_path, name):
    failure = unpack("kit-1", {"kit.whl": wheel({"fine.py": "", name: ""})})
    assert failure.kind == "corrupt"
    assert names(tmp_path / "runtimes") == []
    assert not list(tmp_path.rglob("evil.py"))


def test_a_damaged_wheel_leaves_nothing_behind(unpack, tmp_path):
    data = bytearray(wheel({"a.py": "x = 1\n" * 100}))
    data[40] ^= 0xFF
    failure = unpack("kit-1", {"kit.whl": bytes(data)})
    assert failure.kind == "corrupt"
    assert names(tmp_path / "runtimes") == []
    assert unpack("kit-2", {"kit.whl": b"no wheel"}).kind == "corrupt"


def test_a_missing_wheel_is_named(agent, tmp_path):
    job = RuntimeJob(str(tmp_path), "kit-1", (NamedBlob("kit.whl", "0" * 64),))
    assert agent.ask(job, RuntimeResult).kind == "missing_blob"


def test_a_model_runs_on_an_unpacked_runtime(agent, unpack, models):
    # Takes the place of the installed one, says so, and goes on with it.
    package = (
        "import os, sys\n"
        "sys.stderr.write('from the site\\n')\n"
        "sys.path.remove(os.path.dirname(os.path.dirname(__file__)))\n"
        "del sys.modules['onnxruntime']\n"
        "sys.modules['onnxruntime'] = __import__('onnxruntime')\n"
    )
    unpacked = unpack("ort", {"ort.whl": wheel({"onnxruntime/__init__.py": package})})
    model = ModelRef(str(models["echo"]), "onnxruntime", 1, unpacked.site)
    report = agent.ask(BenchJob(model, seconds=0.0, warmup_s=0.01), Report)
    assert isinstance(report, Report)
    agent.process.stdin.close()
    assert b"from the site" in agent.process.stderr.read()
