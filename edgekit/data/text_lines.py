"""JSON lines of text as samples: token numbers for the inputs of a language model."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bounded_reading import read_regular
from edgekit.config.text import TextSettings
from edgekit.data.cached_arrays import Locate, build_cached_table, open_rows, save_array
from edgekit.data.csv_rows import check_label, to_narrow_array
from edgekit.data.groups import GROUP, SLICE
from edgekit.data.sample_errors import raise_user_errors
from edgekit.data.table import SampleReading, Table
from edgekit.errors import UserError, first_line
from edgekit.model import TensorSpec
from edgekit.progress import Tick
from edgekit_agent import strictjson
from edgekit_agent.files import open_regular, sha256_of
from edgekit_agent.metrics.ragged import get_length_name
from edgekit_agent.preprocess.settings import Text
from edgekit_agent.preprocess.texts import (
    ROLES,
    check_text,
    choose_pad_id,
    encode_text,
    fill_row,
    find_role,
    load_tokenizer,
)

LINES = (".jsonl", ".ndjson")
_VERSION = 2
_TOKENIZER = "tokenizer.json"
_LABELS = ("label", "y")
_LONGEST_LINE = 1 << 20
MOST_TOKENIZER_BYTES = 1 << 26
_MOST_PADDED = 1 << 26
# Target of padding; metrics do not score it with ignore = -1.
_NO_TOKEN = -1


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A sample: its text, a second one if any, and all fields."""

    number: int
    text: str
    pair: str | None
    fields: Mapping[str, Any]


@dataclass(kw_only=True)
class _Labels:
    """Targets, groups and slices of all samples."""

    targets: list[Any] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)


def read_text_lines(
    source: str,
    path: Path,
    cache: Path,
    *,
    folder: Path,
    settings: TextSettings | None,
    inputs: Sequence[TensorSpec],
    tick: Tick,
) -> Table:
    """Read a file with a JSON object on each line: ``text``, ``label``, ``group``, ``slice_NAME``.

    If neither settings nor model give a length, each text keeps its own.

    Args:
        source: Name of the source, for messages.
        path: The file.
        cache: Folder for the arrays.
        folder: Project folder.
        settings: Tokenizer and length.
        inputs: Inputs of the model that the samples feed.
        tick: Progress callback.

    Raises:
        UserError: A line is wrong, the tokenizer cannot be read, or an input is no known one.
    """
    settings = settings or TextSettings()
    place = _find_tokenizer(source, path, folder, settings)
    tokenizer = _load_tokenizer(place)
    pad_id = choose_pad_id(tokenizer) if settings.pad_id is None else settings.pad_id
    tokenizer.no_padding()
    tokenizer.no_truncation()
    roles = {spec.name: _find_role(source, spec) for spec in inputs}
    length = settings.length or _find_fixed_length(inputs)
    is_next = settings.targets == "next-token"
    first = next(_iter_lines(source, path), None)
    if first is None:
        raise UserError(f"{source}: has no samples")
    names = _list_label_names(_set_next_tokens(first, [], None, source) if is_next else first)
    lengths = [] if length else [get_length_name(name) for name in roles]

    def fill(locate: Locate) -> None:
        size = length or max(1, _find_longest(tokenizer, _iter_lines(source, path)) - is_next)
        if length:
            tokenizer.enable_truncation(length + is_next)
        labels = _Labels(texts={name: [] for name in names if name in first.fields})
        counts: list[int] = []
        with ExitStack() as stack:
            append = {
                spec.name: stack.enter_context(open_rows(locate(spec.name), spec.dtype, (size,)))
                for spec in inputs
            }
            for line in _iter_lines(source, path):
                tick(f"reading {source}", line.number, line.number)
                tokens = _encode(tokenizer, line, source)
                count = len(tokens.ids) - is_next
                if count < 1 and (is_next or not length):
                    raise _build_empty_error(source, line, is_next=is_next)
                counts.append(count)
                for name, role in roles.items():
                    append[name](fill_row(tokens, role, size, count, pad_id)[np.newaxis])
                if is_next:
                    line = _set_next_tokens(line, tokens.ids[1:], length, source)
                _add_labels(labels, line, names, source)
        for name in lengths:
            save_array(locate(name), np.array(counts))
        _save_labels(source, labels, names, locate)

    facts = json.dumps(
        [_VERSION, sha256_of(str(path)), sha256_of(str(place)), repr(settings), length]
        + [repr(spec) for spec in inputs]
    )
    arrays = [*roles, *lengths, *names]
    table = build_cached_table(source, f"text {facts}", arrays, fill, cache)
    how = Text(_TOKENIZER, length, pad_id, roles, is_next)
    return replace(table, lines=path, reading=SampleReading(text=how, tokenizer=place))


def _build_empty_error(source: str, line: _Line, *, is_next: bool) -> UserError:
    where = f"{source}: line {line.number}"
    if is_next:
        return UserError(f"{where}: the text has no next token", hint="give at least two tokens")
    return UserError(
        f"{where}: the text has no tokens",
        hint="remove the line, or set [data.text] length to pad all texts to one length",
    )


def _set_next_tokens(line: _Line, following: list[int], length: int | None, source: str) -> _Line:
    """Return a line whose label is the token after each one.

    Args:
        line: The line.
        following: The tokens of the text from the second one on.
        length: Length of all samples, to which the label is padded; ``None`` = that of the text.
        source: Name of the source, for messages.
    """
    own = next((name for name in _LABELS if name in line.fields), None)
    if own is not None:
        raise UserError(
            f"{source}: line {line.number}: has a {own}, but the targets are the next tokens",
            hint='remove it, or targets = "next-token" from [data.text]',
        )
    padding = [_NO_TOKEN] * ((length or 0) - len(following))
    return replace(line, fields={**line.fields, _LABELS[0]: [*following, *padding]})


def read_line_texts(path: Path, numbers: Collection[int]) -> dict[int, str]:
    """Read the texts of some samples of a file of JSON lines, by their numbers from 0.

    Raises:
        UserError: A line is wrong.
    """
    found: dict[int, str] = {}
    for place, line in enumerate(_iter_lines(str(path), path)):
        if place in numbers:
            found[place] = line.text if line.pair is None else f"{line.text} / {line.pair}"
        if len(found) == len(numbers):
            break
    return found


def _find_tokenizer(source: str, path: Path, folder: Path, settings: TextSettings) -> Path:
    if settings.tokenizer is not None:
        places = [folder / settings.tokenizer]
    else:
        places = [path.with_name(_TOKENIZER), folder / _TOKENIZER]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserError(
            f"{source}: no tokenizer: {' and '.join(map(str, places))} do not exist",
            hint="set [data.text] tokenizer to the tokenizer.json of the model",
        )
    return found


def _load_tokenizer(place: Path) -> Any:  # noqa: ANN401 - the library has no types
    with raise_user_errors():
        try:
            data = read_regular(place, MOST_TOKENIZER_BYTES)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{place}: not a tokenizer.json that can be read: {first_line(error)}"
            ) from error
        return load_tokenizer(data, str(place))


def _find_role(source: str, spec: TensorSpec) -> str:
    """Return what an input takes, by its name."""
    role = find_role(spec.name)
    if role is None or len(spec.shape) != 2:
        raise UserError(
            f"{source}: the input {spec} is not one of {', '.join(ROLES)} [batch, tokens]",
            hint="make other inputs constants in [model.inputs.NAME], or write an .npz",
        )
    return role


def _find_fixed_length(inputs: Sequence[TensorSpec]) -> int | None:
    sizes = {spec.shape[1] for spec in inputs if isinstance(spec.shape[1], int)}
    found = min(sizes) if sizes else None
    return found if isinstance(found, int) else None


def _find_longest(tokenizer: Any, lines: Iterator[_Line]) -> int:  # noqa: ANN401 - no types
    return max(1, max(len(_encode(tokenizer, line, "").ids) for line in lines))


def _encode(tokenizer: Any, line: _Line, source: str) -> Any:  # noqa: ANN401 - no types
    with raise_user_errors():
        return encode_text(tokenizer, line.text, line.pair, f"{source}: line {line.number}")


def _iter_lines(source: str, path: Path) -> Iterator[_Line]:
    with open_regular(str(path)) as file:
        number = 0
        while data := file.readline(_LONGEST_LINE):
            number += 1
            where = f"{source}: line {number}"
            if len(data) == _LONGEST_LINE:
                raise UserError(f"{where}: is longer than {_LONGEST_LINE >> 20} MiB")
            if data.strip():
                yield _parse_line(data, number, where)


def _parse_line(data: bytes, number: int, where: str) -> _Line:
    try:
        fields = strictjson.loads(data)
    except ValueError as error:
        raise UserError(f"{where}: not JSON: {first_line(error)}") from error
    if not isinstance(fields, dict):
        raise UserError(f"{where}: not a JSON object", hint='{"text": "...", "label": 0}')
    text, pair = fields.get("text"), fields.get("text_pair")
    if not isinstance(text, str) or not isinstance(pair, str | None):
        raise UserError(f"{where}: needs the field text, a string")
    with raise_user_errors():
        check_text(text + (pair or ""), where)
    return _Line(number=number, text=text, pair=pair, fields=fields)


def _list_label_names(first: _Line) -> list[str]:
    """Return the names of arrays besides the inputs, as the first line has them."""
    target = next((name for name in _LABELS if name in first.fields), None)
    others = [n for n in first.fields if n == GROUP or n.startswith(SLICE)]
    if target is None:
        return others
    is_list = isinstance(first.fields[target], list)
    return ["y", *(["y_length"] if is_list else []), *others]


def _add_labels(labels: _Labels, line: _Line, names: Sequence[str], source: str) -> None:
    where = f"{source}: line {line.number}"
    target = next((name for name in _LABELS if name in line.fields), None)
    if (target is not None) != ("y" in names):
        told = "has no label" if target is None else "has a label"
        raise UserError(f"{where}: {told}, unlike the first line")
    if target is not None:
        labels.targets.append(_check_target(line.fields[target], f"{where}: {target}"))
        if type(labels.targets[0]) is not type(labels.targets[-1]):
            raise UserError(f"{where}: {target}: of another type than on the first line")
    for name, texts in labels.texts.items():
        value = line.fields.get(name)
        if not isinstance(value, str | int):
            raise UserError(f"{where}: {name}: must be a text or an integer")
        texts.append(check_label(str(value), f"{where}: {name}"))


def _check_target(value: object, where: str) -> float | str | list[int]:
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(type(each) is int for each in value):
        return value
    raise UserError(f"{where}: must be a number, a text or a list of integers")


def _save_labels(source: str, labels: _Labels, names: Sequence[str], locate: Locate) -> None:
    for name, texts in labels.texts.items():
        save_array(locate(name), np.array(texts, np.str_))
    if "y" not in names:
        return
    if "y_length" not in names:
        is_text = isinstance(labels.targets[0], str)
        values: NDArray[Any] = (
            np.array(labels.targets, np.str_) if is_text else to_narrow_array(labels.targets)
        )
        save_array(locate("y"), values)
        return
    lengths = np.array([len(each) for each in labels.targets])
    if len(lengths) * int(lengths.max()) > _MOST_PADDED:
        raise UserError(
            f"{source}: {len(lengths)} lists of labels, padded to {lengths.max()} numbers, are too "
            "many"
        )
    padded = np.zeros((len(lengths), max(1, int(lengths.max()))), np.int64)
    for row, each in zip(padded, labels.targets, strict=True):
        row[: len(each)] = each
    save_array(locate("y"), padded)
    save_array(locate("y_length"), lengths)
