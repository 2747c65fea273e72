"""Which one should I use? All that the page says of it, and the comparison from which the terminal answers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from generama.errors import UsageError
from generama.metrics.over_time import seconds_to
from generama.report.candidates import candidates_of
from generama.report.collect import collect
from generama.report.lenient import read_object
from generama.report.recommendation import NEEDS, Recommendation, recommend
from generama.report.records import Comparison, Run
from generama.report.stability import stability_of
from generama.report.table import Row, rows_of
from generama.report.textbook import RULE, SOURCES, aspects, subjects_of


def choosing(rows: Sequence[Row], comparison: Comparison) -> dict[str, Any]:
    """What recommendation.html and textbook.html show; {} where nothing was measured."""
    about = read_object(comparison.folder / "compare.json")
    measured = {c.label: c for c in candidates_of(rows, comparison)}
    if not any(c.figures for c in measured.values()):
        return {}
    level, seconds = times_to_quality(rows, about.get("quality"))
    stability = {row.label: stability_of(row, comparison, about) for row in rows}
    return {
        "recommendations": [recommend(list(measured.values()), need) for need in NEEDS],
        "colours": {row.label: row.colour for row in rows},
        "aspects": aspects(subjects_of(rows, measured, stability, seconds), level),
        "level": level,
        "rule": RULE,
        "sources": SOURCES,
    }


def times_to_quality(rows: Sequence[Row], given: float | None) -> tuple[float | None, Mapping[str, float | None]]:
    """A kernel distance, and the training seconds that each row took to it: the mean over its seeds, by label.

    Without one given it is the median of the rows' last ones, so that about half of them reach it. The seconds are
    infinite where a seed did not, and None where the run kept no pictures.
    """
    points = {row.label: [p for run in row.runs if (p := _points(run))] for row in rows}
    last = [statistics.fmean(p[-1]["kid"] for p in seeds) for seeds in points.values() if seeds]
    level = given if given is not None else statistics.median_high(last) if last else None
    if level is None:
        return None, dict.fromkeys(points)
    found: dict[str, float | None] = {}
    for label, seeds in points.items():
        reached = [seconds_to(p, level) for p in seeds]
        times = [math.inf if one is None else one for one in reached]
        found[label] = statistics.fmean(times) if times else None
    return level, found


def _points(run: Run) -> list[dict[str, float]]:
    return [point for point in run.progress.points if "kid" in point]


def recommend_from(folder: Path, need: str) -> Recommendation:
    """The recommendation of one comparison."""
    comparison = collect(folder)
    found = recommend(candidates_of(rows_of(comparison), comparison), need)
    seeds = f"{len(comparison.seeds)} seed{'s' if len(comparison.seeds) != 1 else ''}"
    about = [str(comparison.data.get("name") or "unnamed data"), comparison.budget, seeds]
    started = read_object(folder / "compare.json").get("started")
    where = f"{folder}: {', '.join(part for part in (*about, started) if part)}."
    return replace(found, sections=[*found.sections, ("Measured in", [where])])


def newest_comparison(data: str | None, runs: Path = Path("runs")) -> Path:
    """The newest comparison below `runs` of these data, by name, source or hash; of any data for None.

    Raises UsageError, with what to type, where there is none that has measured anything.
    """
    known = [(path.parent, read_object(path)) for path in runs.glob("*/compare.json")]
    known = [(folder, about) for folder, about in known if any(folder.glob("*/metrics.json"))]
    fit = [(folder, about) for folder, about in known if data is None or _is_of(about, data)]
    if not fit:
        others = sorted({str(about.get("data", {}).get("name")) for _, about in known})
        there = f"; there are some of {', '.join(others)}" if others else ""
        wanted = f" --data {data}" if data else ""
        what = f" of '{data}'" if data else ""
        raise UsageError(f"no comparison{what} in {runs}{there}; make one: generama compare{wanted}")
    return max(fit, key=lambda one: (str(one[1].get("started", "")), one[0].name))[0]


def _is_of(about: dict[str, Any], data: str) -> bool:
    """Whether a comparison is of the data that somebody names."""
    known = about.get("data", {})
    if data in (known.get("name"), known.get("source")):
        return True
    same_hash = len(data) >= 8 and str(known.get("hash", "")).startswith(data)
    return same_hash or Path(str(known.get("source"))).resolve() == Path(data).resolve()
