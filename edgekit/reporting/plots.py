"""Geometry of the report's plots: axes, ticks, and positions of marks; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["baseline", "chosen", "passes", "fails"]

_SHOWN_PER_STRIP = 160
_SHOWN_LAYERS = 12


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A tick of an axis."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Mapping of values from ``low`` to ``high`` to pixels from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def to_pixel(self, value: float) -> float:
        """Return the pixel of a value; a value outside is clipped to the nearer end."""
        low, high, value = (self._to_scale(v) for v in (self.low, self.high, value))
        part = min(max((value - low) / (high - low), 0.0), 1.0)
        return round(self.start + part * (self.end - self.start), 1)

    def contains(self, value: float | None) -> bool:
        """Return whether a value lies on the axis."""
        return value is not None and self.low <= value <= self.high

    def _to_scale(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.log else value

    @property
    def ticks(self) -> list[Tick]:
        """Return round values on the axis, about seven at most."""
        figures = (
            _choose_log_ticks(self.low, self.high)
            if self.log
            else _choose_ticks(self.low, self.high)
        )
        return [Tick(at=self.to_pixel(f), text=f"{f:.6g}".replace("-", "\u2212")) for f in figures]


@dataclass(frozen=True, kw_only=True)
class Span:
    """A value with its interval."""

    middle: float
    low: float
    high: float

    @property
    def finite(self) -> bool:
        """Return whether all values are finite and can be drawn."""
        return all(math.isfinite(v) for v in (self.middle, self.low, self.high))


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A candidate in the scatter plot."""

    letter: str
    title: str
    role: Role
    x: Span
    y: Span


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """Scatter plot: dots with error bars, and the limit of the accuracy drop if it is near."""

    x: Axis
    y: Axis
    dots: tuple[Dot, ...]
    y_limit: float | None


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Sizes of a candidate."""

    letter: str
    title: str
    role: Role
    model: float
    transfer: float | None


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Bar chart of sizes."""

    x: Axis
    bars: tuple[Bar, ...]
    unit: str
    model_limit: float | None
    transfer_limit: float | None


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Raw latencies of a candidate and its percentiles."""

    letter: str
    title: str
    role: Role
    values: tuple[float, ...]
    p50: float
    p95: float

    @property
    def drawn_values(self) -> list[float]:
        """Return at most 160 of the values, at even ranks, including the first and the last."""
        ordered = sorted(self.values)
        if len(ordered) <= _SHOWN_PER_STRIP:
            return ordered
        step = (len(ordered) - 1) / (_SHOWN_PER_STRIP - 1)
        return [ordered[round(i * step)] for i in range(_SHOWN_PER_STRIP)]


@dataclass(frozen=True, kw_only=True)
class Strips:
    """Raw latencies of every candidate over one axis."""

    x: Axis
    strips: tuple[Strip, ...]
    limit: float | None


@dataclass(frozen=True, kw_only=True)
class LayerBar:
    """A layer with its share of the divergence and of the bytes, in percent."""

    name: str
    divergence: float
    bytes: float


@dataclass(frozen=True, kw_only=True)
class LayerBars:
    """Bar chart of the layers with the highest cost."""

    x: Axis
    bars: tuple[LayerBar, ...]


def build_layer_bars(rows: Sequence[LayerBar]) -> LayerBars | None:
    """Build the bar chart of the first layers; ``None`` if there are none."""
    shown = tuple(rows[:_SHOWN_LAYERS])
    if not shown:
        return None
    high = max(max(row.divergence, row.bytes) for row in shown)
    return LayerBars(x=Axis(low=0, high=1.02 * max(high, 1e-6), start=220, end=560), bars=shown)


def build_scatter(dots: Iterable[Dot], *, y_limit: float | None) -> Scatter | None:
    """Build the scatter plot; ``None`` if fewer than two dots can be drawn."""
    drawn = tuple(d for d in dots if d.x.finite and d.y.finite)
    if len(drawn) < 2:
        return None
    x = build_axis([v for d in drawn for v in (d.x.low, d.x.high)], None, start=64, end=600)
    y = build_axis([v for d in drawn for v in (d.y.low, d.y.high, 0.0)], y_limit, start=300, end=16)
    return Scatter(x=x, y=y, dots=drawn, y_limit=y_limit)


def build_bars(
    rows: Sequence[Bar], *, unit: str, model_limit: float | None, transfer_limit: float | None
) -> Bars | None:
    """Build the bar chart of sizes with limits up to three times the longest bar.

    Returns ``None`` without candidates.
    """
    if not rows:
        return None
    high = max([*(v for row in rows for v in (row.model, row.transfer or 0.0)), 1e-6])
    near = [v for v in (model_limit, transfer_limit) if v is not None and v <= 3 * high]
    return Bars(
        x=Axis(low=0, high=1.02 * max([high, *near]), start=40, end=520),
        bars=tuple(rows),
        unit=unit,
        model_limit=model_limit,
        transfer_limit=transfer_limit,
    )


def build_strips(rows: Sequence[Strip], *, limit: float | None) -> Strips | None:
    """Build the strip plot; ``None`` if nothing was timed."""
    if not rows:
        return None
    x = build_axis([v for row in rows for v in row.values], limit, start=40, end=600)
    return Strips(x=x, strips=tuple(rows), limit=limit)


def build_axis(figures: Sequence[float], limit: float | None, *, start: float, end: float) -> Axis:
    """Build an axis with a margin around the values.

    A limit that is not far above the values extends the axis. Values that span a factor of more
    than 8 make it logarithmic.
    """
    low, high = min(figures), max(figures)
    if low > 0 and high / low > 8:
        return _build_log_axis(low, high, limit, start=start, end=end)
    if limit is not None and high < limit <= high + 2 * (high - low):
        high = limit
    air = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    bottom = max(low - air, 0.0) if low >= 0 else low - air
    return Axis(low=bottom, high=high + air, start=start, end=end)


def _build_log_axis(
    low: float, high: float, limit: float | None, *, start: float, end: float
) -> Axis:
    if limit is not None and high < limit <= 4 * high:
        high = limit
    air = (high / low) ** 0.04
    return Axis(low=low / air, high=high * air, start=start, end=end, log=True)


def _choose_ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 5
    size = 10 ** math.floor(math.log10(raw))
    step = next(m * size for m in (1, 2, 5, 10) if m * size >= raw)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _choose_log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        figures = [m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high]
        if len(figures) <= 8:
            break
    return figures
