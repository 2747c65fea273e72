"""The parts that sentences are made from: a number with its interval, the two ends of a ranking."""

from __future__ import annotations

import math

from generama.report.numbers import show
from generama.report.table import BY_KEY, MEASURED, Row, around, written
from generama.report.uncertainty import apart


def mean_of(row: Row, key: str) -> float:
    """The mean of a measure; NaN where there is none."""
    mean = row.cell(key).mean
    return math.nan if mean is None else mean


def value(row: Row, key: str) -> str:
    """ "14.0", or "14.0 (13.1–15.2)" with the interval of a measure of quality, diversity, control or likelihood."""
    column, cell = BY_KEY[key], row.cell(key)
    ends = around(cell, column) if column.group in MEASURED else ""
    said = written(cell, column).removeprefix("≤ ")
    return f"{said} ({ends})" if ends else said


def span(ranked: list[Row], key: str, words: str, end: str) -> str:
    """ "81.0 % of the samples of a lie among real pictures; at the other end stands z with 40.0 %"."""
    first, last = ranked[0], ranked[-1]
    text = " ".join(part for part in (value(first, key), words, first.label, end) if part)
    if len(ranked) == 1:
        return text
    if show(mean_of(first, key), "share") == show(mean_of(last, key), "share"):
        return text + ", and the same holds for the others"
    unsure = "" if apart(first.cell(key), last.cell(key)) else ", and cannot be told apart from it"
    return f"{text}; at the other end stands {last.label} with {value(last, key)}{unsure}"


def relative_spread(row: Row, key: str) -> float:
    """The standard deviation over seeds as a share of the mean; 0 where there is none."""
    cell = row.cell(key)
    return (cell.spread or 0.0) / cell.mean if cell.mean else 0.0
