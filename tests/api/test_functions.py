"""Each function of the API on real files: twice in a process, from another folder, without a word.

The host is this machine; its home is a folder of the test.
"""

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import edgekit
from edgekit.bundle.manifest import MANIFEST
from edgekit.pass_settings import Clean
from tests.builders.projects import PROFILE, listing


@pytest.fixture
def home(tmp_path):
    return str(tmp_path / "there")


@pytest.fixture
def calls():
    """A progress callback that keeps what it was called with."""

    class Calls(list):
        def __call__(self, text, done, total):
            self.append((text, done, total))

    return Calls()


def check_calls(calls):
    assert calls
    for text, done, total in calls:
        assert isinstance(text, str)
        assert text
        assert type(done) is type(total) is int


def build(tiny, **how):
    return edgekit.build(folder=tiny, **({"steps": ["clean"]} | how))


@pytest.fixture
def bundle(tiny):
    return build(tiny).folder


def test_inspect(tiny, calls):
    first = edgekit.inspect("model.onnx", device=PROFILE, prunable=True, folder=tiny)
    again = edgekit.inspect(
        tiny / "model.onnx", device=PROFILE, prunable=True, folder=tiny, progress=calls
    )
    assert first == again
    assert (first.cost.parameters, first.device, first.obstacles) == (12, PROFILE, ())
    check_calls(calls)


def test_apply(tiny, calls):
    first = edgekit.apply("quantize-static", "model.onnx", "a.onnx", data="calib.npz", folder=tiny)
    again = edgekit.apply(
        "quantize-static", str(tiny / "model.onnx"), Path("b.onnx"), folder=tiny, progress=calls
    )
    assert first.after.digest == again.after.digest != first.before.digest
    assert (tiny / "a.onnx").read_bytes() == (tiny / "b.onnx").read_bytes()
    assert first.agreement == again.agreement
    check_calls(calls)


def test_names_of_earlier_versions_work_with_a_warning(tiny):
    with pytest.warns(FutureWarning, match="`quantize` is now `quantize-static`") as caught:
        done = edgekit.apply("quantize", "model.onnx", "a.onnx", folder=tiny)
    assert done.step.name == "quantize-static"
    with (
        pytest.warns(FutureWarning, match="`onnx` is now `to-onnx`"),
        pytest.raises(edgekit.UserError),
    ):
        build(tiny, steps=["onnx"])
    assert [Path(each.filename).name for each in caught] == [Path(__file__).name]


def test_settings_of_a_pass_are_values_of_python(tiny):
    plain = edgekit.apply("quantize-static", "model.onnx", "a.onnx", folder=tiny)
    done = edgekit.apply(
        "quantize-static", "model.onnx", "b.onnx", settings={"ranges": "mse"}, folder=tiny
    )
    assert (plain.step.settings.ranges, done.step.settings.ranges) == ("auto", "mse")
    step = replace(done.step, settings=replace(done.step.settings, bias_correction=False))
    assert edgekit.apply(step, "model.onnx", "c.onnx", folder=tiny).step == replace(
        step, settings=replace(step.settings, weight_bits=done.step.settings.weight_bits)
    )


def test_build(tiny, calls):
    first = build(tiny, steps=["clean"])
    again = build(tiny, steps=["clean"], progress=calls)
    assert first.choice.recipe == again.choice.recipe
    assert [c.model.digest for c in first.candidates] == [c.model.digest for c in again.candidates]
    assert first.manifest.files == again.manifest.files
    assert first.compared == again.compared
    assert first.folder == again.folder == tiny / "build" / PROFILE
    assert first.report.is_file()
    check_calls(calls)


def test_paths_of_results_are_arguments_of_the_next_call(tiny, home, monkeypatch):
    monkeypatch.chdir(tiny.parent)
    outcome = build("tiny", out="out")
    assert edgekit.push(outcome.folder, "local", home=home, folder="tiny").release
    assert edgekit.push("out", "local", home=home, folder="tiny").release
    monkeypatch.chdir(tiny)
    assert build(".", out="out").folder == Path("out")


def test_build_searches_without_steps(tiny):
    outcome = build(tiny, steps=(), out=tiny / "here", max_drop=5)
    assert len(outcome.candidates) > 1
    assert (tiny / "here" / MANIFEST).is_file()
    assert outcome.inputs.limits.margins[0].value == 5


def test_build_takes_a_recipe_file_or_a_recipe(digits):
    (digits / "recipe.toml").write_text('name = "half"\n[[step]]\npass = "float16"\n')
    of_file = build(digits, steps=(), recipe="recipe.toml", allow_failing=True)
    recipe = of_file.candidates[-1].recipe
    assert recipe.name == "half"
    again = build(digits, steps=(), recipe=recipe, allow_failing=True)
    assert again.candidates[-1].recipe == recipe


def test_a_device_is_a_name_a_file_or_a_profile(tiny):
    profile = next(p for p in edgekit.list_devices() if p.name == PROFILE)
    budget = profile.budget.model_copy(update={"model_mib": 1e-6})
    small = profile.model_copy(update={"name": "small", "budget": budget})
    (tiny / "small.toml").write_text(
        (Path(__file__).parents[2] / "device_profiles" / f"{PROFILE}.toml")
        .read_text(encoding="utf-8")
        .replace(f'name = "{PROFILE}"', 'name = "small"')
    )
    assert build(tiny, device=small).choice is None
    assert build(tiny, device="small.toml").choice is not None
    seen = edgekit.inspect("model.onnx", device=small, folder=tiny)
    assert (seen.device, seen.model_mib_limit) == ("small", 1e-6)
    assert edgekit.DeviceProfile.load(PROFILE) == profile
    assert edgekit.DeviceProfile.load(tiny / "small.toml").name == "small"


def test_report(tiny, bundle):
    page = bundle / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert edgekit.report(str(bundle)) == edgekit.report(bundle) == page
    assert page.read_bytes() == before


def test_init(tiny, calls):
    (tiny / "edgekit.toml").unlink()
    first = edgekit.init(folder=tiny)
    project = edgekit.Project.load(tiny)
    assert project.data.evaluation == "eval.npz"
    first.path.unlink()
    assert edgekit.init("model.onnx", folder=str(tiny), progress=calls) == first
    check_calls(calls)


def test_example(workplace):
    first = edgekit.example("digits", workplace / "a")
    again = edgekit.example("digits", str(workplace / "b"))
    assert listing(first.folder) == listing(again.folder)
    assert sorted(first.files) == sorted(listing(first.folder))
    assert edgekit.Project.load(first.folder).build.device == first.device
    with pytest.raises(edgekit.UserError, match="is not empty"):
        edgekit.example("digits", workplace / "a")


def test_open_bundle(bundle, calls):
    first = edgekit.open_bundle(bundle)
    assert edgekit.open_bundle(str(bundle), progress=calls) == first
    file = edgekit.open_bundle(bundle / f"{PROFILE}.edgekit")
    assert file.manifest == first.manifest
    check_calls(calls)


def test_lists():
    assert edgekit.list_devices() == edgekit.list_devices()
    assert edgekit.list_passes() == edgekit.list_passes()
    assert {"clean", "quantize-static"} <= {each.name for each in edgekit.list_passes()}


def test_push_status_and_rollback(digits, home, calls):
    bundle = build(digits).folder
    first = edgekit.push(bundle, "local", home=home, progress=calls)
    again = edgekit.push(edgekit.open_bundle(bundle), "local", home=home)
    assert first.release == again.release
    assert (first.previous, again.previous, first.notes) == (None, None, ())
    assert again.sent_bytes < first.sent_bytes
    assert edgekit.status("local", home=home) == edgekit.status("local", home=home)
    check_calls(calls)

    second = edgekit.push(build(digits, steps=["float16"]).folder, "local", home=home)
    assert second.previous == first.release
    back = edgekit.rollback("local", home=home)
    assert back.current.name == first.release
    forth = edgekit.rollback("local", home=home, progress=calls)
    assert (forth.current.name, forth.previous.name) == (second.release, first.release)
    assert [line.action for line in edgekit.status("local", home=home, log=2).log] == [
        "rollback",
        "rollback",
    ]


def test_the_folder_on_a_device_that_only_the_bundle_names_is_noted(tiny, home, monkeypatch):
    profile = edgekit.DeviceProfile.load(PROFILE)
    named = profile.model_copy(
        update={"connection": profile.connection.model_copy(update={"home": "elsewhere"})}
    )
    outcome = build(tiny, device=named)
    (note,) = edgekit.push(outcome.folder, "local").notes
    assert "--home elsewhere" in note
    assert edgekit.push(outcome.folder, "local", home=home).notes == ()


def test_probe(home, calls):
    first = edgekit.probe("local", home=home)
    again = edgekit.probe("local", home=Path(home), progress=calls)
    varying = {"free_memory_bytes": 0, "free_disk_bytes": 0, "load_1min": 0.0}
    assert replace(first, **varying) == replace(again, **varying)
    assert first.machine == os.uname().machine
    check_calls(calls)


def test_bench(tiny, bundle, home, calls):
    first = edgekit.bench(bundle, "local", eval="eval.npz", home=home, folder=tiny)
    again = edgekit.bench(
        str(bundle), "local", eval=tiny / "eval.npz", home=home, folder=tiny, progress=calls
    )
    assert first.scores == again.scores
    assert first.scores[0].correct == first.scores[0].n == 40
    assert first.times.p50_ms > 0
    assert (first.runtime, first.threads) == (again.runtime, again.threads)
    check_calls(calls)


# ---------------------------------------------------------------- no traces


def test_nothing_is_printed_and_nothing_of_the_process_changes(tiny, home, capfd):
    def state():
        handlers = [signal.getsignal(each) for each in signal.valid_signals()]
        return Path.cwd(), handlers, dict(os.environ)

    before = state()
    outcome = build(tiny)
    edgekit.inspect("model.onnx", folder=tiny)
    edgekit.push(outcome.folder, "local", home=home)
    edgekit.bench(outcome.folder, "local", home=home)
    with pytest.raises(edgekit.UserError):
        edgekit.inspect("none.onnx", folder=tiny)
    assert capfd.readouterr() == ("", "")
    assert state() == before


def test_the_functions_work_in_a_thread(tiny, home):
    done = {}

    def work():
        done["build"] = build(tiny)
        done["push"] = edgekit.push(done["build"].folder, "local", home=home)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done["push"].host == "local"


def test_an_exception_of_the_callback_ends_the_function(tiny):
    class Stopped(Exception):
        pass

    def stop(text, done, total):
        raise Stopped

    with pytest.raises(Stopped):
        edgekit.inspect("model.onnx", folder=tiny, progress=stop)
    assert edgekit.inspect("model.onnx", folder=tiny).cost.parameters == 12


# ---------------------------------------------------------------- errors


def _make_step(name):
    """Return a step of a pass by any name, with the settings of clean."""
    return edgekit.Step(name=name, version=1, settings=Clean())


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: edgekit.build(metric="f1"), "metric: unknown metric 'f1'"),
        (lambda: edgekit.build(runtime="tensorrt"), "runtime: unknown: 'tensorrt'"),
        (
            lambda: edgekit.build(max_drop=float("nan")),
            "max_drop: nan is not a number of percentage points",
        ),
        (lambda: edgekit.build(max_drop=-1), "max_drop: -1 is not a number of percentage points"),
        (
            lambda: edgekit.build(recipe="a.toml", steps=["clean"]),
            "recipe and steps cannot be combined",
        ),
        (lambda: edgekit.build(steps=["no-such-pass"]), "no pass named 'no-such-pass'"),
        (lambda: edgekit.build(folder="nowhere"), "nowhere: no such folder"),
        (lambda: edgekit.build(dims={"N": 0}), "dims: N: 0 is not a size"),
        (lambda: edgekit.build("none.onnx", device=PROFILE), "none.onnx: cannot be read"),
        (lambda: edgekit.inspect("none.onnx"), "none.onnx: cannot be read"),
        (lambda: edgekit.inspect("m.onnx", dims={"N": True}), "dims: N: True is not a size"),
        (lambda: edgekit.apply("no-such-pass", "m.onnx", "o.onnx"), "no pass named"),
        (lambda: edgekit.apply("clean", "none.onnx", "o.onnx"), "none.onnx: cannot be read"),
        (
            lambda: edgekit.apply("quantize-static", "m.onnx", "o.onnx", settings={"ranges": 3}),
            "ranges: must be one of",
        ),
        (lambda: edgekit.build(max_drop="1"), "max_drop: '1' is not a number"),
        (lambda: edgekit.build(seed=1.5), "seed: 1.5 is not a whole number"),
        (lambda: edgekit.build(steps="clean"), "steps: must be a list of steps"),
        (lambda: edgekit.build(steps=[3]), "3 is not a step"),
        (lambda: edgekit.build(steps=[_make_step("clen")]), "did you mean 'clean'?"),
        (
            lambda: edgekit.build(recipe=edgekit.Recipe(name="r", steps=(_make_step("nope"),))),
            "no pass named 'nope'",
        ),
        (lambda: edgekit.apply(_make_step("nope"), "m.onnx", "o.onnx"), "no pass named 'nope'"),
        (
            lambda: edgekit.apply(_make_step("float16"), "m.onnx", "o.onnx"),
            "float16: settings: must be of type Float16, not Clean",
        ),
        (lambda: edgekit.apply(None, "m.onnx", "o.onnx"), "None is not a step"),
        (
            lambda: edgekit.apply("clean", "m.onnx", "o.onnx", settings="ranges=mse"),
            "settings: 'ranges=mse' is not a dict",
        ),
        (lambda: edgekit.inspect("m.onnx", dims="N=1"), "dims: 'N=1' is not a dict"),
        (lambda: edgekit.init(), "contains no model file"),
        (lambda: edgekit.init(folder="nowhere"), "nowhere: no such folder"),
        (lambda: edgekit.report("nowhere"), "nowhere"),
        (lambda: edgekit.open_bundle("nowhere"), "nowhere: not a bundle"),
        (lambda: edgekit.push("nowhere", "local"), "nowhere: not a bundle"),
        (lambda: edgekit.bench("none.onnx", "local"), "none.onnx: cannot be read"),
        (lambda: edgekit.bench("none.onnx", "local", metric="f1"), "metric: unknown metric 'f1'"),
        (lambda: edgekit.status("local", home=" "), "home: ' ' is not a folder path"),
        (lambda: edgekit.status("-oProxyCommand=x"), "does not name a host"),
        (lambda: edgekit.probe("local", device="tablt"), "did you mean 'tablet"),
        (lambda: edgekit.DeviceProfile.load("tablt"), "did you mean 'tablet"),
        (lambda: edgekit.Project.load("nowhere"), "nowhere: no such folder"),
    ],
)
def test_a_wrong_request_is_an_error_of_the_user(workplace, ask, says):
    with pytest.raises(edgekit.UserError) as caught:
        ask()
    assert says in str(caught.value)
    assert isinstance(caught.value, edgekit.EdgekitError)
    assert listing(workplace) == {}


@pytest.mark.parametrize(
    "ask",
    [
        lambda home: edgekit.rollback("local", home=home),  # no release is there
        lambda home: edgekit.probe("user@localhost:1"),
    ],
)
def test_a_device_that_fails_is_a_device_error(workplace, home, ask):
    with pytest.raises(edgekit.DeviceError) as caught:
        ask(home)
    assert isinstance(caught.value, edgekit.EdgekitError)


def test_a_pass_that_does_not_apply_is_refused(tiny):
    with pytest.raises(edgekit.PassRefused):
        edgekit.apply("float16", "model.onnx", "o.onnx", folder=tiny)  # too small
    assert not (tiny / "o.onnx").exists()


def test_a_file_that_cannot_be_written_is_an_error_of_the_user(bundle):
    page = bundle / "report.html"
    page.unlink()
    page.mkdir()
    with pytest.raises(edgekit.UserError, match=r"report.html: cannot be written: Is a directory"):
        edgekit.report(bundle)
