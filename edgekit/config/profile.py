"""Device profiles: hardware, runtimes and budget of a device."""

from __future__ import annotations

import json
import os
import platform
import re
import typing
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from edgekit.argument_checks import AnyPath, check_arguments
from edgekit.config.plugins import iter_toml_files, load_plugins, warn_of_plugin
from edgekit.config.shipped_files import get_shipped_folder
from edgekit.config.toml import parse_toml, read_toml
from edgekit.errors import UserError, did_you_mean
from edgekit.model import Format, Model
from edgekit.pass_settings import IntegerBits
from edgekit_agent.measure.cpu import read_name_and_isa

M = TypeVar("M", bound=BaseModel)

RuntimeName = Literal["onnxruntime", "litert"]
AnyRuntime = Literal[RuntimeName, "auto"]

# File format of each runtime.
FORMATS: dict[RuntimeName, Format] = {"onnxruntime": "onnx", "litert": "tflite"}


def get_runtime(model: Model) -> RuntimeName:
    """Return the runtime for the file format of a model."""
    return next(name for name, form in FORMATS.items() if form == model.format)


def _check_specifier(text: str) -> str:
    try:
        SpecifierSet(text)
    except InvalidSpecifier as error:
        raise ValueError(f"not a version specifier such as '>=1.20': {text!r}") from error
    return text


Specifier = Annotated[str, AfterValidator(_check_specifier)]
Positive = Annotated[float, Field(gt=0)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Hardware(_Table):
    """Hardware of a device."""

    arch: Literal["aarch64", "armv7l", "x86_64", "riscv64"]
    """Architecture: the result of ``platform.machine()`` on the device."""
    cpu: str
    """Name of the processor."""
    cores: int = Field(ge=1)
    """Number of cores."""
    threads: int = Field(ge=1)
    """Number of threads that a model is run with."""
    memory_mib: int = Field(ge=1)
    """Memory in MiB."""
    isa: tuple[str, ...] = ()
    """Instruction sets that matter for speed, as ``edgekit devices probe`` prints them."""


def may_saturate(arch: str, isa: Sequence[str]) -> bool:
    """Return whether 8-bit weights may overflow the 16-bit sums of a processor's integer kernels.

    x86 without VNNI multiplies with ``pmaddubsw``, which saturates; Arm's kernels widen first.
    Source: Intel, "Lower Numerical Precision Deep Learning Inference and Training" (2018).
    """
    return arch == "x86_64" and not {"avx_vnni", "avx512_vnni"} & set(isa)


class RuntimeSpec(_Table):
    """Runtime of a device: its versions, and the operators that it may run."""

    version: Specifier
    """Versions that are allowed, such as ``>=1.20``."""
    opset_max: int | None = Field(default=None, ge=1)
    """Highest ONNX opset that the lowest allowed version reads."""
    ir_max: int | None = Field(default=None, ge=1)
    """Highest ONNX IR version that the lowest allowed version reads."""
    forbidden: tuple[str, ...] = ()
    """Operators that must not occur, written ``Conv`` or ``com.microsoft:QGemm``."""
    allowed: tuple[str, ...] | None = None
    """Operators that may occur; unset: all."""


class Budget(_Table):
    """Limits of a model on the device; an unset limit is not checked."""

    model_mib: Positive | None = None
    """Largest file of the model on the device, in MiB."""
    transfer_mib: Positive | None = None
    """Most that an update may send, in MiB: the packed model and all that goes with it."""
    peak_rss_mib: Positive | None = None
    """Peak memory of the process that runs the model, in MiB."""
    latency_p95_ms: Positive | None = None
    """95th percentile of the latency in milliseconds."""
    accuracy_drop_points: Annotated[float, Field(ge=0)] = 1.0
    """Largest accuracy drop in percentage points."""
    max_drop: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Largest loss by metric, in its unit, instead of the default of the metric."""


class Connection(_Table):
    """Installation on the device."""

    home: str = ""
    """Folder on the device, absolute or below the home; empty: ``.local/share/edgekit``."""


class DeviceProfile(_Table):
    """Profile of one device, from one TOML file."""

    schema_: Literal[1] = Field(alias="schema")
    """Version of the file format."""
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    """Name of the profile: lower-case letters, digits, dots and hyphens."""
    summary: str
    """The device in a few words."""
    hardware: Hardware
    runtimes: dict[RuntimeName, RuntimeSpec] = Field(min_length=1)
    budget: Budget
    connection: Connection = Connection()

    @classmethod
    @check_arguments
    def load(cls, name: AnyPath) -> DeviceProfile:
        """Load a profile by its name, or from a file if ``name`` ends in .toml.

        Raises:
            UserError: There is no such profile, or the file is wrong.
        """
        return load_profile(os.fspath(name))


def parse_profile(text: str, *, where: str) -> DeviceProfile:
    """Parse a profile from TOML text.

    Raises:
        UserError: The text is not TOML or not a profile; lists every wrong field with its path.
    """
    return validate(DeviceProfile, parse_toml(text, where=where), where=where)


def validate(kind: type[M], raw: dict[str, Any], *, where: str) -> M:
    """Validate plain data as ``kind``.

    Raises:
        UserError: Fields are wrong; lists each with its path.
    """
    try:
        # Strict JSON mode refuses '8' for 8 but accepts an array for a tuple.
        return kind.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        lines = _describe_errors(error.errors(), kind, raw)
        if lines[1:]:
            raise UserError(f"{where}:", details=lines) from error
        raise UserError(f"{where}: {lines[0]}") from error


def _describe_errors(errors: list[ErrorDetails], kind: type[BaseModel], raw: object) -> list[str]:
    """Describe each wrong field in one line; merge the errors of a field with several types."""
    wanted: dict[tuple[str, str], list[str]] = {}
    for each in errors:
        path = each["loc"] if each["type"] == "missing" else _trim_path(each["loc"], raw)
        said, got = _describe_error(each, kind)
        wanted.setdefault((_format_path(path), got), []).append(said)
    return [f"{path}: {_join_messages(said)}{got}" for (path, got), said in wanted.items()]


def _trim_path(loc: tuple[int | str, ...], raw: object) -> tuple[int | str, ...]:
    """Return the part of a path that exists in the text; the rest names types of a union."""
    found: list[int | str] = []
    for part in loc:
        held = dict(enumerate(raw)) if isinstance(raw, list) else raw
        if not isinstance(held, dict):
            break
        if part in held:
            raw = held[part]
            found.append(part)
    return tuple(found)


def _join_messages(said: Sequence[str]) -> str:
    first, *rest = dict.fromkeys(said)
    return " or ".join([first, *(each.removeprefix("input should be ") for each in rest)])


def _format_path(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc if part != "[key]") or "file"


def _describe_error(error: ErrorDetails, kind: type[BaseModel]) -> tuple[str, str]:
    """Return the description of an error, and the wrong value if there is one."""
    if error["type"] == "missing":
        return "missing", ""
    if error["type"] == "extra_forbidden":
        *above, key = error["loc"]
        return f"unknown key{did_you_mean(key, _list_keys(kind, above))}", ""
    text, near = _describe_problem(error), ""
    if error["type"] in ("literal_error", "enum"):
        words = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))
        near = did_you_mean(error["input"], words)
    return f"{text[0].lower()}{text[1:]}", f", got {error['input']!r}{near}"


def _describe_problem(error: ErrorDetails) -> str:
    limits = error.get("ctx", {})
    if error["type"] == "string_pattern_mismatch":
        return f"must match the regular expression {limits['pattern']}"
    if error["type"] == "too_short":
        least = limits["min_length"]
        return f"must have at least {least} {'entry' if least == 1 else 'entries'}"
    return error["msg"].removeprefix("Value error, ")


def _list_keys(kind: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """List the keys of a nested table as users write them; empty if the path is not a table."""
    for part in path:
        field = next((f for n, f in kind.model_fields.items() if (f.alias or n) == part), None)
        tables = _list_tables(field.annotation) if field else []
        if len(tables) != 1:
            return []
        kind = tables[0]
    return [field.alias or name for name, field in kind.model_fields.items()]


def _list_tables(hint: object) -> list[type[BaseModel]]:
    """List the tables that a field may hold."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [hint]
    return [each for arg in typing.get_args(hint) for each in _list_tables(arg)]


def list_profile_names() -> list[str]:
    """List the names of all profiles: edgekit's own, and those of plugins last."""
    return [*list_shipped_names(), *sorted(_load_plugin_profiles())]


def list_shipped_names() -> list[str]:
    """List the names of the profiles that come with edgekit, sorted."""
    folder = get_shipped_folder("device_profiles")
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def choose_weight_bits(profile: DeviceProfile | None) -> IntegerBits:
    """Choose bits of int8 weights that saturate neither on this machine nor on a known device.

    This machine counts because it scores the candidates for the device.
    """
    _, isa = read_name_and_isa()
    machines = [(platform.machine(), isa)]
    if profile is not None:
        machines.append((profile.hardware.arch, profile.hardware.isa))
    return 7 if any(may_saturate(arch, each) for arch, each in machines) else 8


def load_profile(name: str | DeviceProfile) -> DeviceProfile:
    """Load a profile by its name, or from a file if ``name`` ends in .toml.

    A profile is returned as it is.

    Raises:
        UserError: There is no such profile, or the file is wrong.
    """
    if isinstance(name, DeviceProfile):
        return name
    if name.endswith(".toml"):
        return read_profile(Path(name))
    if name not in list_shipped_names():
        known = list_profile_names()
        if name not in known:
            raise UserError(
                f"no device profile named {name!r}{did_you_mean(name, known)}",
                hint=f"known: {', '.join(known)}; or give the path of a .toml file",
            )
    return parse_profile(read_profile_text(name), where=f"device_profiles/{name}.toml")


def read_profile_text(name: str) -> str:
    """Return the TOML text of a profile, with its comments; ``name`` as in ``load_profile``."""
    if name.endswith(".toml"):
        return Path(name).read_text(encoding="utf-8")
    if name in list_shipped_names():
        return (get_shipped_folder("device_profiles") / f"{name}.toml").read_text(encoding="utf-8")
    return _load_plugin_profiles()[name]


@cache
def _load_plugin_profiles() -> dict[str, str]:
    """Load the TOML texts of the profiles of plugins; wrong ones are left out with a warning."""
    texts: dict[str, str] = {}
    for plugin in load_plugins("edgekit.profiles"):
        try:
            for file in iter_toml_files(plugin.value):
                text = file.read_text(encoding="utf-8")
                name = parse_profile(text, where=file.name).name
                if name in texts or name in list_shipped_names():
                    warn_of_plugin(plugin, f"{file.name}: there is a profile named {name} already")
                else:
                    texts[name] = text
        except (UserError, OSError, ValueError, TypeError) as error:
            warn_of_plugin(plugin, str(error))
    return texts


def read_profile(path: Path) -> DeviceProfile:
    """Read a profile from a file.

    Raises:
        UserError: The file cannot be read or is wrong.
    """
    return validate(
        DeviceProfile, read_toml(path, unreadable="cannot read the profile"), where=str(path)
    )
