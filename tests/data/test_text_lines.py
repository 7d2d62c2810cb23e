"""Samples from JSON lines of text: tokens, padding, labels, and clear errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tokenizers

from edgekit.config.project import FileSettings
from edgekit.config.text import TextSettings
from edgekit.data.column_rows import read_column
from edgekit.data.dataset import open_dataset
from edgekit.data.text_lines import read_line_texts
from edgekit.errors import UserError
from edgekit.model import Signature, TensorSpec

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "on", "mat"]
BERT = ("input_ids", "attention_mask", "token_type_ids")


def save_tokenizer(path, **special):
    ids = {word: number for number, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    if special:
        made.enable_padding(**special)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save(str(path))


@pytest.fixture
def opened(tmp_path):
    save_tokenizer(tmp_path / "tokenizer.json")

    def read(
        lines,
        *names,
        size="T",
        dtype="int64",
        targets="optional",
        name="data.jsonl",
        settled=None,
        **settings,
    ):
        if isinstance(lines, bytes):
            (tmp_path / name).write_bytes(lines)
        else:
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (tmp_path / name).write_text(text, encoding="utf-8")
        specs = [
            TensorSpec(name=n, dtype=dtype, shape=("N", size)) for n in names or ("input_ids",)
        ]
        found = open_dataset(
            name,
            Signature(inputs=tuple(specs), outputs=()),
            folder=tmp_path,
            cache=tmp_path / "cache",
            files=FileSettings(text=settled or TextSettings(**settings)),
            targets=targets,
        )
        return {c.name: read_column(c).tolist() for c in found.samples.columns}, found

    return read


def test_texts_become_the_inputs_of_the_model(opened):
    rows, _ = opened([{"text": "the cat"}, {"text": "cat", "text_pair": "dog mat"}], *BERT)

    assert rows["input_ids"] == [[2, 4, 5, 3, 0, 0], [2, 5, 3, 1, 8, 3]]
    assert rows["attention_mask"] == [[1, 1, 1, 1, 0, 0], [1] * 6]
    assert rows["token_type_ids"] == [[0] * 6, [0, 0, 0, 1, 1, 1]]


def test_other_names_and_types_of_inputs(opened):
    rows, found = opened(
        [{"text": "the cat"}], "segment_ids", "input_mask", "position_ids", "ids", dtype="int32"
    )

    assert rows["ids"] == [[2, 4, 5, 3]]
    assert rows["position_ids"] == [[0, 1, 2, 3]]
    assert rows["input_mask"] == [[1] * 4]
    assert {c.dtype for c in found.samples.columns} == {"int32"}


@pytest.mark.parametrize(("size", "settings"), [("T", {"length": 5}), (5, {})])
def test_texts_are_cut_or_padded_to_the_length(opened, size, settings):
    lines = [{"text": "the cat sat on the mat"}, {"text": "mat"}]
    rows, _ = opened(lines, "input_ids", "attention_mask", size=size, **settings)

    assert rows["input_ids"] == [[2, 4, 5, 6, 3], [2, 8, 3, 0, 0]]
    assert rows["attention_mask"] == [[1] * 5, [1, 1, 1, 0, 0]]


def test_texts_keep_their_lengths_if_the_model_leaves_them_free(opened):
    lines = [{"text": "the cat sat"}, {"text": "mat"}, {"text": "cat", "text_pair": "mat"}]

    _, found = opened(lines, *BERT)

    assert [column.name for column in found.samples.lengths] == list(BERT)
    for column in found.samples.lengths:
        assert read_column(column).tolist() == [5, 3, 5]
    assert not opened(lines, *BERT, length=6)[1].samples.lengths
    assert not opened(lines, *BERT, size=6)[1].samples.lengths
    assert not opened(lines[::2], *BERT)[1].samples.lengths


def test_a_text_without_tokens_is_refused_unless_it_is_padded(tmp_path, opened):
    ids = {word: number for number, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "plain.json"))
    lines = [{"text": "the cat"}, {"text": " "}]

    with pytest.raises(UserError, match=r"data\.jsonl: line 2: the text has no tokens"):
        opened(lines, tokenizer="plain.json")
    assert opened(lines, tokenizer="plain.json", length=2)[0]["input_ids"] == [[4, 5], [0, 0]]


def test_the_padding_token_is_that_of_the_tokenizer_or_the_settings(tmp_path, opened):
    save_tokenizer(tmp_path / "padded.json", pad_id=7, pad_token="on", length=12)
    lines = [{"text": "the cat"}, {"text": "cat"}]

    assert opened(lines, tokenizer="padded.json")[0]["input_ids"][1] == [2, 5, 3, 7]
    assert opened(lines, pad_id=6)[0]["input_ids"][1] == [2, 5, 3, 6]


@pytest.mark.parametrize(
    ("labels", "expected", "dtype"),
    [
        ([1, 0], [1, 0], "int64"),
        ([True, False], [1, 0], "int64"),
        ([0.5, 2], [0.5, 2], "float64"),
        ([[1, 2, 3], [4]], [[1, 2, 3], [4]], "int64"),
        (["ja", "日本"], [[106, 97], [0x65E5, 0x672C]], "int32"),
    ],
)
def test_labels_are_numbers_lists_or_texts(opened, labels, expected, dtype):
    _, found = opened([{"text": "cat", "label": each} for each in labels], targets="required")

    targets = [each["y"] for each in found.read_targets()]
    assert [each.tolist() for each in targets] == expected
    assert targets[0].dtype == dtype


def test_groups_and_slices(opened):
    lines = [
        {"text": "cat", "y": 0, "group": "ann", "slice_year": 2024},
        {"text": "mat", "y": 1, "group": "bob", "slice_year": 2025},
    ]
    _, found = opened(lines)

    assert found.groups.tolist() == [0, 1]
    assert found.slices["year"].tolist() == ["2024", "2025"]


def test_other_tokens_are_another_digest(tmp_path, opened):
    first = opened([{"text": "the cat"}])[1].digest
    assert opened([{"text": "the cat"}])[1].digest == first
    assert opened([{"text": "the cat"}], length=3)[1].digest != first
    save_tokenizer(tmp_path / "tokenizer.json", pad_id=5)
    assert opened([{"text": "the cat"}])[1].digest != first


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (b"", "has no samples"),
        (b"\n\n", "has no samples"),
        (b'{"text": "a"}\n{"text": 5}\n', "line 2: needs the field text"),
        (b'{"txt": "a"}\n', "line 1: needs the field text"),
        (b'["a"]\n', "line 1: not a JSON object"),
        (b'{"text": "a"\n', "line 1: not JSON"),
        (b'{"text": "a", "text": "b"}\n', "line 1: not JSON: the key 'text' is repeated"),
        (b'{"text": "\\ud800"}\n', "line 1: the text has half of a surrogate pair"),
        (b'{"text": "\xff"}\n', "line 1: not JSON"),
        (b"[" * 5000 + b"\n", "line 1: not JSON"),
        (b'{"text": "' + b"a" * (1 << 20) + b'"}\n', "line 1: is longer than 1 MiB"),
        (b'{"text": "a", "label": 0}\n\n{"text": "b"}\n', "line 3: has no label, unlike"),
        (b'{"text": "a"}\n{"text": "b", "label": 1}\n', "line 2: has a label, unlike"),
        (b'{"text": "a", "label": 0}\n{"text": "b", "label": "x"}\n', "line 2: label: of another"),
        (b'{"text": "a", "label": {}}\n', "line 1: label: must be a number, a text or a list"),
        (b'{"text": "a", "label": [1.5]}\n', "line 1: label: must be a number, a text or a list"),
        (b'{"text": "a", "group": 1.5}\n', "line 1: group: must be a text or an integer"),
        (b'{"text": "a", "group": "b"}\n{"text": "a"}\n', "line 2: group: must be"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_line_is_named(opened, lines, complaint):
    with pytest.raises(UserError) as refused:
        opened(lines)

    assert complaint in refused.value.message
    assert refused.value.message.startswith("data.jsonl: ")
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"version": "1.0", "model": null}'])
def test_a_wrong_tokenizer_is_named(tmp_path, opened, content):
    (tmp_path / "tokenizer.json").write_bytes(content)

    with pytest.raises(UserError, match=r"tokenizer\.json: not a tokenizer\.json that"):
        opened([{"text": "cat"}])


def test_a_missing_tokenizer_comes_with_the_setting(tmp_path, opened):
    with pytest.raises(UserError, match=r"no tokenizer: .*none\.json do not exist") as refused:
        opened([{"text": "cat"}], tokenizer="none.json")
    assert "[data.text] tokenizer" in refused.value.hint


def test_an_input_that_takes_no_tokens_is_named(opened):
    with pytest.raises(UserError, match=r"the input pixels int64 .* is not one of input_ids"):
        opened([{"text": "cat"}], "input_ids", "pixels")


def test_many_texts_are_read_quickly(opened):
    lines = [{"text": "the cat sat on the mat " * 20, "label": i % 2} for i in range(2000)]

    rows, _ = opened(lines, *BERT)

    assert np.shape(rows["input_ids"]) == (2000, 122)


def test_the_text_of_a_sample_is_found_by_its_number(opened):
    _, found = opened(b'{"text": "cat"}\n\n{"text": "mat", "text_pair": "on"}\n{"text": "sat"}\n')

    assert read_line_texts(found.lines, {1, 2}) == {1: "mat / on", 2: "sat"}


def test_the_targets_of_a_language_model_are_the_next_tokens(opened):
    lines = [{"text": "the cat sat", "group": "a"}, {"text": "mat", "group": "b"}]
    next_token = TextSettings(targets="next-token")

    rows, found = opened(lines, "input_ids", "attention_mask", settled=next_token)

    assert rows["input_ids"] == [[2, 4, 5, 6], [2, 8, 0, 0]]
    assert rows["attention_mask"] == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert [read_column(c).tolist() for c in found.samples.lengths] == [[4, 2], [4, 2]]
    assert [each["y"].tolist() for each in found.read_targets()] == [[4, 5, 6, 3], [8, 3]]
    assert found.groups.tolist() == [0, 1]


def test_next_tokens_of_texts_of_one_length_are_padded_with_an_ignored_label(opened):
    lines = [{"text": "the cat sat on"}, {"text": "mat"}]
    next_token = TextSettings(targets="next-token", length=3)

    rows, found = opened(lines, settled=next_token)

    assert rows["input_ids"] == [[2, 4, 5], [2, 8, 0]]
    assert [each["y"].tolist() for each in found.read_targets()] == [[4, 5, 3], [8, 3, -1]]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ({"text": "the cat", "label": 1}, "line 2: has a label, but the targets are the next"),
        ({"text": "the"}, "line 2: the text has no next token"),
    ],
)
def test_a_line_without_next_tokens_of_its_own_is_named(tmp_path, opened, line, complaint):
    ids = {word: number for number, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "plain.json"))
    settings = TextSettings(targets="next-token", tokenizer="plain.json")

    with pytest.raises(UserError, match=complaint):
        opened([{"text": "the cat"}, line], settled=settings)
