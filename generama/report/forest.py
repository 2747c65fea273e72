"""One measure of every recipe with its interval, a line a recipe: what overlaps cannot be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from generama.report.axes import COLOURS, SHAPES, Axis, clipped, draw, room, short, svg

LINE = 26.0  # height of a recipe's line
GUTTER = 118.0  # for the names
NUMBERS = 62.0  # for the numbers at the right


@dataclass(frozen=True)
class Mark:
    """One recipe: its mean, the interval, and what its single seeds say."""

    label: str
    colour: int
    mean: float
    ends: tuple[float, float] | None
    seeds: tuple[float, ...]
    text: str  # the mean as it is printed
    best: bool = False


def forest(marks: Sequence[Mark], floor: float | None, share: bool, name: str) -> Markup:
    """Dots with intervals; faint dots are single seeds, the dashed line is what real held-out pictures score.

    Positive numbers of very different size stand on a log axis.
    """
    width, bottom = 380.0, LINE * len(marks) + 8
    values = [v for m in marks for v in (m.mean, *m.seeds, *(m.ends or ()))] + ([floor] if floor is not None else [])
    log = not share and min(values) > 0 and max(values) / min(values) > 30
    low, high = room(values, log)
    ends = (max(low, 0.0), min(high, 1.02)) if share else (low, high)
    axis = Axis(*ends, GUTTER, width - NUMBERS, log)
    parts = []
    for tick in axis.ticks(4):
        label = f"{100 * tick:g} %" if share else short(tick)
        parts.append(draw('<path class="rule" d="M{} 4V{}"/>', axis(tick), bottom))
        place = axis(tick), bottom + 16
        parts.append(draw('<text x="{}" y="{}" class="tick" text-anchor="middle">{}</text>', *place, label))
    if floor is not None:
        parts.append(draw('<path class="floor" d="M{} 4V{}"/>', axis(floor), bottom))
    for i, mark in enumerate(marks):
        parts.append(_line(mark, axis, LINE * (i + 0.5) + 6, width))
    alt = f"{name}: " + "; ".join(_spoken(mark) for mark in marks)
    alt += f"; real pictures {floor:.3g}" if floor is not None else ""
    return svg(width, bottom + 24, alt, parts)


def _line(mark: Mark, axis: Axis, y: float, width: float) -> Markup:
    colour, weight = mark.colour % COLOURS, " strong" if mark.best else ""
    parts = [
        draw('<text x="0" y="{}" class="name{}">{}<title>{}</title></text>', y + 4, weight, clipped(mark.label, 19),
             mark.label),
        draw('<text x="{}" y="{}" class="name{}" text-anchor="end">{}</text>', width, y + 4, weight, mark.text),
    ]  # fmt: skip
    if mark.ends:
        left, right = (axis(min(max(end, axis.low), axis.high)) for end in mark.ends)
        whisker = '<path class="whisker c{}" d="M{} {}H{}M{} {}v8M{} {}v8"/>'
        parts.append(draw(whisker, colour, left, y, right, left, y - 4, right, y - 4))
    if len(mark.seeds) > 1:
        parts += [draw('<circle class="seed c{}" cx="{}" cy="{}" r="2.5"/>', colour, axis(v), y) for v in mark.seeds]
    shape = '<path class="mark c{}" transform="translate({} {})" d="{}"/>'
    parts.append(draw(shape, colour, axis(mark.mean), y, SHAPES[colour]))
    return Markup("").join(parts)


def _spoken(mark: Mark) -> str:
    ends = f", interval {mark.ends[0]:.3g} to {mark.ends[1]:.3g}" if mark.ends else ""
    return f"{mark.label} {mark.text}{ends}"
