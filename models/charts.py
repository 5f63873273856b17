"""Line and dot charts as inline SVG: no library, no script, and the colours of the page that they are in."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_LEFT: Final = 58
_RIGHT: Final = 12
_TOP: Final = 10
_BOTTOM: Final = 40
_ROW: Final = 21  # height of a row of dots
_NAMES: Final = 150  # width of the names beside dots

Ticks = Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Series:
    """Points to be joined, in the order given."""

    name: str
    style: str  # CSS class, which has the colour
    x: Sequence[float]
    y: Sequence[float]
    points: bool = False  # mark each one
    joined: bool = True


@dataclass(frozen=True)
class Axis:
    """What is measured along a side of a chart."""

    label: str
    ticks: Ticks | None = None  # found where not given
    low: float | None = None  # likewise
    high: float | None = None


def line_chart(series: Sequence[Series], x: Axis, y: Axis, width: int = 520, height: int = 250) -> str:
    """Return a chart of lines as an ``<svg>`` element; each line's name shows when it is pointed at."""
    xs = _scale(x, [value for each in series for value in each.x])
    ys = _scale(y, [value for each in series for value in each.y])
    right, bottom = width - _RIGHT, height - _BOTTOM

    def at(value_x: float, value_y: float) -> tuple[float, float]:
        return (
            _LEFT + (value_x - xs.low) / (xs.high - xs.low) * (right - _LEFT),
            bottom - (value_y - ys.low) / (ys.high - ys.low) * (bottom - _TOP),
        )

    parts = [_open(width, height, f"{y.label} by {x.label}")]
    for value, text in ys.ticks:
        _, place = at(xs.low, value)
        parts.append(f'<line class="{_grid(value)}" x1="{_LEFT}" x2="{right}" y1="{place:.1f}" y2="{place:.1f}"/>')
        parts.append(_text(_LEFT - 6, place + 4, text, "end"))
    for value, text in xs.ticks:
        place, _ = at(value, ys.low)
        parts.append(f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        parts.append(_text(place, bottom + 17, text, "middle"))
    parts.append(_text((_LEFT + right) / 2, height - 5, x.label, "middle", "label"))
    parts.append(
        f'<text class="label" text-anchor="middle" transform="translate(12 {(_TOP + bottom) / 2:.0f}) rotate(-90)">'
        f"{html.escape(y.label)}</text>"
    )
    for each in series:
        places = [at(*pair) for pair in zip(each.x, each.y, strict=True)]
        parts.append(f'<g class="{each.style}"><title>{html.escape(each.name)}</title>')
        if each.joined and len(places) > 1:
            parts.append(f'<polyline points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in places)}"/>')
        if each.points or len(places) == 1:
            parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in places]
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def dot_chart(rows: Sequence[tuple[str, str, Sequence[float]]], axis: Axis, width: int = 520) -> str:
    """Return a chart with a row of dots for each name, as an ``<svg>`` element.

    Args:
        rows: name, CSS class, values.
        axis: of the values.
        width: in pixels.
    """
    scale = _scale(axis, [value for _, _, values in rows for value in values])
    height = _TOP + _ROW * len(rows) + _BOTTOM
    right, bottom = width - _RIGHT, height - _BOTTOM

    def at(value: float) -> float:
        return _NAMES + (value - scale.low) / (scale.high - scale.low) * (right - _NAMES)

    parts = [_open(width, height, axis.label)]
    for value, text in scale.ticks:
        parts.append(
            f'<line class="{_grid(value)}" x1="{at(value):.1f}" x2="{at(value):.1f}" y1="{_TOP}" y2="{bottom}"/>'
        )
        parts.append(_text(at(value), bottom + 15, text, "middle"))
    parts.append(_text((_NAMES + right) / 2, height - 5, axis.label, "middle", "label"))
    for number, (name, style, values) in enumerate(rows):
        y = _TOP + _ROW * (number + 0.5)
        parts.append(_text(_NAMES - 8, y + 4, name, "end"))
        parts.append(f'<g class="{style}">')
        parts += [
            f'<circle cx="{at(value):.1f}" cy="{y:.1f}" r="4.5"><title>{_number(value)}</title></circle>'
            for value in values
        ]
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    ticks: Ticks


def _scale(axis: Axis, values: Sequence[float]) -> _Scale:
    low = min(values, default=0.0) if axis.low is None else axis.low
    high = max(values, default=1.0) if axis.high is None else axis.high
    if high - low < 1e-12 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    if axis.low is None and axis.high is None:
        margin = 0.04 * (high - low)
        low, high = low - margin, high + margin
    return _Scale(low, high, _nice(low, high) if axis.ticks is None else axis.ticks)


def _nice(low: float, high: float) -> Ticks:
    """Return about five round numbers within a range."""
    rough = (high - low) / 5.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((power * part for part in (1.0, 2.0, 2.5, 5.0, 10.0)), key=lambda each: abs(each - rough))
    places = max(0, -math.floor(math.log10(step)) + (step / 10.0 ** math.floor(math.log10(step)) == 2.5))
    numbers = (index * step for index in range(math.ceil(low / step), math.floor(high / step) + 1))
    return [(number, f"{number:,.{places}f}") for number in numbers]


def _number(value: float) -> str:
    return f"{value:,.4g}"


def _grid(value: float) -> str:
    return "zero" if value == 0.0 else "grid"


def _open(width: int, height: int, label: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(label, quote=True)}">'


def _text(x: float, y: float, text: str, anchor: str, style: str = "tick") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
