"""Rows -> the tables as they are printed: a table for each group of rows that were measured alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from markupsafe import Markup

from generama.report import charts
from generama.report.figures import Figure
from generama.report.numbers import show
from generama.report.per_class import ClassTable, class_tables
from generama.report.ranking import best, leagues, ties
from generama.report.table import Column, Row, around, columns_of, floor_of, kind_of, title, written
from generama.report.uncertainty import FEW, interval, t_quantile


@dataclass(frozen=True)
class Written:
    """A cell as it is printed."""

    text: str
    around: str = ""  # its interval
    sort: str = ""  # the bare number; "" sorts last
    best: bool = False
    footnote: int = 0  # 0 for none
    tag: str = ""  # "exact" or "bound"
    why: str = ""  # the footnote's text, for a tooltip


@dataclass
class Footnotes:
    """Reasons, numbered in the order they appear."""

    texts: list[str] = field(default_factory=list)

    def number(self, text: str) -> int:
        """The number of a reason, new or known; 0 for an empty one."""
        if text and text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1 if text else 0


@dataclass(frozen=True)
class League:
    """Rows that may be ranked together, with everything that sets them against each other."""

    name: str  # "" where there is one league alone
    columns: list[Column]
    groups: list[tuple[str, int]]
    titles: dict[str, str]
    sorted_by: str
    lines: list[tuple[Row, list[Written]]]
    floors: dict[str, str]
    tied: list[tuple[str, str]]  # (measure, what cannot be told apart by it)
    measures: list[Figure]
    speed_plot: Markup | None
    cost_plot: Markup | None
    over_time: list[Figure]
    per_class: list[ClassTable]


def leagues_of(rows: list[Row], names: list[str], footnotes: Footnotes) -> list[League]:
    """Every league of the rows; `names` are those of the classes."""
    groups = leagues(rows)
    return [_league(group, names, footnotes, alone=len(groups) == 1) for group in groups]


def _league(rows: list[Row], names: list[str], footnotes: Footnotes, alone: bool) -> League:
    columns = columns_of(rows)
    budgets = {row.first.budget for row in rows if row.first.budget}
    return League(
        name="" if alone else _protocol(rows),
        columns=columns,
        groups=_groups(columns),
        titles={column.key: title(column, rows) for column in columns},
        sorted_by=next((c.key for c in columns if c.better), ""),
        lines=_lines(rows, columns, footnotes),
        floors={c.key: show(floor, c.unit) for c in columns if (floor := floor_of(rows, c.key)) is not None},
        tied=_tied(rows, columns),
        measures=charts.measures(rows),
        speed_plot=charts.against(rows, "seconds_per_image", "time per image"),
        cost_plot=charts.against(rows, "train_seconds", "training time") if len(budgets) > 1 else None,
        over_time=charts.over_time(rows),
        per_class=class_tables(rows, names),
    )


def _protocol(rows: list[Row]) -> str:
    """How the rows of a league were measured, in a few words."""
    about = next((row.protocol for row in rows if row.protocol), {})
    data = next((row.first.data["name"] for row in rows if row.first.data.get("name")), "")
    n, size = about.get("n"), about.get("size")
    parts = [
        f"{n:,} samples" if isinstance(n, int) else "",
        next((f"{row.extractor} features" for row in rows if row.extractor), ""),
        f"{size} pixels" if size else "",
        str(data),
    ]
    return "Measured on " + ", ".join(part for part in parts if part)


def _lines(rows: list[Row], columns: list[Column], footnotes: Footnotes) -> list[tuple[Row, list[Written]]]:
    """The table's body, best first by its first column that has a good end; rows without that number last."""
    leading = next((column for column in columns if column.better), None)

    def order(row: Row) -> float:
        mean = row.cell(leading.key).mean if leading else None
        sign = -1 if leading and leading.better == "higher" else 1
        return math.inf if mean is None else sign * mean

    winners = {column.key: best(rows, column.key) for column in columns}
    return [
        (row, [_write(row, column, row.label in winners[column.key], footnotes) for column in columns])
        for row in sorted(rows, key=order)
    ]


def _write(row: Row, column: Column, is_best: bool, footnotes: Footnotes) -> Written:
    cell = row.cell(column.key)
    if cell.mean is None:
        said = ("not recorded", "not a number" if cell.broken else "not defined" if cell.note else "–")
        text = said[0] if cell.note == said[0] else said[1]
        return Written(text, footnote=footnotes.number(cell.note), why=cell.note)
    tag = kind_of(cell) if column.key == "bits_per_dim" else ""
    why = cell.note if tag or cell.note.startswith("unreliable") else ""
    if cell.broken:
        why = "one of the seeds gave a value that is not a number; the others are shown"
    text, ends = written(cell, column), around(cell, column)
    return Written(text, ends, repr(cell.mean), is_best, footnotes.number(why), tag, why)


def _tied(rows: list[Row], columns: list[Column]) -> list[tuple[str, str]]:
    """Which rows cannot be told apart by the measures that have no drawing of their own."""
    found = []
    for column in columns:
        there = [row for row in rows if row.cell(column.key).mean is not None]
        known = any(around(row.cell(column.key), column) for row in there)
        if column.better and not column.headline and len(there) > 1 and known:
            found.append((title(column, rows), charts.tied(ties(rows, column.key), len(there))))
    return found


def interval_note(rows: list[Row]) -> str:
    """What the intervals of this page are, in a sentence or two; "" where there are none."""
    cells = [cell for row in rows for cell in row.cells.values() if interval(cell)]
    if not cells:
        return ""
    counts = {len(row.runs) for row in rows}
    seeds = max(counts)
    said = []
    if seeds > 1:
        now, later = t_quantile(seeds - 1), t_quantile(FEW - 1)
        few = f" {seeds} seeds are few: t is {now:.1f}, where {FEW} would make it {later:.1f}." if seeds < FEW else ""
        said.append(
            "Below each mean over seeds stands its 95 % interval: Student's t over the training seeds, never narrower "
            f"than what another draw of samples would change; of times the range over the seeds.{few}"
        )
    if 1 in counts:
        said.append(
            "With one training seed the interval says what another draw of samples would change; another training "
            "seed may well fall outside it."
        )
    return " ".join(said)


def _groups(columns: list[Column]) -> list[tuple[str, int]]:
    """(group, number of columns), in order."""
    names = list(dict.fromkeys(column.group for column in columns))
    return [(name, sum(column.group == name for column in columns)) for name in names]


def methods(rows: list[Row]) -> list[tuple[str, Column, list[str]]]:
    """(name, measure, what the runs themselves say about it where that is not a footnote already)."""
    found = []
    for column in columns_of(rows):
        cells = [row.cell(column.key) for row in rows]
        notes = [cell.note for cell in cells if cell.mean is not None and cell.note] if column.group != "Cost" else []
        said = [] if column.key == "bits_per_dim" else list(dict.fromkeys(notes))[:3]
        found.append((title(column, rows), column, said))
    return found
