"""Figures as inline SVG: they take their text and colours from the page, so light, dark and print all work.

Coordinates are SVG units; y grows downwards. Classes c0..c7 name the recipe's colour in style.css.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

COLOURS = 8
# Paths around (0, 0) with a radius of about 6, so that colour is never the only difference.
SHAPES = (
    "M-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0 -11 0z",
    "M-5 -5h10v10h-10z",
    "M0 -6.5L6.3 4.8H-6.3z",
    "M0 -7L7 0L0 7L-7 0z",
    "M0 6.5L6.3 -4.8H-6.3z",
    "M-2 -6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
    "M-6.5 0L-3.2 -5.6H3.2L6.5 0L3.2 5.6H-3.2z",
    "M0 -7L2 -2L7 0L2 2L0 7L-2 2L-7 0L-2 -2z",
)


@dataclass(frozen=True)
class Dot:
    """One row of the table in a scatter."""

    label: str
    colour: int
    x: float
    y: float
    spread: float | None = None


@dataclass(frozen=True)
class Line:
    """One curve of a panel."""

    x: np.ndarray
    y: np.ndarray
    faint: bool = False


@dataclass(frozen=True)
class Axis:
    """A range and how it maps onto `start`..`end` of the drawing."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self, count: int = 5) -> list[float]:
        """Round numbers inside the range: about `count`, or on a log axis tens (1, 2, 5 over less than two decades)."""
        if self.log:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            leading = (1,) if self.high / self.low > 99 else (1, 2, 5)
            ticks = [float(f"{first}e{exponent}") for exponent in exponents for first in leading]
            return [tick for tick in ticks if self.low * (1 - 1e-9) <= tick <= self.high * (1 + 1e-9)]
        wanted = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(wanted))
        step = next(first * power for first in (1, 2, 2.5, 5, 10) if first * power >= wanted * (1 - 1e-9))
        return [step * i for i in range(math.ceil(self.low / step), math.floor(self.high / step + 1e-9) + 1)]


def scatter(dots: Sequence[Dot], x_name: str, y_name: str, floor: float | None, lower: bool = True) -> Markup:
    """Quality against a cost on a log axis, one labelled mark a row; `floor` is a dashed line."""
    width, height = 460.0, 310.0
    xs, ys = [dot.x for dot in dots], [dot.y for dot in dots] + ([floor] if floor and floor > 0 else [])
    decades = 10 ** math.floor(math.log10(min(xs)) - 0.15), 10 ** math.ceil(math.log10(max(xs)) + 0.15)
    x_axis = Axis(*decades, 48, width - 18, log=True)
    log_y = min(ys) > 0 and max(ys) / min(ys) > 8
    y_axis = Axis(*_room(ys, log_y), height - 48, 30, log=log_y)
    arrow = "↓ better" if lower else "↑ better"
    parts = [
        _frame(x_axis, y_axis),
        _draw('<text x="{}" y="{}" class="axis" text-anchor="end">{}</text>', x_axis.end, height - 8, x_name),
        _draw('<text x="0" y="14" class="axis">{} <tspan class="soft">{}</tspan></text>', y_name, arrow),
    ]
    if floor is not None and y_axis.low <= floor <= y_axis.high:
        words, y = "floor: training against held-out pictures", y_axis(floor)
        parts.append(_draw('<path class="floor" d="M{} {}H{}"/>', x_axis.start, y, x_axis.end))
        parts.append(_draw('<text x="{}" y="{}" class="tick" text-anchor="end">{}</text>', x_axis.end, y - 5, words))
    taken = [(x_axis(dot.x) - 7, y_axis(dot.y) - 7, x_axis(dot.x) + 7, y_axis(dot.y) + 7) for dot in dots]
    for dot in dots:
        parts += [_dot(dot, x_axis, y_axis), _label(dot.label, x_axis(dot.x), y_axis(dot.y), taken, width)]
    alt = f"{y_name} against {x_name}: " + "; ".join(f"{d.label} {d.x:.3g}, {d.y:.3g}" for d in dots)
    return _svg(width, height, alt, parts)


def _dot(dot: Dot, x_axis: Axis, y_axis: Axis) -> Markup:
    """A mark with the spread of its seeds."""
    colour, x, y = dot.colour % COLOURS, x_axis(dot.x), y_axis(dot.y)
    spread = dot.spread or 0.0
    ends = y_axis(max(dot.y - spread, y_axis.low)), y_axis(min(dot.y + spread, y_axis.high))
    whisker = _draw('<path class="whisker c{}" d="M{} {}V{}"/>', colour, x, *ends) if spread else Markup("")
    mark = '<path class="mark c{}" transform="translate({} {})" d="{}"><title>{}</title></path>'
    return whisker + _draw(mark, colour, x, y, SHAPES[colour], dot.label)


def _label(text: str, x: float, y: float, taken: list[tuple[float, float, float, float]], width: float) -> Markup:
    """A label at the first free place round its mark: right, left, above, below, then farther off."""
    wide = 6.6 * len(text)
    tries = [(x + 11, y + 4, "start"), (x - 11, y + 4, "end")]
    for step in range(1, 6):
        tries += [
            (x, y - 12 - 14 * (step - 1), "middle"),
            (x, y + 20 + 14 * (step - 1), "middle"),
            (x + 11, y + 4 - 9 * step, "start"),
            (x + 11, y + 4 + 9 * step, "start"),
        ]
    chosen = tries[0]
    for tx, ty, anchor in tries:
        left = tx - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
        box = (left, ty - 11, left + wide, ty + 3)
        inside = box[0] > 50 and box[2] < width and 20 < ty < 262
        if inside and not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
            chosen = (tx, ty, anchor)
            taken.append(box)
            break
    return _draw(
        '<text x="{}" y="{}" text-anchor="{}" class="name">{}</text>',
        round(chosen[0], 1),
        round(chosen[1], 1),
        chosen[2],
        text,
    )


def curves(lines: Sequence[Line], colour: int, alt: str) -> Markup:
    """A small panel of losses against images seen; outliers are cut at the edge, what is no number is a gap."""
    width, height = 300.0, 170.0
    xs = np.concatenate([line.x for line in lines])
    ys = np.concatenate([line.y for line in lines])
    ys = ys[np.isfinite(ys)]
    low, high = (np.percentile(ys, 0.5), np.percentile(ys, 98)) if len(ys) else (0.0, 1.0)
    x_axis = Axis(0.0, float(xs.max()) or 1.0, 46, width - 12)
    y_axis = Axis(*_room([float(low), float(high)], False), height - 30, 10)
    parts = [_frame(x_axis, y_axis, ticks=3)]
    for line in sorted(lines, key=lambda one: not one.faint):
        name = "curve faint" if line.faint else "curve"
        path = _path(line, x_axis, y_axis)
        parts.append(_draw('<path class="{} c{}" d="{}"/>', name, colour % COLOURS, path))
    return _svg(width, height, alt, parts)


def _path(line: Line, x_axis: Axis, y_axis: Axis) -> str:
    """At most 160 averaged points; a value that is no number lifts the pen."""
    steps = np.array_split(np.arange(len(line.x)), min(160, len(line.x)))
    text, down = [], False
    for step in steps:
        if not np.isfinite(line.y[step]).all():
            down = False
            continue
        y = float(np.mean(line.y[step]))
        clipped = min(max(y, y_axis.low), y_axis.high)
        text.append(f"{'L' if down else 'M'}{x_axis(float(np.mean(line.x[step])))} {y_axis(clipped)}")
        down = True
    if len(text) == 1:
        text.append("h0.1")
    return "".join(text)


def bars(counts: Sequence[float], expected: Sequence[float], names: Sequence[str], colour: int, alt: str) -> Markup:
    """Samples per class; dashes show the counts expected, a cross a class under a tenth of that."""
    width, height = 300.0, 130.0
    top = max([*counts, *expected]) * 1.08
    x_axis, y_axis = Axis(0, len(counts), 34, width - 6), Axis(0.0, top, height - 26, 8)
    parts = [_rules(y_axis, x_axis, 3)]
    step = x_axis(1) - x_axis(0)
    every = max(1, math.ceil(len(counts) / 12)) if all(len(n) < 3 for n in names) else math.ceil(len(counts) / 5)
    for i, count in enumerate(counts):
        x = x_axis(i + 0.5)
        parts.append(
            _draw(
                '<path class="bar c{}" d="M{} {}V{}h{}V{}z"><title>{}: {}</title></path>',
                colour % COLOURS,
                round(x - 0.36 * step, 1),
                y_axis(0),
                y_axis(count),
                round(0.72 * step, 1),
                y_axis(0),
                names[i],
                f"{count:,.0f}",
            )
        )
        if count < 0.1 * expected[i]:
            parts.append(_draw('<path class="missing" d="M{} {}l8 8m0 -8l-8 8"/>', x - 4, y_axis(0) - 13))
        if i % every == 0:
            parts.append(
                _draw('<text x="{}" y="{}" class="tick" text-anchor="middle">{}</text>', x, height - 9, names[i][:8])
            )
    line = "".join(f"M{x_axis(i)} {y_axis(count)}H{x_axis(i + 1)}" for i, count in enumerate(expected))
    parts.append(_draw('<path class="floor" d="{}"/>', line))
    return _svg(width, height, alt, parts)


def cloud(points: np.ndarray, colour: int, alt: str) -> Markup:
    """2-D points (N, 2), in a square that shows -1.3..1.3."""
    x_axis, y_axis = Axis(-1.3, 1.3, 0, 280), Axis(-1.3, 1.3, 280, 0)
    inside = points[np.all(np.isfinite(points), axis=1) & np.all(np.abs(points) < 1.3, axis=1)][:1500]
    path = "".join(f"M{x_axis(float(x))} {y_axis(float(y))}h0" for x, y in inside)
    return _svg(280, 280, alt, [_draw('<path class="cloud c{}" d="{}"/>', colour % COLOURS, path)])


def key(colour: int) -> Markup:
    """The mark of a recipe, to stand beside its name."""
    return _draw(
        '<svg class="key" viewBox="-8 -8 16 16" aria-hidden="true"><path class="mark c{}" d="{}"/></svg>',
        colour % COLOURS,
        SHAPES[colour % COLOURS],
    )


def _room(values: Sequence[float], log: bool) -> tuple[float, float]:
    """A range with some air round the values."""
    low, high = min(values), max(values)
    if log:
        return low / (high / low) ** 0.08, high * (high / low) ** 0.12
    air = 0.1 * (high - low) or 0.5 * abs(high) or 1.0
    return (low - air if low < 0 or low > 4 * air else 0.0), high + air


def _frame(x_axis: Axis, y_axis: Axis, ticks: int = 5) -> Markup:
    """Horizontal rules, and the ticks of both axes."""
    base = y_axis.start
    tick_mark = '<path class="base" d="M{} {}v4"/><text x="{}" y="{}" class="tick" text-anchor="middle">{}</text>'
    return Markup("").join(
        [
            _rules(y_axis, x_axis, ticks),
            _draw('<path class="base" d="M{} {}H{}"/>', x_axis.start, base, x_axis.end),
            *(
                _draw(tick_mark, x_axis(t), base, x_axis(t), base + 17, _tick(t, x_axis.log))
                for t in x_axis.ticks(ticks)
            ),
        ]
    )


def _rules(y_axis: Axis, x_axis: Axis, count: int) -> Markup:
    return Markup("").join(
        _draw(
            '<path class="rule" d="M{} {}H{}"/><text x="{}" y="{}" class="tick" text-anchor="end">{}</text>',
            x_axis.start,
            y_axis(tick),
            x_axis.end,
            x_axis.start - 6,
            y_axis(tick) + 4,
            _tick(tick, False),
        )
        for tick in y_axis.ticks(count)
    )


def _tick(value: float, seconds: bool) -> str:
    """1200000 -> 1.2M; on a time axis 0.001 -> 1 ms."""
    if seconds and value < 1:
        return f"{value * 1e3:g} ms" if value >= 1e-3 else f"{value * 1e6:g} µs"
    if seconds:
        return f"{value:,g} s" if value < 1e6 else f"{value:.0e} s"
    return short(value)


def short(value: float) -> str:
    """1200000 -> 1.2M, 12800 -> 12.8k, 0.5 -> 0.5."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:g}" if value == 0 or abs(value) >= 1e-4 else f"{value:.0e}"


def _svg(width: float, height: float, alt: str, parts: Sequence[Markup]) -> Markup:
    """One drawing; width and height are its natural size, the page may shrink it."""
    return _draw(
        '<svg viewBox="0 0 {0:g} {1:g}" width="{0:g}" height="{1:g}" role="img" aria-label="{2}">{3}</svg>',
        width,
        height,
        alt,
        Markup("").join(parts),
    )


def _draw(template: str, *values: object) -> Markup:
    """An element with its values escaped."""
    return Markup(template).format(*values)
