"""Samples from files of every kind, row by row, and clear errors."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from edgekit.config.project import PreprocessSettings
from edgekit.data.dataset import open_dataset
from edgekit.data.input_settings import Feeding
from edgekit.errors import UserError
from edgekit.model import Signature, TensorSpec
from edgekit_agent.measure.feeds import iter_batches
from edgekit_agent.runtimes import Tensor

X = np.arange(60, dtype=np.float32).reshape(5, 12)
LABEL = np.array([3, 1, 4, 1, 5])


def signature(*shape, name="features", dtype="float32"):
    return Signature(inputs=(TensorSpec(name=name, dtype=dtype, shape=shape),), outputs=())


@pytest.fixture
def opened(tmp_path):
    def read(source, wanted=None, **how):
        wanted = wanted or signature("N", 12)
        how = {"targets": "required"} | how
        return open_dataset(source, wanted, folder=tmp_path, cache=tmp_path / "cache", **how)

    return read


def rows(dataset, wanted):
    tensors = [
        Tensor(s.name, s.dtype, tuple("?" if d is None else d for d in s.shape))
        for s in wanted.inputs
    ]
    found = list(iter_batches(dataset.samples, tensors, 1))
    inputs = {s.name: np.concatenate([b.inputs[s.name] for b in found]) for s in wanted.inputs}
    labels = dataset.samples.label and np.concatenate([b.labels for b in found])
    return inputs, labels


def save_stored(folder):
    np.savez(folder / "data.npz", x=X, label=LABEL, slice_night=LABEL > 2)
    return "data.npz"


def save_compressed(folder):
    np.savez_compressed(folder / "data.npz", features=X, y=LABEL, slice_night=LABEL > 2)
    return "data.npz"


def save_folder(folder):
    (folder / "data").mkdir()
    for name, array in {"x": X, "labels": LABEL, "slice_night": LABEL > 2}.items():
        np.save(folder / "data" / f"{name}.npy", array)
    return "data"


def save_function(folder):
    (folder / "my_own_data.py").write_text(
        "import numpy as np\n"
        "def load():\n"
        "    label = np.array([3, 1, 4, 1, 5])\n"
        "    x = np.arange(60, dtype=np.float32).reshape(5, 12)\n"
        "    return {'x': x, 'label': label[:, None], 'slice_night': label > 2}\n"
    )
    return "my_own_data:load"


@pytest.mark.parametrize("save", [save_stored, save_compressed, save_folder, save_function])
def test_every_kind_of_source_gives_the_same_rows_and_labels(tmp_path, opened, save):
    found = opened(save(tmp_path))

    inputs, labels = rows(found, signature("N", 12))
    np.testing.assert_array_equal(inputs["features"], X)
    np.testing.assert_array_equal(labels.ravel(), LABEL)
    assert found.count == 5


def test_the_first_samples_are_a_cut_of_everything(tmp_path, opened):
    found = opened(save_stored(tmp_path)).first(2)

    inputs, labels = rows(found, signature("N", 12))
    np.testing.assert_array_equal(inputs["features"], X[:2])
    assert labels.tolist() == [3, 1]
    assert opened("data.npz").first(99).count == 5


def test_several_inputs_are_bound_by_name_in_the_models_order(tmp_path, opened):
    np.savez(tmp_path / "data.npz", b=X[:, :3], a=X, label=LABEL)
    wanted = Signature(
        inputs=(
            TensorSpec(name="a", dtype="float32", shape=(None, 12)),
            TensorSpec(name="b", dtype="float32", shape=("N", "L")),
        ),
        outputs=(),
    )
    found = opened("data.npz", wanted)

    assert [c.name for c in found.samples.columns] == ["a", "b"]
    np.testing.assert_array_equal(rows(found, wanted)[0]["b"], X[:, :3])


@pytest.mark.parametrize("save", [save_stored, save_compressed, save_folder])
def test_other_contents_or_preprocessing_have_another_digest(tmp_path, opened, save):
    source = save(tmp_path)
    first = opened(source).digest
    scaled = opened(source, settings=PreprocessSettings(scale=0.5)).digest
    if save is save_folder:
        np.save(tmp_path / "data" / "x.npy", X + 1)
    else:
        np.savez(tmp_path / source, x=X + 1, label=LABEL)

    assert len({first, scaled, opened(source).digest}) == 3


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_large_split_is_never_in_memory_as_a_whole(tmp_path, opened, save):
    x = np.random.default_rng(0).integers(0, 255, (1600, 64, 64, 3), np.uint8)
    save(tmp_path / "data.npz", x=x, label=np.zeros(1600, np.int64))
    size, wanted = x.nbytes, signature(None, 64, 64, 3, dtype="uint8")
    del x

    tracemalloc.start()
    found = opened("data.npz", wanted)
    read = sum(
        b.rows
        for b in iter_batches(found.samples, [Tensor("features", "uint8", ("N", 64, 64, 3))], 1)
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert read == 1600
    assert peak < size / 2


# ---------------------------------------------------------------- images


def picture(path, color, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


RED, BLUE = (255, 0, 0), (0, 0, 255)
PIXELS = signature("N", 6, 8, 3, dtype="uint8")


def test_a_folder_per_class_gives_its_number_as_label_and_hidden_ones_do_not_count(
    tmp_path, opened
):
    picture(tmp_path / "data" / "cat" / "1.png", RED)
    picture(tmp_path / "data" / "dog" / "2.png", BLUE)
    picture(tmp_path / "data" / ".thumbnails" / "1.png", RED)

    inputs, labels = rows(opened("data", PIXELS), PIXELS)

    assert labels.tolist() == [0, 1]
    assert inputs["features"][:, 0, 0].tolist() == [list(RED), list(BLUE)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_of_labels_may_come_from_a_spreadsheet(tmp_path, opened, encoding):
    picture(tmp_path / "data" / "a.png", RED)
    picture(tmp_path / "data" / "b.png", BLUE)
    table = "file,label\nb.png,7\na.png,2\n"
    (tmp_path / "data" / "labels.csv").write_text(table, encoding=encoding)

    inputs, labels = rows(opened("data", PIXELS), PIXELS)

    assert labels.tolist() == [7, 2]
    assert inputs["features"][0, 0, 0].tolist() == list(BLUE)


def test_images_are_resized_cropped_scaled_and_turned_as_the_settings_say(tmp_path, opened):
    picture(tmp_path / "data" / "a" / "1.png", RED, size=(40, 20))
    wanted = signature("N", 3, 8, 8)
    settings = PreprocessSettings(
        resize=10, crop=8, scale=1 / 255, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), layout="NCHW"
    )
    inputs, _ = rows(opened("data", wanted, settings=settings), wanted)

    assert inputs["features"].shape == (1, 3, 8, 8)
    np.testing.assert_allclose(inputs["features"][0, :, 4, 4], [1, -1, -1], atol=1e-6)


def test_images_of_several_sizes_are_refused_with_the_setting_that_helps(tmp_path, opened):
    picture(tmp_path / "data" / "a" / "1.png", RED, size=(8, 6))
    picture(tmp_path / "data" / "a" / "2.png", RED, size=(9, 6))

    with pytest.raises(UserError, match=r"2\.png is 9x6, the others are 8x6") as refused:
        opened("data", PIXELS)
    assert "resize" in refused.value.hint


@pytest.mark.parametrize(
    "damage", [lambda d: d[: len(d) // 2], lambda d: b"GIF89a" + d, lambda d: b""]
)
def test_a_damaged_image_is_named(tmp_path, opened, damage):
    path = tmp_path / "data" / "a" / "broken.png"
    picture(path, RED)
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(UserError, match=r"broken\.png: not an image"):
        opened("data", PIXELS)


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (b"name,label\na.png,1\n", "line 1: the columns file and one of label"),
        (b"file,name\na.png,1\n", "line 1: the columns file and one of label"),
        (b"file,label,text\na.png,1,one\n", "line 1: the columns file and one of label"),
        (b"file,label\na.png,cat\n", "line 2: the columns file and label .a number. are needed"),
        (b"file,label\na.png,\n", "line 2: the columns file and label"),
        (b"file,label\na.png\n", "line 2: has 1 cells, the header 2"),
        (b"file,label\nb.png,1\n", r"line 2: no file 'b\.png' in data"),
        (b"file,label\n.,1\n", r"line 2: no file '\.' in data"),
        (b"file,text\na.png," + b"x" * 10_001 + b"\n", "line 2: the text is longer than 10000"),
        (b"file,label\n\xff\xfe.png,1\n", "cannot be read"),
        (b"", "contains neither"),
    ],
)
def test_a_wrong_table_of_labels_is_refused_with_its_line(tmp_path, opened, table, complaint):
    picture(tmp_path / "data" / "a.png", RED)
    (tmp_path / "data" / "labels.csv").write_bytes(table)

    with pytest.raises(UserError, match=complaint):
        opened("data", PIXELS)


def test_an_unused_array_is_noted_with_the_most_similar_input(tmp_path, opened):
    np.savez(
        tmp_path / "d.npz", features=X, label=LABEL, slice_a=LABEL, sequence=LABEL,
        sequnce=LABEL, weather=X[:, 0],
    )  # fmt: skip
    assert opened("d.npz").notes == (
        "d.npz: the array sequnce matches no input and is not used; did you mean 'sequence'?",
        "d.npz: the array weather matches no input and is not used",
    )


def test_an_array_that_feeds_a_single_input_as_x_is_used(tmp_path, opened):
    np.savez_compressed(tmp_path / "d.npz", x=X, y=LABEL)
    assert opened("d.npz").notes == ()


def test_an_array_of_a_constant_input_is_noted(tmp_path, opened):
    wanted = Signature(
        inputs=(
            *signature("N", 12).inputs,
            TensorSpec(name="rate", dtype="int64", shape=()),
        ),
        outputs=(),
    )
    np.savez(tmp_path / "d.npz", features=X, label=LABEL, rate=LABEL)
    made = opened("d.npz", wanted, feeding=Feeding(constants={"rate": np.array(16000)}))
    assert made.notes == (
        "d.npz: the array rate is not used, as edgekit.toml makes this input a constant",
    )


def test_a_function_that_ends_the_process_is_named(tmp_path, opened):
    (tmp_path / "ends_early.py").write_text("def rows():\n    raise SystemExit(3)\n")
    with pytest.raises(UserError, match="ends_early:rows: SystemExit: 3"):
        opened("ends_early:rows")
