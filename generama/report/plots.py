"""Figures as inline SVG: quality against cost, quality over time, losses, class histograms, points of 2-D toys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from generama.report.axes import COLOURS, SHAPES, Axis, clipped, draw, frame, room, rules, svg


@dataclass(frozen=True)
class Dot:
    """One row of the table in a scatter."""

    label: str
    colour: int
    x: float
    y: float
    ends: tuple[float, float] | None = None  # the interval of y


@dataclass(frozen=True)
class Line:
    """One curve of a panel."""

    x: np.ndarray
    y: np.ndarray
    faint: bool = False


def scatter(dots: Sequence[Dot], x_name: str, y_name: str, floor: float | None, lower: bool = True) -> Markup:
    """Quality against a cost on a log axis, one labelled mark a row; `floor` is a dashed line."""
    width, height = 460.0, 310.0
    xs, ys = [dot.x for dot in dots], [dot.y for dot in dots] + ([floor] if floor and floor > 0 else [])
    decades = 10 ** math.floor(math.log10(min(xs)) - 0.15), 10 ** math.ceil(math.log10(max(xs)) + 0.15)
    x_axis = Axis(*decades, 48, width - 18, log=True)
    log_y = min(ys) > 0 and max(ys) / min(ys) > 8
    y_axis = Axis(*room(ys, log_y), height - 48, 30, log=log_y)
    arrow = "↓ better" if lower else "↑ better"
    parts = [
        frame(x_axis, y_axis),
        draw('<text x="{}" y="{}" class="axis" text-anchor="end">{}</text>', x_axis.end, height - 8, x_name),
        draw('<text x="0" y="14" class="axis">{} <tspan class="soft">{}</tspan></text>', y_name, arrow),
    ]
    if floor is not None and y_axis.low <= floor <= y_axis.high:
        words, y = "floor: training against held-out pictures", y_axis(floor)
        parts.append(draw('<path class="floor" d="M{} {}H{}"/>', x_axis.start, y, x_axis.end))
        parts.append(draw('<text x="{}" y="{}" class="tick" text-anchor="end">{}</text>', x_axis.end, y - 5, words))
    taken = [(x_axis(dot.x) - 7, y_axis(dot.y) - 7, x_axis(dot.x) + 7, y_axis(dot.y) + 7) for dot in dots]
    for dot in dots:
        parts += [_dot(dot, x_axis, y_axis), _label(dot.label, x_axis(dot.x), y_axis(dot.y), taken, width)]
    alt = f"{y_name} against {x_name}: " + "; ".join(f"{d.label} {d.x:.3g}, {d.y:.3g}" for d in dots)
    return svg(width, height, alt, parts)


def _dot(dot: Dot, x_axis: Axis, y_axis: Axis) -> Markup:
    """A mark with its interval, as far as that is inside the drawing."""
    colour, x, y = dot.colour % COLOURS, x_axis(dot.x), y_axis(dot.y)
    whisker = Markup("")
    if dot.ends:
        ends = [y_axis(min(max(end, y_axis.low), y_axis.high)) for end in dot.ends]
        whisker = draw('<path class="whisker c{}" d="M{} {}V{}"/>', colour, x, *ends)
    mark = '<path class="mark c{}" transform="translate({} {})" d="{}"><title>{}</title></path>'
    return whisker + draw(mark, colour, x, y, SHAPES[colour], dot.label)


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
    return draw(
        '<text x="{}" y="{}" text-anchor="{}" class="name">{}</text>',
        round(chosen[0], 1),
        round(chosen[1], 1),
        chosen[2],
        text,
    )


def timelines(lines: Sequence[tuple[str, int, np.ndarray, np.ndarray]], y_name: str, lower: bool) -> Markup:
    """Quality over training time: (label, colour, seconds, values) a recipe, each line named at its end."""
    width, height, gutter = 460.0, 310.0, 104.0
    xs, ys = (np.concatenate([line[i] for line in lines]) for i in (2, 3))
    log_y = float(ys.min()) > 0 and float(ys.max() / ys.min()) > 8
    x_axis = Axis(0.0, float(xs.max()) or 1.0, 48, width - gutter)
    y_axis = Axis(*room(ys.tolist(), log_y), height - 48, 30, log=log_y)
    arrow = "↓ better" if lower else "↑ better"
    parts = [
        frame(x_axis, y_axis, time=True),
        draw('<text x="{}" y="{}" class="axis" text-anchor="end">training time</text>', x_axis.end, height - 8),
        draw('<text x="0" y="14" class="axis">{} <tspan class="soft">{}</tspan></text>', y_name, arrow),
    ]
    for _, colour, seconds, values in lines:
        parts.append(
            draw('<path class="curve c{}" d="{}"/>', colour % COLOURS, _path(Line(seconds, values), x_axis, y_axis))
        )
        mark = '<path class="mark c{}" transform="translate({} {}) scale(.7)" d="{}"/>'
        for x, y in zip(seconds.tolist(), values.tolist(), strict=True):
            parts.append(draw(mark, colour % COLOURS, x_axis(x), y_axis(y), SHAPES[colour % COLOURS]))
    ends = spread_out([y_axis(float(values[-1])) + 4 for _, _, _, values in lines], 14.0, 24.0, height - 40)
    for (label, _, seconds, _), y in zip(lines, ends, strict=True):
        x = x_axis(float(seconds[-1])) + 10
        parts.append(draw('<text x="{}" y="{}" class="name">{}</text>', round(x, 1), round(y, 1), clipped(label, 15)))
    alt = f"{y_name} over training time: " + "; ".join(f"{n} ends at {v[-1]:.3g}" for n, _, _, v in lines)
    return svg(width, height, alt, parts)


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places at least `gap` apart, near the wanted ones and in their order, from `low` to `high` if they fit."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places = list(wanted)
    for before, i in zip([None, *order], order, strict=False):
        places[i] = max(places[i], low if before is None else places[before] + gap)
    for after, i in zip([None, *order[::-1]], order[::-1], strict=False):
        places[i] = max(min(places[i], high if after is None else places[after] - gap), low)
    return places


def curves(lines: Sequence[Line], colour: int, alt: str) -> Markup:
    """A small panel of losses against images seen; outliers are cut at the edge, what is no number is a gap."""
    width, height = 300.0, 170.0
    xs = np.concatenate([line.x for line in lines])
    ys = np.concatenate([line.y for line in lines])
    ys = ys[np.isfinite(ys)]
    low, high = (np.percentile(ys, 0.5), np.percentile(ys, 98)) if len(ys) else (0.0, 1.0)
    x_axis = Axis(0.0, float(xs.max()) or 1.0, 46, width - 12)
    y_axis = Axis(*room([float(low), float(high)], False), height - 30, 10)
    parts = [frame(x_axis, y_axis, ticks=3)]
    for line in sorted(lines, key=lambda one: not one.faint):
        name = "curve faint" if line.faint else "curve"
        path = _path(line, x_axis, y_axis)
        parts.append(draw('<path class="{} c{}" d="{}"/>', name, colour % COLOURS, path))
    return svg(width, height, alt, parts)


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
    parts = [rules(y_axis, x_axis, 3)]
    step = x_axis(1) - x_axis(0)
    every = max(1, math.ceil(len(counts) / 12)) if all(len(n) < 3 for n in names) else math.ceil(len(counts) / 5)
    for i, count in enumerate(counts):
        x = x_axis(i + 0.5)
        parts.append(
            draw(
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
            parts.append(draw('<path class="missing" d="M{} {}l8 8m0 -8l-8 8"/>', x - 4, y_axis(0) - 13))
        if i % every == 0:
            parts.append(
                draw('<text x="{}" y="{}" class="tick" text-anchor="middle">{}</text>', x, height - 9, names[i][:8])
            )
    line = "".join(f"M{x_axis(i)} {y_axis(count)}H{x_axis(i + 1)}" for i, count in enumerate(expected))
    parts.append(draw('<path class="floor" d="{}"/>', line))
    return svg(width, height, alt, parts)


def cloud(points: np.ndarray, colour: int, alt: str) -> Markup:
    """2-D points (N, 2), in a square that shows -1.3..1.3."""
    x_axis, y_axis = Axis(-1.3, 1.3, 0, 280), Axis(-1.3, 1.3, 280, 0)
    inside = points[np.all(np.isfinite(points), axis=1) & np.all(np.abs(points) < 1.3, axis=1)][:1500]
    path = "".join(f"M{x_axis(float(x))} {y_axis(float(y))}h0" for x, y in inside)
    return svg(280, 280, alt, [draw('<path class="cloud c{}" d="{}"/>', colour % COLOURS, path)])
