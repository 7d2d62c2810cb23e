"""Samples from CSV files: features by name or in order, targets, groups, and clear errors."""

from __future__ import annotations

import csv
import tracemalloc

import numpy as np
import pytest

from edgekit.data.column_rows import read_column
from edgekit.data.dataset import open_dataset
from edgekit.errors import UserError
from edgekit.model import Signature, TensorSpec


@pytest.fixture
def opened(tmp_path):
    def read(text, *specs, targets="required", name="data.csv", encoding="utf-8"):
        if isinstance(text, bytes):
            (tmp_path / name).write_bytes(text)
        elif text is not None:
            (tmp_path / name).write_text(text, encoding=encoding, newline="")
        specs = specs or (spec("features", "N", 2),)
        return open_dataset(
            name,
            Signature(inputs=specs, outputs=()),
            folder=tmp_path,
            cache=tmp_path / "cache",
            targets=targets,
        )

    return read


def spec(name, *shape, dtype="float32"):
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def inputs(dataset):
    return {column.name: read_column(column) for column in dataset.samples.columns}


@pytest.mark.parametrize("target", ["y", "label", "labels", "target"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_columns_are_features_in_their_order(opened, target, separator, encoding):
    text = f"a,{target},b\n1,2.5,-3e2\n4,7,0.25\n".replace(",", separator)
    found = opened(text, encoding=encoding)

    assert inputs(found)["features"].tolist() == [[1, -300], [4, 0.25]]
    assert inputs(found)["features"].dtype == np.float32
    assert [float(each["y"]) for each in found.read_targets()] == [2.5, 7]


def test_columns_with_the_names_of_inputs_feed_them(opened):
    specs = (
        spec("age", "N", 1, dtype="int64"),
        spec("rest", "N", 3),
        spec("height", "N"),
    )
    found = inputs(opened("p,height,q,age,r,y\n1,1.5,2,40,3,0\n4,1.75,5,50,6,1\n", *specs))

    assert found["age"].tolist() == [[40], [50]]
    assert found["age"].dtype == np.int64
    assert found["height"].tolist() == [1.5, 1.75]
    assert found["rest"].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_features_take_the_shape_of_the_input(opened):
    found = inputs(opened("a,b,c,d,y\n1,2,3,4,0\n", spec("x", 1, 2, 2)))

    assert found["x"].tolist() == [[[1, 2], [3, 4]]]


def test_targets_are_integers_if_all_are(opened):
    whole = next(opened("a,b,y\n1,2,3\n1,2,4.0\n").read_targets())["y"]
    broken = next(opened("a,b,y\n1,2,3\n1,2,4.5\n").read_targets())["y"]

    assert (whole.dtype, broken.dtype) == (np.int64, np.float64)


def test_further_targets_groups_and_slices(opened):
    found = opened(
        "group,a,b,y,y_weight,slice_city\n"
        'ann,1,2,0,0.5,Ulm\nbob,1,2,1,1,"Bonn, Rhein"\nann,1,2,1,2,Ulm\n'
    )

    assert [float(each["weight"]) for each in found.read_targets()] == [0.5, 1, 2]
    assert found.groups.tolist() == [0, 1, 0]
    assert found.slices["city"].tolist() == ["Ulm", "Bonn, Rhein", "Ulm"]


def test_a_second_reading_comes_from_the_cache_until_the_file_changes(tmp_path, opened):
    first = opened("a,b,y\n1,2,3\n")
    written = [p.stat().st_mtime_ns for p in sorted((tmp_path / "cache").rglob("*.npy"))]
    again = opened("a,b,y\n1,2,3\n")
    kept = [p.stat().st_mtime_ns for p in sorted((tmp_path / "cache").rglob("*.npy"))]
    changed = opened("a,b,y\n1,2,4\n")

    assert again.digest == first.digest != changed.digest
    assert kept == written
    assert int(next(changed.read_targets())["y"]) == 4


def test_a_quoted_cell_of_several_lines_does_not_shift_line_numbers(opened):
    text = 'a,b,y,group\n1,2,0,"two\nlines"\n\n1,oops,0,x\n'

    with pytest.raises(UserError, match="line 5: column b: 'oops' is not a number"):
        opened(text)


def test_a_large_table_is_never_in_memory_as_a_whole(tmp_path, opened):
    rows, columns = 3000, 300
    with (tmp_path / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([f"f{i}" for i in range(columns)] + ["y"])
        for i in range(rows):
            writer.writerow([f"{i * 0.5 + j:.6f}" for j in range(columns)] + [i % 3])
    size = (tmp_path / "data.csv").stat().st_size

    tracemalloc.start()
    found = opened(None, spec("x", "N", columns))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert found.count == rows
    assert read_column(found.samples.columns[0])[7, 3] == pytest.approx(6.5)
    assert peak < 40 << 20
    assert size > 8 << 20


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no header"),
        ("\n", "has no header"),
        ("a,b,y\n", "has no samples"),
        ("1,2,3\n4,5,6\n", "the first line has numbers, not the names"),
        ("a,a,y\n1,2,3\n", "column 2: a second column a"),
        ("a,,y\n1,2,3\n", "column 2: has no name"),
        ("a,b,y,label\n1,2,3,4\n", "the columns y and label are both the target"),
        ("a,b\n1,2\n", "no labels"),
        ("a,b,c,y\n1,2,3,4\n", "3 columns feed the input features float32 [N, 2], which takes 2"),
        ("a,y\n1,2\n", "1 columns feed the input"),
        ("a,b,y\n1,2\n", "line 2: has 2 cells, the header 3"),
        ("a,b,y\n1,2,3\n1,2,3,4\n", "line 3: has 4 cells, the header 3"),
        ("a,b,y\n1,red,3\n", "line 2: column b: 'red' is not a number"),
        ("a,b,y\n1,2,cat\n", "line 2: column y: 'cat' is not a number"),
        ("a,b,y\n1,,3\n", "line 2: column b: no value (empty)"),
        ("a,b,y\n1,2,3\n1,NaN,3\n", "line 3: column b: no value (NaN)"),
        ("a,b,y\n1,inf,3\n", "line 2: column b: no value (inf)"),
        ("a,b,y\n1,1_000,3\n", "line 2: column b: '1_000' is not a number"),
        ("a;b;y\n1,5;2;3\n", "line 2: column a: '1,5' is not a number"),
        ("a,b,y\n1,1e39,3\n", "line 2: column b: 1e+39 is not a value of float32"),
        ('a,b,y\n1,"2,3\n', "line 2: has 2 cells"),
        (b"a,b,y\n1,\xff,3\n", "cannot be read"),
        ("a,b,y\n1," + "2" * 200_000 + ",3\n", "not CSV: field larger than field limit"),
        ("a,b,y\n1," + "2" * (1 << 20) + ",3\n", "line 2: is longer than 1 MiB"),
        ("a,b,y,group\n1,2,3," + "g" * 300 + "\n", "column group: a text is longer than 200"),
        ("a,b,sequence,y\n1,2,0.5,3\n", "sequence: must be one text or integer"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_table_is_refused_with_line_and_column(opened, text, complaint):
    with pytest.raises(UserError) as refused:
        opened(text)

    assert complaint in str(refused.value)
    assert str(refused.value).startswith("data.csv: ")
    assert "\n" not in refused.value.message


def test_integers_of_an_input_must_be_integers_of_its_type(opened):
    for cell in ("1.5", "300", "-1"):
        with pytest.raises(UserError, match=f"line 2: column a: {cell} is not a value of uint8"):
            opened(f"a,y\n{cell},0\n", spec("a", "N", 1, dtype="uint8"))


def test_features_that_could_feed_several_inputs_are_refused(opened):
    with pytest.raises(UserError, match="the columns p match no input, and several inputs"):
        opened("p,y\n1,0\n", spec("a", "N", 1), spec("b", "N", 1))
    with pytest.raises(UserError, match="the columns id feed no input"):
        opened("a,b,id,y\n1,2,3,0\n", spec("a", "N", 1), spec("b", "N", 1))
