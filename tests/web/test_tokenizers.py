"""Texts become the same tokens in the page as by the library of other devices."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from edgekit.packaging.web.tokenizers import KNOWN, find_unknown_part
from tests.web.node_calls import NodeError, run_tokenizer

tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
decoders, models = tokenizers.decoders, tokenizers.models
normalizers, splits = tokenizers.normalizers, tokenizers.pre_tokenizers
processors, trainers = tokenizers.processors, tokenizers.trainers

_TEXTS = [
    "The patient's temperature is 38.5 °C, and she doesn't cough.",
    "Ärzte prüfen die Größe; ça va, naïve café résumé!",
    "中文字符 and 日本語 mixed, 한국어도",
    "  leading   spaces\tand\nnew\r\nlines  \n\n",
    "",
    " ",
    "emoji 😀👩‍⚕️ and symbols €$^`~<>|+=",
    "UPPER lower MiXeD ΑΒΓΣ ςίγμα İstanbul",
    "control\x00\x07\u200b\u00ad\ufeffcharacters\ufffd",
    "numbers 12345 67,89 ½ ² ٣٤",
    "don't we'll I'd they've 'quoted' x'y",
    "a[MASK]b [CLS] [mask] [SEP]<x> tail",
    "e\u0301\u0323 combining \u1e69 ﬁ ligature Ⅷ",
    "a" * 150 + " " + "unbelievable" * 3,
    "snake_case and hyphen-ated words... (really?)",
    "नमस्ते दुनिया สวัสดี",
]
_CORPUS = _TEXTS * 3
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def _train(made: Any, trainer: Any) -> Any:
    made.train_from_iterator(_CORPUS, trainer)
    return made


def _make_bert(*, lowercase: bool = True, strip: bool | None = None, clean: bool = True) -> Any:
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(
        clean_text=clean, handle_chinese_chars=True, strip_accents=strip, lowercase=lowercase
    )
    made.pre_tokenizer = splits.BertPreTokenizer()
    made = _train(made, trainers.WordPieceTrainer(vocab_size=300, special_tokens=_SPECIAL))
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.decoder = decoders.WordPiece()
    return made


def _make_byte_level(*, prefix: bool) -> Any:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = splits.ByteLevel(add_prefix_space=prefix)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=splits.ByteLevel.alphabet()
    )
    made = _train(made, trainer)
    made.post_processor = (
        processors.RobertaProcessing(("</s>", 1), ("<s>", 0), trim_offsets=True)
        if prefix
        else processors.ByteLevel(trim_offsets=False)
    )
    return made


def _make_words() -> Any:
    made = tokenizers.Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    made.pre_tokenizer = splits.Sequence([splits.Whitespace(), splits.Digits(True)])
    made = _train(made, trainers.WordLevelTrainer(special_tokens=_SPECIAL))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return made


def _make_metaspace() -> Any:
    made = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace("e", "é"), normalizers.Lowercase()]
    )
    made.pre_tokenizer = splits.Metaspace(prepend_scheme="first")
    made = _train(made, trainers.BpeTrainer(vocab_size=120, special_tokens=_SPECIAL))
    made.add_tokens(["unbelievable", tokenizers.AddedToken("mixed", lstrip=True, rstrip=True)])
    return made


def _make_suffixes() -> Any:
    made = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]", end_of_word_suffix="</w>"))
    made.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.Prepend("~")])
    made.pre_tokenizer = splits.Sequence([splits.WhitespaceSplit(), splits.Punctuation()])
    trainer = trainers.BpeTrainer(
        vocab_size=250, special_tokens=_SPECIAL, end_of_word_suffix="</w>"
    )
    return _train(made, trainer)


_MAKERS: dict[str, Callable[[], Any]] = {
    "bert": _make_bert,
    "bert with case": lambda: _make_bert(lowercase=False),
    "bert with accents": lambda: _make_bert(strip=False, clean=False),
    "bytes": lambda: _make_byte_level(prefix=False),
    "bytes after a space": lambda: _make_byte_level(prefix=True),
    "words": _make_words,
    "metaspace": _make_metaspace,
    "suffixes": _make_suffixes,
}


@pytest.mark.parametrize("name", list(_MAKERS))
def test_tokens_of_texts_and_pairs_are_those_of_the_library(name: str) -> None:
    """Numbers and types, of whole texts and of those that are cut."""
    made = _MAKERS[name]()
    cases: list[tuple[str, str | None, int | None]] = [(text, None, None) for text in _TEXTS]
    cases += [(text, None, 7) for text in _TEXTS]
    pairs = list(zip(_TEXTS, _TEXTS[3:] + _TEXTS[:3], strict=True))
    cases += [(*pair, most) for pair in pairs for most in (None, 9, 12, 30)]
    tokens, _ = run_tokenizer(made.to_str(), cases)
    for found, (text, pair, most) in zip(tokens, cases, strict=True):
        made.no_truncation()
        if most:
            made.enable_truncation(most)
        wanted = made.encode(text, pair)
        assert found["numbers"] == wanted.ids, (text, pair, most, wanted.tokens)
        assert found["types"] == wanted.type_ids


def test_tokens_of_bytes_are_decoded() -> None:
    """Whole characters, spaces, and nothing for special tokens."""
    made = _make_byte_level(prefix=False)
    numbers = list(range(made.get_vocab_size()))
    _, found = run_tokenizer(made.to_str(), numbers=numbers)
    assert found == [made.decode([number]) for number in numbers]


@pytest.mark.parametrize(("part", "kind"), [(p, kind) for p in KNOWN for kind in sorted(KNOWN[p])])
def test_packaging_knows_the_parts_that_the_page_knows(part: str, kind: str) -> None:
    """No part that is packaged is refused by the page as unknown."""
    settings: dict[str, Any] = {"model": {"type": "WordLevel", "vocab": {}}}
    details = {"normalizers": [], "pretokenizers": [], "processors": [], "prepend": "_"}
    pattern = {"pattern": {"String": "a"}, "content": "b", "sep": ["s", 1], "cls": ["c", 2]}
    more = {"single": [], "pair": [], "special_tokens": {}, "vocab": {}}
    settings[part] = {"type": kind, **details, **pattern, **more}
    text = json.dumps(settings)
    assert find_unknown_part(text.encode()) is None
    run_tokenizer(text, [("text", None, None)])


@pytest.mark.parametrize(
    "settings",
    [
        "", "{", "[]", "null", "{}", '{"model": 1}', '{"model": {"type": "Unigram"}}',
        '{"model": {"type": "WordPiece", "vocab": {"a": "b"}}}',
        '{"model": {"type": "BPE", "vocab": {}, "merges": 5}}',
        '{"model": {"type": "WordLevel", "vocab": {}}, "normalizer": {"type": "Precompiled"}}',
        '{"model": {"type": "WordLevel", "vocab": {}}, "pre_tokenizer": {"type": "Split"}}',
        '{"model": {"type": "WordLevel", "vocab": {}}, "post_processor": {"type": "toString"}}',
        '{"model": {"type": "WordLevel", "vocab": {}}, "added_tokens": 7}',
    ],
)  # fmt: skip
def test_tokenizers_that_are_damaged_or_not_known_are_one_clear_error(settings: str) -> None:
    """Told before any text is read."""
    with contextlib.suppress(ValueError):
        assert find_unknown_part(settings.encode()) or "added" in settings or "vocab" in settings
    with pytest.raises(NodeError) as caught:
        run_tokenizer(settings, [("text", None, None)])
    assert caught.value.kind in ("bad_job", "unsupported"), caught.value
    assert "tokenizer.json" in caught.value.message
