"""Wrong arguments of each function of the API are refused by their names, before anything happens.

Functions and parameters are found by introspection, so that new ones are tested as well.
"""

import inspect
import math
from pathlib import PurePosixPath

import pytest

import edgekit
from tests.builders.projects import listing

FUNCTIONS = {n: getattr(edgekit, n) for n in edgekit.__all__ if n[0].islower()} | {
    "DeviceProfile.load": edgekit.DeviceProfile.load,
    "Project.load": edgekit.Project.load,
}
PARAMETERS = [
    (function, each.name)
    for function in FUNCTIONS
    for each in inspect.signature(FUNCTIONS[function]).parameters.values()
]
WRONG = (None, 3, b"x", "", "\0", "\udcff", -1, math.nan, [], PurePosixPath("\0"))
# Values of this list that a parameter takes.
FITTING = {
    "log": [3], "max_drop": [3], "minutes": [3], "seed": [3], "steps": [[]], "watch": [3],
    "bundles": [[]], "requires": [[]],
}  # fmt: skip
# Arguments of functions that require them; nothing else is there.
USUAL = {"host": "local", "step": "clean", "out": "out.onnx"}


def call(function, **arguments):
    parameters = inspect.signature(FUNCTIONS[function]).parameters.values()
    required = {each.name for each in parameters if each.default is each.empty}
    usual = {name: USUAL.get(name, "nothing") for name in required}
    return FUNCTIONS[function](**usual | arguments)


def fits(function, name, value):
    default = inspect.signature(FUNCTIONS[function]).parameters[name].default
    return (value is None and default is None) or value in FITTING.get(name, ())


@pytest.mark.parametrize(("function", "name"), PARAMETERS)
def test_a_wrong_argument_is_refused_by_its_name(workplace, function, name):
    for value in WRONG:
        if fits(function, name, value):
            continue
        with pytest.raises(edgekit.ArgumentError) as caught:
            call(function, **{name: value})
        assert caught.value.names == (name,), value
        assert str(caught.value).startswith(f"{name}: ")
        assert len(caught.value.message) < 200
    assert listing(workplace) == {}


@pytest.mark.parametrize(("function", "name"), [each for each in PARAMETERS if each[1] in FITTING])
def test_a_fitting_argument_is_taken(workplace, function, name):
    for value in FITTING[name]:
        with pytest.raises(edgekit.EdgekitError) as caught:  # the next argument names no file
            call(function, **{name: value}, folder="nowhere")
        assert "nowhere: no such folder" in str(caught.value)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_wrong_number_of_arguments_is_an_error_of_python(function):
    with pytest.raises(TypeError, match=rf"{function.rpartition('.')[2]}\(\) (takes|got)"):
        FUNCTIONS[function](*["x"] * 9)
    with pytest.raises(TypeError, match=r"got an unexpected keyword argument 'no_such'"):
        call(function, no_such=1)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: edgekit.build(3), "model: 3 is not a path"),
        (lambda: edgekit.build(on=3), "on: 3 is not a host; give 'local'"),
        (lambda: edgekit.build(device=""), "device: empty text is not a device profile"),
        (lambda: edgekit.build(out="a\0b"), "out: 'a\\x00b' has a NUL character"),
        (lambda: edgekit.build(strict="no"), "strict: 'no' is not True or False"),
        (lambda: edgekit.build(steps=["clean", None]), "steps: None is not a step"),
        (lambda: edgekit.build(data=["x" * 1000]), "data: ['xxx"),
        (lambda: edgekit.build(dims={3: 1}), "dims: 3 is not the name of a dimension"),
        (lambda: edgekit.build(seed=-1), "seed: -1 is not a whole number of at least 0"),
        (lambda: edgekit.inspect("m", progress=1), "progress: 1 is not a function"),
        (lambda: edgekit.push(None, "local"), "bundle: None is not a path"),
        (lambda: edgekit.push("b", "local", watch=1e9), "watch: 1000000000.0 is not a number of"),
        (lambda: edgekit.bench("m", host=3), "host: 3 is not a host"),
        (lambda: edgekit.status("local", log=-1), "log: -1 is not a whole number"),
    ],
)
def test_the_message_says_what_the_argument_must_be(workplace, ask, says):
    with pytest.raises(edgekit.ArgumentError) as caught:
        ask()
    assert says in str(caught.value)
    assert listing(workplace) == {}


def test_a_hint_on_an_option_names_the_argument_in_a_note(workplace):
    with pytest.raises(edgekit.UserError) as caught:
        edgekit.build("model.onnx")
    assert "--device NAME" in str(caught.value)
    assert caught.value.__notes__ == ["in Python, --device is the argument device"]
