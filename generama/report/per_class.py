"""Measures of single classes as tables whose cells are shaded from the worst to the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generama.report.numbers import show
from generama.report.table import BY_KEY, Row, title

KEYS = ("conditional_accuracy", "precision", "recall", "coverage", "kid")
MOST = 12  # classes that fit side by side
SHADES = 6


@dataclass(frozen=True)
class Shaded:
    """A cell: its text, and a shade from 0 (worst of its table) to SHADES - 1; None where nothing was measured."""

    text: str
    shade: int | None


@dataclass(frozen=True)
class ClassTable:
    """One measure: a line a recipe, a column a class."""

    name: str
    note: str
    classes: list[str]
    lines: list[tuple[str, int, list[Shaded]]]  # (label, colour, cells)


def class_tables(rows: list[Row], names: list[str]) -> list[ClassTable]:
    """A table for each measure that was taken of single classes; of many classes those that are hardest on average."""
    found = []
    for key in KEYS:
        there = [(row, values) for row in rows if (values := _of_row(row, key)) is not None]
        if not there:
            continue
        count = min(len(values) for _, values in there)
        table = np.stack([values[:count] for _, values in there])  # (rows, classes), NaN where not measured
        if not np.isfinite(table).any():
            continue
        better = -1 if BY_KEY[key].better == "lower" else 1
        hardest = np.argsort([_mean(better * column) for column in table.T], kind="stable")[:MOST]
        kept = sorted(int(i) for i in hardest)
        known = names if len(names) >= count else [str(i) for i in range(count)]
        shades = _shades(better * table)
        lines = [
            (row.label, row.colour, [_cell(table[r, c], shades[r, c], BY_KEY[key].unit) for c in kept])
            for r, (row, _) in enumerate(there)
        ]
        note = f"The {MOST} hardest of {count} classes." if count > MOST else ""
        found.append(ClassTable(title(BY_KEY[key], rows), note, [known[c] for c in kept], lines))
    return found


def _of_row(row: Row, key: str) -> np.ndarray | None:
    """The mean over seeds of each class, (classes,); NaN where no seed has a value."""
    lists = [run.per_class[key] for run in row.runs if key in run.per_class]
    if not lists:
        return None
    count = min(len(values) for values in lists)
    stacked = np.array([[np.nan if v is None else v for v in values[:count]] for values in lists])
    return np.array([_mean(column) for column in stacked.T])


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _shades(table: np.ndarray) -> np.ndarray:
    """0 for the lowest to SHADES - 1 for the highest number; -1 for NaN."""
    finite = table[np.isfinite(table)]
    low, high = float(finite.min()), float(finite.max())
    scaled = (table - low) / (high - low) * SHADES if high > low else np.full_like(table, SHADES - 1.0)
    return np.where(np.isfinite(table), np.nan_to_num(scaled).astype(int).clip(0, SHADES - 1), -1)


def _cell(value: float, shade: int, unit: str) -> Shaded:
    if shade < 0:
        return Shaded("–", None)
    return Shaded(f"{100 * value:.0f}" if unit == "share" else show(float(value)), int(shade))
