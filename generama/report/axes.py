"""The ground that every drawing stands on: axes, rules, ticks, the marks of the recipes, and safe SVG.

Drawings take their text and colours from the page, so light, dark and print all work. Coordinates are SVG units; y
grows downwards. Classes c0..c7 name the recipe's colour in style.css.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


def key(colour: int) -> Markup:
    """The mark of a recipe, to stand beside its name."""
    return draw(
        '<svg class="key" viewBox="-8 -8 16 16" aria-hidden="true"><path class="mark c{}" d="{}"/></svg>',
        colour % COLOURS,
        SHAPES[colour % COLOURS],
    )


def room(values: Sequence[float], log: bool) -> tuple[float, float]:
    """A range with some air round the values."""
    low, high = min(values), max(values)
    if log:
        return low / (high / low) ** 0.08, high * (high / low) ** 0.12
    air = 0.1 * (high - low) or 0.5 * abs(high) or 1.0
    return (low - air if low < 0 or low > 4 * air else 0.0), high + air


def frame(x_axis: Axis, y_axis: Axis, ticks: int = 5, time: bool = False) -> Markup:
    """Horizontal rules, and the ticks of both axes."""
    base = y_axis.start
    tick_mark = '<path class="base" d="M{} {}v4"/><text x="{}" y="{}" class="tick" text-anchor="middle">{}</text>'
    return Markup("").join(
        [
            rules(y_axis, x_axis, ticks),
            draw('<path class="base" d="M{} {}H{}"/>', x_axis.start, base, x_axis.end),
            *(
                draw(tick_mark, x_axis(t), base, x_axis(t), base + 17, tick(t, time or x_axis.log))
                for t in x_axis.ticks(ticks)
            ),
        ]
    )


def rules(y_axis: Axis, x_axis: Axis, count: int) -> Markup:
    """Horizontal rules with their numbers."""
    return Markup("").join(
        draw(
            '<path class="rule" d="M{} {}H{}"/><text x="{}" y="{}" class="tick" text-anchor="end">{}</text>',
            x_axis.start,
            y_axis(place),
            x_axis.end,
            x_axis.start - 6,
            y_axis(place) + 4,
            tick(place, False),
        )
        for place in y_axis.ticks(count)
    )


def tick(value: float, seconds: bool) -> str:
    """1200000 -> 1.2M; on a time axis 0.001 -> 1 ms."""
    if seconds and 0 < value < 1:
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


def svg(width: float, height: float, alt: str, parts: Sequence[Markup]) -> Markup:
    """One drawing; width and height are its natural size, the page may shrink it."""
    return draw(
        '<svg viewBox="0 0 {0:g} {1:g}" width="{0:g}" height="{1:g}" role="img" aria-label="{2}">{3}</svg>',
        width,
        height,
        alt,
        Markup("").join(parts),
    )


def draw(template: str, *values: object) -> Markup:
    """An element with its values escaped."""
    return Markup(template).format(*values)


def clipped(text: str, most: int) -> str:
    """A name that fits: its first characters, and three dots where some are left out."""
    return text if len(text) <= most else text[: most - 1] + "…"
