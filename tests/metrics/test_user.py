"""Functions and classes of the user as metrics: attributes, wrong answers, and intervals."""

from __future__ import annotations

import itertools
import textwrap

import numpy as np
import pytest

from edgekit.errors import UserError
from edgekit.metrics.comparison import compare
from edgekit.metrics.intervals.student_t import compute_t_quantile
from edgekit.metrics.meaningless import find_meaningless
from edgekit.metrics.metric import Margin, Table
from edgekit.metrics.registry import get_metric
from edgekit.metrics.slices import compare_slices
from edgekit.metrics.user_code.loader import build_rows
from edgekit_agent.scoring import MetricOptions

OPTIONS = MetricOptions()
FUNCTION = "def error(outputs, targets):\n    return abs(outputs['a'] - targets['y'])\n"
CLASS = """
class Mean:
    def update(self, outputs, targets): pass
    def value(self): return 1.0
"""
_numbers = itertools.count()


@pytest.fixture
def load(tmp_path):
    """Write a module of a new name, and load a metric of it."""

    def write(text, name="error"):
        module = f"own_metrics_{next(_numbers)}"
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(text), encoding="utf-8")
        return get_metric(f"{module}:{name}", tmp_path)

    return write


def refuse(load, text, name="error"):
    with pytest.raises(UserError) as refused:
        load(text, name)
    return str(refused.value)


def test_a_function_needs_no_attributes(load):
    metric = load(FUNCTION)
    assert (metric.title, metric.higher_is_better, metric.is_share) == ("error", True, False)
    assert metric.margin == Margin(value=1.0, relative=True)
    values = metric.code.compute_values(
        [{"a": np.array(3.0)}, {"a": np.array(1.0)}], [{"y": np.array(1)}, {"y": np.array(4)}]
    )
    assert values.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("error.lower_is_better = True", "higher_is_better", False),
        ("error.higher_is_better = False", "higher_is_better", False),
        ("error.title = 'mean error'", "title", "mean error"),
        ("error.is_share = True", "margin", Margin(value=1.0)),
        ("error.margin = 2", "margin", Margin(value=2.0)),
        ("error.relative_margin = 0.5", "margin", Margin(value=0.5, relative=True)),
    ],
)
def test_attributes_describe_the_metric(load, line, field, value):
    assert getattr(load(FUNCTION + line), field) == value


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("error.lower_is_better = 'yes'", "lower_is_better is 'yes' instead of True or False"),
        ("error.lower_is_better = error.higher_is_better = True", "contradict each other"),
        ("error.title = ''", "title is '' instead of text"),
        ("error.margin = -1", "margin is -1 instead of a number of at least 0"),
        ("error.margin = error.relative_margin = 1", "both a margin and a relative_margin"),
        ("error = 3", "int is neither a function nor a class"),
        ("def error(outputs): return 1", "must take the arguments (outputs, targets)"),
        ("def error(outputs, targets, more): return 1", "must take the arguments"),
        ("error = undefined", "NameError: name 'undefined' is not defined"),
        ("import no_such_package", "No module named 'no_such_package'"),
        ("class error: pass", "the class has no method update and no method value"),
        ("class error:\n    update = value = lambda self: 1", "must take the arguments"),
        (
            "class error:\n    def __init__(self, a): pass\n"
            "    def update(self, outputs, targets): pass\n    def value(self): pass",
            "must take no arguments",
        ),
    ],
)
def test_a_metric_that_cannot_be_used_is_refused_by_name(load, line, told):
    said = refuse(load, f"{FUNCTION}{line}\n")
    assert told in said
    assert said.startswith("own_metrics_")


def test_missing_modules_and_functions_are_named(load, tmp_path):
    said = refuse(load, FUNCTION + "def _private(a): pass", "eror")
    assert "has no 'eror'; did you mean 'error'?" in said
    assert said.endswith(": error")
    with pytest.raises(UserError, match="no module 'no_such_metrics'"):
        get_metric("no_such_metrics:error", tmp_path)
    with pytest.raises(UserError, match="give metrics:error"):
        get_metric("metrics.py:error", tmp_path)


def test_an_edited_module_and_one_of_another_project_are_loaded_again(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for value, folder in enumerate(folders):
        folder.mkdir()
        text = f"def error(outputs, targets):\n    return [{value}]\n"
        (folder / "own_shared_metrics.py").write_text(text)

    def compute(folder):
        metric = get_metric("own_shared_metrics:error", folder)
        return metric.code.digest, metric.code.compute_values([{}], [{}]).tolist()

    first, second = map(compute, folders)
    assert (first[1], second[1]) == ([0], [1])
    assert compute(folders[0]) == first
    (folders[0] / "own_shared_metrics.py").write_text(
        "def error(outputs, targets):\n    return [7 + 0]\n"
    )
    edited = compute(folders[0])
    assert edited[1] == [7]
    assert edited[0] != first[0]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("None", "returned None instead of one number for each of the 2 samples"),
        ("1.5", "returned 1.5 instead of one number"),
        ("[1, 2, 3]", "returned an array of shape (3,)"),
        ("outputs['a'][:, None]", "returned an array of shape (2, 1)"),
        ("['a', 'b']", "returned an object of type list"),
        ("[[1], [1, 2]]", "returned an object of type list"),
        ("[1, float('nan')]", "returned nan for sample 11; a finite number is needed"),
        ("outputs['b']", "KeyError: 'b' (own_metrics_"),
        ("exit(3)", "SystemExit: 3"),
    ],
)
def test_wrong_answers_name_what_was_returned(load, answer, told):
    metric = load(f"def error(outputs, targets):\n    return {answer}\n")
    with pytest.raises(UserError) as refused:
        metric.code.compute_values([{"a": np.array(1)}] * 2, [{}] * 2, first=10)
    assert told in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_wrong_name_is_answered_with_the_names_that_there_are(load):
    metric = load("def error(outputs, targets):\n    return outputs['b']\n")
    with pytest.raises(UserError) as refused:
        metric.code.compute_values([{"a": np.array(1)}] * 2, [{"y": np.array(1)}] * 2)
    assert refused.value.hint == "outputs: a; targets: y"


def test_arrays_of_different_shapes_are_a_list(load):
    metric = load("def error(outputs, targets):\n    return [len(a) for a in outputs['a']]\n")
    samples = [{"a": np.zeros((2, 4))}, {"a": np.zeros((0, 4))}]
    assert metric.code.compute_values(samples, [{}] * 2).tolist() == [2, 0]


def test_the_values_of_a_function_are_compared_by_the_bootstrap(load):
    metric = load(FUNCTION + "error.lower_is_better = True")
    rng = np.random.default_rng(0)
    before = rng.uniform(1, 2, 300)
    after = before * rng.uniform(0.999, 1.003, 300)
    tables = [Table(rows=tuple(values[:, None])) for values in (before, after)]

    found = compare(metric, *tables, options=OPTIONS)

    assert found.drop == pytest.approx(100 * (after.mean() / before.mean() - 1))
    assert (found.unit, found.method) == ("%", "BCa bootstrap")
    assert found.proven


# ---------------------------------------------------------------- values of all samples together


def make_mean_table(values, blocks, groups=None):
    left_out = np.array([values[blocks != b].mean() for b in range(blocks.max() + 1)])
    return Table(rows=tuple(build_rows(blocks, values.mean(), left_out)), groups=groups)


def test_the_jackknife_of_a_mean_has_its_standard_error(load):
    metric = load(CLASS + "Mean.margin = 0.5", "Mean")
    rng = np.random.default_rng(1)
    before = rng.normal(size=40)
    after = before - 0.1 + rng.normal(scale=0.3, size=40)
    tables = [make_mean_table(values, np.arange(40)) for values in (before, after)]

    found = compare(metric, *tables, options=OPTIONS)

    losses = before - after
    error = losses.std(ddof=1) / np.sqrt(40)
    assert found.drop == pytest.approx(losses.mean())
    assert found.interval[1] - found.drop == pytest.approx(compute_t_quantile(0.975, 39) * error)
    assert found.worst == pytest.approx(losses.mean() + compute_t_quantile(0.95, 39) * error)
    assert found.method == "jackknife of 40 blocks"
    assert found.proven == (found.worst <= 0.5)


def test_the_jackknife_covers_the_true_loss(load):
    metric = load(CLASS + "Mean.margin = 0.5", "Mean")
    rng = np.random.default_rng(2)
    blocks = rng.permutation(400) % 40
    covered = 0
    for _ in range(200):
        before = rng.exponential(size=400)
        after = before - 0.2 + rng.normal(size=400)
        tables = [make_mean_table(values, blocks) for values in (before, after)]
        covered += compare(metric, *tables, options=OPTIONS).worst >= 0.2
    assert 0.91 <= covered / 200 <= 0.99


def test_equal_values_are_not_proof_on_few_samples(load):
    metric = load(CLASS + "Mean.is_share = True", "Mean")
    values = (np.arange(30) % 3 > 0).astype(float)
    table = make_mean_table(values, np.arange(30))

    found = compare(metric, table, table, options=OPTIONS)

    assert found.drop == 0
    assert not found.proven
    assert found.worst > 5
    assert compare(metric, table, table, options=OPTIONS, same_model=True).proven


def test_a_single_block_has_no_interval(load):
    metric = load(CLASS, "Mean")
    rows = tuple(build_rows(np.zeros(5, np.int64), 2.0, np.array([2.0])))
    found = compare(metric, Table(rows=rows), Table(rows=rows), options=OPTIONS)
    assert not found.proven
    assert "one block" in found.method


def test_slices_of_joint_values_are_undefined(load):
    metric = load(CLASS, "Mean")
    values = np.arange(20.0)
    table = make_mean_table(values, np.arange(20))
    found = compare_slices(
        metric, table, table, slices={"half": np.arange(20) // 10}, options=OPTIONS
    )
    assert [(each.before, each.interval) for each in found.values()] == [(None, None)] * 2


def describe(load, values, mismatched, lines=""):
    metric = load(FUNCTION + lines)
    rows = tuple(np.array(pair) for pair in zip(values, mismatched, strict=True))
    return find_meaningless(metric, Table(rows=rows), lambda: iter([]), OPTIONS)


def test_the_original_must_be_better_than_with_the_targets_of_other_samples(load):
    rng = np.random.default_rng(5)
    values, other = rng.uniform(0.5, 1, 200), rng.uniform(0, 0.5, 200)
    assert describe(load, values, other) == ""
    assert describe(load, other, values, "error.lower_is_better = True") == ""
    said = describe(load, other, values)
    assert "not significantly better than" in said
    assert "whether lower is better" in said
    assert describe(load, values, rng.permutation(values))
    assert describe(load, values, values)
    assert describe(load, np.ones(200), other) == "", "a perfect value may be constant"


def test_a_joint_value_must_be_better_than_with_the_targets_of_other_samples(load):
    metric = load(CLASS, "Mean")
    for other, is_fine in ((0.5, True), (1.0, False), (1.5, False)):
        rows = build_rows(np.arange(20), 1.0, np.linspace(0.9, 1.1, 20), other)
        said = find_meaningless(metric, Table(rows=tuple(rows)), lambda: iter([]), OPTIONS)
        assert (not said) == is_fine


@pytest.mark.parametrize("kind", ["function", "class"])
def test_a_constant_metric_is_meaningless(load, kind):
    def read():
        return iter([{"y": np.array(n)} for n in range(20)])

    varied, constant = np.arange(20.0), np.ones(20)
    for values, told in ((varied, ""), (constant, "is the same for all 20 samples")):
        if kind == "function":
            metric, table = load(FUNCTION), Table(rows=tuple(values[:, None]))
        else:
            metric, table = load(CLASS, "Mean"), make_mean_table(values, np.arange(20) % 10)
        said = find_meaningless(metric, table, read, OPTIONS)
        assert (told in said) if told else not said


@pytest.mark.parametrize(
    ("line", "helper"),
    [
        ("import {helper}", "{helper}.py"),
        ("from {helper} import scale", "{helper}.py"),
        ("from {helper}.inner import scale", "{helper}/inner.py"),
        ("import {helper}.inner", "{helper}/inner.py"),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_a_changed_helper_changes_the_metric(load, tmp_path, line, helper, inside):
    name = f"own_helper_{next(_numbers)}"
    file = tmp_path / helper.format(helper=name)
    file.parent.mkdir(exist_ok=True)
    file.write_text("scale = lambda: 1.0\n")
    imported = line.format(helper=name)
    used = "scale" if imported.startswith("from") else f"{imported.removeprefix('import ')}.scale"
    module = f"own_metrics_{next(_numbers)}"
    head, body = ("", f"    {imported}\n") if inside else (f"{imported}\n", "")
    (tmp_path / f"{module}.py").write_text(
        f"{head}def error(outputs, targets):\n{body}    return {used}() * outputs['a']\n"
    )
    first = get_metric(f"{module}:error", tmp_path)
    assert first.code.compute_values([{"a": np.array(1.0)}], [{}]).tolist() == [1]
    file.write_text("scale = lambda: 20.0\n")
    second = get_metric(f"{module}:error", tmp_path)

    assert first.code.digest != second.code.digest
    assert second.code.compute_values([{"a": np.array(1.0)}], [{}]).tolist() == [20]
