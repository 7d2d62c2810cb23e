"""Damaged and hostile variants of files and answers: bytes, text, JSON values, ONNX graphs."""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import zipfile
from collections.abc import Iterator
from random import Random
from typing import Any

from onnx import ModelProto

from benchmarks.fuzz.graphs import (
    change_graph,
)
from benchmarks.fuzz.values import BYTES, NUMBERS, TEXTS, TOKENS


def mutate_bytes(data: bytes, rng: Random) -> bytes:
    """Flip, cut, repeat and insert bytes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(out) + 1)
        size = rng.choice((1, 1, 2, 4, 16, 200))
        match rng.randrange(7):
            case 0 if out:
                at = min(at, len(out) - 1)
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at : at + size]
            case 2:
                out[at:at] = out[at : at + size] * rng.choice((1, 2, 50))
            case 3:
                out[at:at] = rng.randbytes(size)
            case 4:
                word = rng.choice(BYTES)
                out[at : at + len(word)] = word
            case 5 if rng.random() < 0.3:
                del out[at:]
            case _:
                other = rng.randrange(len(out) + 1)
                out[at : at + size] = out[other : other + size]
    return bytes(out)


def mutate_zip(data: bytes, rng: Random) -> bytes:
    """Damage members of an archive and rewrite it; sometimes damage the archive itself."""
    if rng.random() < 0.15:
        return mutate_bytes(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name in rng.sample(sorted(members), k=min(len(members), rng.choice((1, 1, 2)))):
        members[name] = _mutate_member(name, members[name], rng)
    if "manifest.json" in members and rng.random() < 0.6:
        _update_digests(members)
    if rng.random() < 0.1:
        members[rng.choice(TEXTS[3:])[:200]] = members.popitem()[1]
    buffer = io.BytesIO()
    with zipfile.ZipFile(
        buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return buffer.getvalue()


def _update_digests(members: dict[str, bytes]) -> None:
    """Update the digests of damaged members in the manifest, so that its check passes."""
    manifest = json.loads(members["manifest.json"])
    entries = manifest.get("files") if isinstance(manifest, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        name = entry.get("name") if isinstance(entry, dict) else None
        content = members.get(name) if isinstance(name, str) else None
        if content is not None:
            entry |= {"digest": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    members["manifest.json"] = json.dumps(manifest).encode()


def _mutate_member(name: str, data: bytes, rng: Random) -> bytes:
    if name.endswith(".json"):
        return json.dumps(mutate_json(json.loads(data), rng)).encode()
    if name.endswith(".npz"):
        return mutate_zip(data, rng)
    if name.endswith(".npy") and rng.random() < 0.8:
        return _mutate_array(data, rng)
    return mutate_bytes(data, rng)


def _mutate_array(data: bytes, rng: Random) -> bytes:
    """Change the header of an array: its type, order and shape."""
    start, end = data.index(b"{"), data.index(b"}") + 1
    header = data[start:end].decode()
    match rng.randrange(5):
        case 0:
            kind = rng.choice(("<f8", "|O", "<U9", "|V4", "<M8[ns]", "<c16", "|S3", "<i2", "|b1"))
            header = re.sub(r"'descr': '[^']*'", f"'descr': '{kind}'", header)
        case 1:
            shape = rng.choice(("(-1,)", "()", f"({1 << 40}, 8)", f"({1 << 62}, {1 << 62})", "8"))
            header = re.sub(r"\([^)]*\)", shape, header)
        case 2:
            header = header.replace("False", "True")
        case 3:
            header = header.replace("}", ", 'more': " + "[" * 300 + "]" * 300 + "}")
        case _:
            body = mutate_bytes(data[end:], rng)
            return data[:end] + body
    spare = 128 - 10 - len(header) - 1
    text = header.encode() + b" " * max(0, spare) + b"\n"
    rest = data[10 + int.from_bytes(data[8:10], "little") :]
    return data[:8] + len(text).to_bytes(2, "little") + text + rest


def mutate_tflite(data: bytes, rng: Random) -> bytes:
    """Change fields of a .tflite model so that it still parses, or sometimes its bytes."""
    if rng.random() < 0.15:
        return mutate_bytes(data, rng)
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        parts = [p for p in _parts(model) if vars(p)]
        part = rng.choice(parts)
        key = rng.choice(sorted(vars(part)))
        setattr(part, key, _mutate_value(getattr(part, key), rng))
    builder = flatbuffers.Builder(1024)
    try:
        builder.Finish(model.Pack(builder), b"TFL3")
    except (TypeError, ValueError, AttributeError, struct.error, OverflowError):
        return mutate_bytes(data, rng)  # fields that no file can hold
    return bytes(builder.Output())


def _parts(value: Any) -> Iterator[Any]:  # noqa: ANN401
    """Yield a table of a .tflite model and all tables in it."""
    yield value
    for inner in vars(value).values():
        for each in inner if isinstance(inner, list) else [inner]:
            if type(each).__name__.endswith("T") and hasattr(each, "__dict__"):
                yield from _parts(each)


def _mutate_value(value: Any, rng: Random) -> Any:  # noqa: ANN401
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((0, 1, -1, 2, 7, 127, (1 << 31) - 1, value + 1))
    if isinstance(value, float):
        return rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e38))
    if isinstance(value, bytes | str):
        return rng.choice(TEXTS).encode()
    if value is not None and hasattr(value, "dtype"):
        changed = value.copy()
        if changed.size:
            choice = (0, -1, 1, 5, 100, (1 << 31) - 1) if changed.dtype.itemsize > 1 else (0, 1, 99)
            changed[rng.randrange(changed.size)] = rng.choice(choice)
        return changed
    if isinstance(value, list) and value:
        return rng.choice((value[:-1], value + value[:1], list(reversed(value))))
    return None


def mutate_text(text: str, rng: Random) -> bytes:
    """Replace, repeat and swap words and lines, and sometimes bytes."""
    lines = text.split("\n")
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.randrange(len(lines))
        key, equals, _ = lines[at].partition(" = ")
        words = lines[at].split(" ")
        match rng.randrange(12):
            case place if place > 5:
                if equals:
                    words = [key, "=", rng.choice((*TOKENS, json.dumps(rng.choice(TEXTS))))]
            case 0:
                words[rng.randrange(len(words))] = rng.choice(TOKENS)
            case 1:
                words[-1] = rng.choice(TOKENS)
            case 2:
                words.insert(rng.randrange(len(words) + 1), json.dumps(rng.choice(TEXTS)))
            case 3:
                words = words * rng.choice((2, 40))
            case 4:
                lines[at:at] = lines[rng.randrange(len(lines)) :][:3]
                continue
            case _:
                depth = rng.choice((20, 200, 3000))
                words.append("[" * depth + "]" * depth)
        lines[at] = " ".join(words)
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    return mutate_bytes(data, rng) if rng.random() < 0.4 else data


def mutate_json(value: Any, rng: Random) -> Any:  # noqa: ANN401 - any JSON value
    """Replace random JSON values by ones of other types and sizes, and drop some."""
    copy = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 5))):
        places = list(_places(copy))
        if not places:
            return _make_hostile(rng)
        holder, key = rng.choice(places)
        match rng.randrange(4):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[rng.choice(TEXTS)] = _make_hostile(rng)
            case _:
                holder[key] = _make_hostile(rng)
    return copy


def _places(value: Any) -> Any:  # noqa: ANN401
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _make_hostile(rng: Random) -> Any:  # noqa: ANN401
    match rng.randrange(6):
        case 0:
            return rng.choice(TEXTS)
        case 1:
            return rng.choice(NUMBERS)
        case 2:
            return rng.choice((None, True, [], {}, [{}], {"a": []}, float("nan"), float("inf")))
        case 3:
            return [rng.choice(NUMBERS)] * rng.choice((2, 1000, 100_000))
        case 4:
            nested: Any = 1
            for _ in range(rng.choice((30, 500))):
                nested = [nested]
            return nested
        case _:
            return {str(i): i for i in range(rng.choice((3, 3000)))}


def mutate_onnx(proto: ModelProto, rng: Random) -> bytes:
    """Change a graph so that it parses but is inconsistent, or damage its bytes."""
    copy = ModelProto.FromString(proto.SerializeToString())
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        change_graph(copy, rng)
    data = copy.SerializeToString()
    return mutate_bytes(data, rng) if rng.random() < 0.1 else data
