"""Rows of the table -> what a recommendation is made from: the seeds of each that can be counted on."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence

from generama.report.recommendation import Candidate, Figure
from generama.report.records import JUDGED, Comparison, Run
from generama.report.table import BY_KEY, Cell, Row, cells_of, ends_of


def candidates_of(rows: Sequence[Row], comparison: Comparison) -> list[Candidate]:
    """A candidate a row; pictures of other programs are none."""
    return [_candidate(row, comparison) for row in rows if row.first.family != JUDGED]


def _candidate(row: Row, comparison: Comparison) -> Candidate:
    sound = [run for run in row.runs if math.isfinite(distance_of(run))]
    cells = {key: cell for key, cell in cells_of(sound).items() if key in BY_KEY}
    figures = {key: _figure(key, cell) for key, cell in cells.items() if cell.mean is not None}
    problems = [one.title for run in sound for one in run.findings or () if one.severity == "problem"]
    return Candidate(
        label=row.label,
        figures=figures,
        run=str(min(sound, key=distance_of).folder) if sound else "",
        seeds=len(sound),
        failed=len(row.runs) - len(sound) + len(without_folder(row, comparison)),
        protocol=json.dumps(sound[0].protocol, sort_keys=True) if sound else "",
        problems=list(dict.fromkeys(problems)),
        gain=_gain(sound),
        reasons={key: cell.note for key, cell in cells.items() if key not in figures},
    )


def _figure(key: str, cell: Cell) -> Figure:
    """A cell of the table, over the seeds that can be counted on."""
    assert cell.mean is not None
    low, high = ends_of(cell, BY_KEY[key]) or (None, None)
    return Figure(cell.mean, low, high, cell.floor, cell.note, bound="bound" in cell.note.lower())


def distance_of(run: Run) -> float:
    """The Fréchet distance of a run; infinite where it failed, is not done, or where that is no number."""
    reading = run.readings.get("frechet") if run.state == "done" else None
    value = reading.value if reading else None
    return value if value is not None and math.isfinite(value) else math.inf


def without_folder(row: Row, comparison: Comparison) -> list[str]:
    """Names of runs of this row, at the recipe's own rate, that failed before they had a folder."""
    stems = {run.folder.name.rpartition("-seed")[0] for run in row.runs}
    there = {run.folder.name for run in row.runs}
    return [name for name in comparison.failed if name.rpartition("-seed")[0] in stems and name not in there]


def _gain(runs: Sequence[Run]) -> float | None:
    """The mean share of its kernel distance that a run lost between its last two previews."""
    lost = []
    for run in runs:
        kids = [point["kid"] for point in run.progress.points if "kid" in point]
        if len(kids) > 1 and kids[-2] > 0:
            lost.append(1 - max(kids[-1], 0.0) / kids[-2])
    return statistics.fmean(lost) if lost else None
