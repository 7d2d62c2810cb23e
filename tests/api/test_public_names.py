"""The names of edgekit: light to import, listed, typed, and never hidden by a sub-package."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import edgekit
from tests.builders.projects import ROOT

HEAVY = {
    *(
        "numpy",
        "onnx",
        "onnxruntime",
        "pydantic",
        "paramiko",
        "jinja2",
        "cryptography",
        "packaging",
    ),
    *("typer", "tomllib", "ai_edge_litert", "tensorflow", "torch"),
}
FUNCTIONS = [n for n in edgekit.__all__ if n[0].islower()]
TYPES = [n for n in edgekit.__all__ if n[0].isupper()]
SECTIONS = ("Args:", "Returns:", "Raises:", "Examples:")
WITHOUT_ARGUMENTS = {"list_devices", "list_metrics", "list_passes"}


def modules_after(code: str) -> set[str]:
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_import_loads_no_library():
    loaded = modules_after("import edgekit")
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
    own = {name for name in loaded if name.startswith(("edgekit.", "edgekit_agent"))}
    assert own == {"edgekit.version"}


def test_the_errors_are_light_to_load():
    loaded = modules_after("import edgekit; edgekit.DeviceError")
    assert not {name.partition(".")[0] for name in loaded} & HEAVY


def test_the_names_are_listed():
    assert dir(edgekit) == sorted(edgekit.__all__)
    assert {"build", "inspect", "apply", "push", "bench", "report", "init"} <= set(dir(edgekit))
    assert {"Project", "DeviceProfile", "EdgekitError", "PassRefused"} <= set(dir(edgekit))


def test_every_name_is_there():
    for name in FUNCTIONS:
        assert inspect.isfunction(getattr(edgekit, name)), name
    for name in TYPES:
        assert isinstance(getattr(edgekit, name), type), name


def test_another_name_is_no_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'biuld'"):
        _ = edgekit.biuld
    with pytest.raises(ImportError, match="biuld"):
        exec("from edgekit import biuld")


def test_type_checkers_see_the_same_names_in_the_same_modules():
    tree = ast.parse((ROOT / "edgekit/__init__.py").read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test)[0] == "T")
    typed = {alias.name: each.module for each in block.body for alias in each.names}
    assert sorted({*typed, "__version__"}) == sorted(edgekit.__all__)
    for name, module in typed.items():
        assert getattr(importlib.import_module(module), name) is getattr(edgekit, name)


def test_no_sub_package_bears_a_public_name():
    inside = {each.name for each in pkgutil.iter_modules(edgekit.__path__)}
    assert inside >= {"api", "reporting"}
    assert not inside & set(edgekit.__all__)


def test_the_functions_are_there_after_all_sub_packages_are_imported():
    names = [each.name for each in pkgutil.iter_modules(edgekit.__path__) if each.name[0] != "_"]
    code = "".join(f"import edgekit.{name}\n" for name in names)
    code += "import edgekit.reporting.html, edgekit.pipeline.build, edgekit.api.builds\n"
    code += "".join(f"assert edgekit.{name}.__name__ == {name!r}\n" for name in FUNCTIONS)
    assert "edgekit.pipeline" in modules_after(code)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_explains_its_arguments_its_result_and_its_errors(name):
    function = getattr(edgekit, name)
    text = inspect.getdoc(function)
    parameters = inspect.signature(function).parameters
    for section in SECTIONS if name not in WITHOUT_ARGUMENTS else ("Returns:", "Examples:"):
        assert section in text, section
    for each in parameters.values():
        assert f"\n    {each.name}: " in text, f"{each.name} is not explained"
        assert each.annotation is not inspect.Parameter.empty
    assert sum(each.kind is each.POSITIONAL_OR_KEYWORD for each in parameters.values()) <= 3
