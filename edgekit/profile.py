"""Device profiles: what a device is, what it can run and what a model on it may cost."""

from __future__ import annotations

import json
import platform
import typing
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from edgekit.errors import UserError, did_you_mean
from edgekit.model import Model
from edgekit.recipe import IntegerBits
from edgekit.toml import parse_toml, read_toml
from edgekit_agent.cpu import name_and_isa

M = TypeVar("M", bound=BaseModel)

RuntimeName = Literal["onnxruntime", "litert"]
AnyRuntime = RuntimeName | Literal["auto"]

# Which runtime runs which file.
FORMATS: dict[RuntimeName, Literal["onnx", "tflite"]] = {"onnxruntime": "onnx", "litert": "tflite"}


def runtime_of(model: Model) -> RuntimeName:
    """Return the runtime for the file format of a model."""
    return next(name for name, form in FORMATS.items() if form == model.format)


def _specifier(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier as error:
        raise ValueError(f"not a version specifier such as '>=1.20': {text!r}") from error
    return text


Specifier = Annotated[str, AfterValidator(_specifier)]
Positive = Annotated[float, Field(gt=0)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Hardware(_Table):
    """The machine. ``arch`` is what ``platform.machine()`` answers on it."""

    arch: Literal["aarch64", "armv7l", "x86_64", "riscv64"]
    cpu: str
    cores: int = Field(ge=1)
    threads: int = Field(ge=1, description="threads a model is run with")
    memory_mib: int = Field(ge=1)
    isa: tuple[str, ...] = ()


def saturates(arch: str, isa: Sequence[str]) -> bool:
    """Whether 8-bit weights may overflow the 16-bit sums of a processor's integer kernels.

    x86 without VNNI multiplies with ``pmaddubsw``, which saturates; Arm's kernels widen first.
    Source: Intel, "Lower Numerical Precision Deep Learning Inference and Training" (2018).
    """
    return arch == "x86_64" and not {"avx_vnni", "avx512_vnni"} & set(isa)


class RuntimeSpec(_Table):
    """A runtime the device may use. Operators are written ``Conv`` or ``com.microsoft:QGemm``.

    ``opset_max`` and ``ir_max`` are what the lowest version that ``version`` allows can read.
    """

    version: Specifier
    opset_max: int | None = Field(default=None, ge=1)
    ir_max: int | None = Field(default=None, ge=1)
    forbidden: tuple[str, ...] = ()
    allowed: tuple[str, ...] | None = None


class Budget(_Table):
    """What a model on the device may cost; a limit that is not set is not checked."""

    model_mib: Positive | None = None
    transfer_mib: Positive | None = None
    peak_rss_mib: Positive | None = None
    latency_p95_ms: Positive | None = None
    accuracy_drop_points: Annotated[float, Field(ge=0)] = 1.0


class Connection(_Table):
    """Where edgekit keeps its files on the device; empty = ~/.local/share/edgekit."""

    home: str = ""


class DeviceProfile(_Table):
    """One device, from one TOML file."""

    schema_: Literal[1] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    summary: str
    hardware: Hardware
    runtimes: dict[RuntimeName, RuntimeSpec] = Field(min_length=1)
    budget: Budget
    connection: Connection = Connection()


def parse_profile(text: str, *, where: str) -> DeviceProfile:
    """Read a profile from TOML text.

    Raises:
        UserError: not TOML, or not a profile; names every wrong field with its path at once.
    """
    return validated(DeviceProfile, parse_toml(text, where=where), where=where)


def validated(kind: type[M], raw: dict[str, Any], *, where: str) -> M:
    """``raw`` as ``kind``, or one UserError that lists every wrong field with its path."""
    try:
        # Through JSON mode, where strict means "no '8' for 8" but an array may be a tuple.
        return kind.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        lines = _lines(error.errors(), kind, raw)
        if lines[1:]:
            raise UserError(f"{where}:", details=lines) from error
        raise UserError(f"{where}: {lines[0]}") from error


def _lines(errors: list[ErrorDetails], kind: type[BaseModel], raw: object) -> list[str]:
    """A line per wrong field; of one that may be of several types all of these in one line."""
    wanted: dict[tuple[str, str], list[str]] = {}
    for each in errors:
        path = each["loc"] if each["type"] == "missing" else _written(each["loc"], raw)
        said, got = _say(each, kind)
        wanted.setdefault((_path(path), got), []).append(said)
    return [f"{path}: {_joined(said)}{got}" for (path, got), said in wanted.items()]


def _written(loc: tuple[int | str, ...], raw: object) -> tuple[int | str, ...]:
    """The part of a path that the text has; the rest names types that a field may have."""
    found: list[int | str] = []
    for part in loc:
        held = dict(enumerate(raw)) if isinstance(raw, list) else raw
        if not isinstance(held, dict):
            break
        if part in held:
            raw = held[part]
            found.append(part)
    return tuple(found)


def _joined(said: Sequence[str]) -> str:
    first, *rest = dict.fromkeys(said)
    return " or ".join([first, *(each.removeprefix("input should be ") for each in rest)])


def _path(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc if part != "[key]") or "file"


def _say(error: ErrorDetails, kind: type[BaseModel]) -> tuple[str, str]:
    """What is wrong with a field, and what it got instead."""
    if error["type"] == "missing":
        return "missing", ""
    if error["type"] == "extra_forbidden":
        *above, key = error["loc"]
        return f"unknown key{did_you_mean(key, _keys(kind, above))}", ""
    text = error["msg"].removeprefix("Value error, ")
    return f"{text[0].lower()}{text[1:]}", f", got {error['input']!r}"


def _keys(kind: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The keys of a table inside a table, as they are written; none where it is no such table."""
    for part in path:
        field = next((f for n, f in kind.model_fields.items() if (f.alias or n) == part), None)
        tables = _types(field.annotation) if field else []
        if len(tables) != 1:
            return []
        kind = tables[0]
    return [field.alias or name for name, field in kind.model_fields.items()]


def _types(hint: object) -> list[type[BaseModel]]:
    """The tables that a field may hold."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [hint]
    return [each for arg in typing.get_args(hint) for each in _types(arg)]


def shipped_names() -> list[str]:
    """Names of the profiles that come with edgekit, sorted."""
    folder = resources.files("device_profiles")
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def weight_bits(profile: DeviceProfile | None) -> IntegerBits:
    """Bits of int8 weights that saturate neither on this machine nor on a device, if one is known.

    This machine counts because it judges what is made for the device.
    """
    _, isa = name_and_isa()
    machines = [(platform.machine(), isa)]
    if profile is not None:
        machines.append((profile.hardware.arch, profile.hardware.isa))
    return 7 if any(saturates(arch, each) for arch, each in machines) else 8


def load_profile(name: str) -> DeviceProfile:
    """The profile of that name, or of that file when ``name`` ends in .toml.

    Raises:
        UserError: no such profile, or the file is wrong.
    """
    if name.endswith(".toml"):
        return read_profile(Path(name))
    if name not in shipped_names():
        raise UserError(
            f"no device profile named {name!r}{did_you_mean(name, shipped_names())}",
            hint=f"known: {', '.join(shipped_names())}; or give the path of a .toml file",
        )
    return parse_profile(profile_text(name), where=f"device_profiles/{name}.toml")


def profile_text(name: str) -> str:
    """The TOML text of a profile, with its comments; ``name`` as in ``load_profile``."""
    if name.endswith(".toml"):
        return Path(name).read_text(encoding="utf-8")
    return (resources.files("device_profiles") / f"{name}.toml").read_text(encoding="utf-8")


def read_profile(path: Path) -> DeviceProfile:
    """The profile in a file.

    Raises:
        UserError: the file cannot be read or is wrong.
    """
    return validated(
        DeviceProfile, read_toml(path, unreadable="cannot read the profile"), where=str(path)
    )
