"""Rows of the table -> what a recommendation is made from, read from the files of their runs."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from generama.report.collect import Comparison, Run
from generama.report.recommendation import Candidate, Figure
from generama.report.table import BY_KEY, Cell, Row, cells_of, ends_of

FROM_ELSEWHERE = "judged"  # the family of pictures that another program made: there is no model to recommend


def candidates_of(rows: Sequence[Row], comparison: Comparison) -> list[Candidate]:
    """A candidate a row; pictures of other programs are none."""
    return [_candidate(row, comparison) for row in rows if row.first.family != FROM_ELSEWHERE]


def _candidate(row: Row, comparison: Comparison) -> Candidate:
    metrics = {run.folder: read_object(run.folder / "metrics.json") for run in row.runs}
    sound = [run for run in row.runs if math.isfinite(distance_of(run.folder))]
    kept = [metrics[run.folder] for run in sound]
    cells = {key: cell for key, cell in cells_of(sound).items() if key in BY_KEY}
    figures = {key: _figure(key, cell) for key, cell in cells.items() if cell.mean is not None}
    return Candidate(
        label=row.label,
        figures=figures,
        run=str(min(sound, key=lambda run: distance_of(run.folder)).folder) if sound else "",
        seeds=len(sound),
        failed=len(row.runs) - len(sound) + len(without_folder(row, comparison)),
        protocol=json.dumps(_protocol(kept[0], sound[0])) if kept else "",
        problems=list(dict.fromkeys(title for run in sound for title in _problems(run.folder))),
        gain=_gain(kept),
        reasons={key: cell.note for key, cell in cells.items() if key not in figures},
    )


def _figure(key: str, cell: Cell) -> Figure:
    """A cell of the table, over the seeds that can be counted on."""
    assert cell.mean is not None
    low, high = ends_of(cell, BY_KEY[key]) or (None, None)
    return Figure(cell.mean, low, high, cell.floor, cell.note, bound="bound" in cell.note.lower())


def distance_of(run: Path) -> float:
    """The Fréchet distance of a run; infinite where it failed, is not done, or where that is no number."""
    if read_object(run / "status.json").get("state") != "done":
        return math.inf
    value = read_object(run / "metrics.json").get("measures", {}).get("frechet", {}).get("value")
    return float(value) if _finite(value) else math.inf


def without_folder(row: Row, comparison: Comparison) -> list[str]:
    """Names of runs of this row, at the recipe's own rate, that failed before they had a folder."""
    stems = {run.folder.name.rpartition("-seed")[0] for run in row.runs}
    there = {run.folder.name for run in row.runs}
    return [name for name in comparison.failed if name.rpartition("-seed")[0] in stems and name not in there]


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none, or where it is damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _protocol(metrics: dict[str, Any], run: Run) -> dict[str, Any]:
    known = {"n": metrics.get("n"), "extractor": metrics.get("extractor"), "data": run.data.get("hash")}
    return metrics.get("protocol") or known


def _problems(run: Path) -> list[str]:
    findings = read_object(run / "diagnosis.json").get("findings", [])
    return [str(one.get("title")) for one in findings if isinstance(one, dict) and one.get("severity") == "problem"]


def _gain(kept: Sequence[dict[str, Any]]) -> float | None:
    """The mean share of its kernel distance that a run lost between its last two previews."""
    lost = []
    for one in kept:
        kids = [point.get("kid") for point in one.get("progress", {}).get("points", [])]
        if len(kids) > 1 and _finite(kids[-1]) and _finite(kids[-2]) and kids[-2] > 0:
            lost.append(1 - max(kids[-1], 0.0) / kids[-2])
    return statistics.fmean(lost) if lost else None


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
