"""The drawings of the report: losses, classes, quality against cost and over time, measures with intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from markupsafe import Markup

from generama.report import plots
from generama.report.figures import Figure, Real
from generama.report.forest import Mark, forest
from generama.report.numbers import show
from generama.report.ranking import best, ranked, ties
from generama.report.records import Run
from generama.report.table import BY_KEY, COLUMNS, Row, columns_of, ends_of, floor_of, title, written


def losses(rows: list[Row]) -> list[Figure]:
    """One panel a player: the first seed strong, the others faint."""
    found = []
    for row in rows:
        keys = dict.fromkeys(key for run in row.runs for line in run.log for key in line if key.startswith("loss/"))
        for name in keys:
            lines = [line for i, run in enumerate(row.runs) if (line := _curve(run, name, faint=i > 0))]
            if not lines:
                continue
            player = name.removeprefix("loss/")
            last = lines[0].y[np.isfinite(lines[0].y)]
            ending = f"last {show(float(last[-1]))}" if len(last) else "never a number"
            alt = f"Loss of {row.label}, player {player}, against training images; {ending}"
            drawing = plots.curves(lines, row.colour, alt)
            caption = "" if len(keys) == 1 else player
            found.append(
                Figure(row.label, row.colour, drawing=drawing, caption=f"{caption + ' · ' if caption else ''}{ending}")
            )
    return found


def _curve(run: Run, key: str, faint: bool) -> plots.Line | None:
    points = [
        (float(line["images"]), float(line[key]))
        for line in run.log
        if _is_number(line.get("images")) and _is_number(line.get(key))
    ]
    if not points:
        return None
    x, y = np.array(points).T
    return plots.Line(x, y, faint)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def histograms(rows: list[Row], names: list[str], real: Real) -> list[Figure]:
    """What the classifier sees in the samples, class by class, beside what was asked for or is in the data."""
    found = []
    for row in rows:
        counts = row.first.histogram
        if not counts or not sum(counts) or not all(math.isfinite(count) and count >= 0 for count in counts):
            continue
        known = names if len(names) == len(counts) else [str(i) for i in range(len(counts))]
        expected = _expected(row, real, len(counts)) * sum(counts)
        missing = [known[i] for i, count in enumerate(counts) if count < 0.1 * expected[i]]
        caption = f"(nearly) missing: {', '.join(missing)}" if missing else "no class missing"
        told = "asked for in equal numbers" if row.first.conditional else "not asked for any class"
        alt = f"Samples of {row.label} per class, from {min(counts):,.0f} to {max(counts):,.0f}; {caption}"
        drawing = plots.bars(counts, expected.tolist(), known, row.colour, alt)
        found.append(Figure(row.label, row.colour, drawing=drawing, caption=f"{caption} · {told}"))
    return found


def _expected(row: Row, real: Real, classes: int) -> np.ndarray:
    """The share of each class, (classes,): even where classes were asked for, else that of the training pictures."""
    labels = None if real.data is None or row.first.conditional else real.data.train.labels(slice(0, None))
    if labels is None or not len(labels) or int(labels.max()) >= classes:
        return np.full(classes, 1 / classes)
    return np.bincount(labels.numpy(), minlength=classes) / len(labels)


def against(rows: list[Row], cost: str, x_name: str) -> Markup | None:
    """Quality against a cost: the Fréchet distance, or the first quality measure there is; None where nothing is."""
    quality = next((column for column in columns_of(rows) if column.group == "Quality" and column.better), None)
    if quality is None:
        return None
    dots = []
    for row in rows:
        x, y = row.cell(cost).mean, row.cell(quality.key)
        if x is not None and x > 0 and y.mean is not None:
            dots.append(plots.Dot(row.label, row.colour, x, y.mean, ends_of(y, quality)))
    if not dots:
        return None
    return plots.scatter(dots, x_name, title(quality, rows), floor_of(rows, quality.key), quality.better == "lower")


def measures(rows: list[Row]) -> list[Figure]:
    """A panel a headline measure: the rows best first, with intervals, and which of them cannot be told apart."""
    found = []
    for column in (column for column in COLUMNS if column.headline):
        there = ranked(rows, column.key)
        if not there:
            continue
        winners, floor = best(rows, column.key), floor_of(rows, column.key)
        marks = []
        for row in there:
            cell = row.cell(column.key)
            assert cell.mean is not None
            text, won = written(cell, column), row.label in winners
            marks.append(Mark(row.label, row.colour, cell.mean, ends_of(cell, column), cell.values, text, won))
        name = title(column, rows)
        drawing = forest(marks, floor, column.unit == "share", name)
        found.append(Figure(name, None, drawing=drawing, caption=tied(ties(rows, column.key), len(there))))
    return found


def tied(groups: list[list[str]], count: int) -> str:
    """ "Cannot be told apart: a, b; c, d", or that all can, of `count` rows."""
    if count < 2:
        return ""
    if not groups:
        return "All can be told apart."
    if len(groups[0]) == count:
        return "None can be told apart."
    return f"Cannot be told apart: {'; '.join(', '.join(group) for group in groups)}."


def over_time(rows: list[Row]) -> list[Figure]:
    """Quality over training time, a drawing a measure, where the first seed of a row was measured while it learned."""
    found = []
    for key in ("frechet", "kid"):
        lines = []
        for row in rows:
            run = next((run for run in row.runs if run.progress.points), row.first)
            points = [point for point in run.progress.points if key in point]
            if len(points) > 1:
                seconds, values = (np.array([point[name] for point in points]) for name in ("seconds", key))
                lines.append((row.label, row.colour, seconds, values))
        if lines:
            counts = sorted({run.progress.n for row in rows for run in row.runs if run.progress.n})
            sizes = " or ".join(f"{count:,}" for count in counts)
            caption = f"Measured on {sizes} samples, so not to be compared with the table." if sizes else ""
            column = BY_KEY[key]
            drawing = plots.timelines(lines, title(column, rows), column.better == "lower")
            found.append(Figure(title(column, rows), None, drawing=drawing, caption=caption))
    return found
