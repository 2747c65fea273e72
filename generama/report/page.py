"""Rows and figures -> one HTML file that needs no network, no JavaScript and no colour vision."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import jinja2
from markupsafe import Markup

from generama.report import axes, charts, copying, figures, words
from generama.report.choosing import choosing
from generama.report.collect import collect
from generama.report.facts import class_names, facts, heading, machines, patients, repeats, settings, warnings
from generama.report.keepsakes import write_keepsakes
from generama.report.printed import Footnotes, interval_note, leagues_of, methods
from generama.report.records import JUDGED, Comparison
from generama.report.table import Row, rows_of


def write_report(folder: Path | Sequence[Path], out: Path | None = None) -> Path:
    """Make the report of a comparison folder, one run, or a list of runs; returns the file, report.html by default.

    Beside it come samples.png, the samples in one picture, and table.md.

    Whatever state the runs are in, a page is made and says so at its top. UsageError where there is no such folder.
    """
    comparison = collect(folder)
    out = out or comparison.folder / "report.html"
    partial = out.with_name(out.name + ".partial")
    partial.write_text(render(comparison), encoding="utf-8")
    partial.replace(out)
    write_keepsakes(comparison, out.parent)
    return out


def render(comparison: Comparison) -> str:
    """The whole page as text."""
    rows = rows_of(comparison)
    real = figures.open_real(comparison)
    names, footnotes = class_names(comparison), Footnotes()
    trained = not rows or any(run.family != JUDGED for run in comparison.runs)
    style, script = _asset("style.css"), _asset("page.js")
    return _template().render(
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        comparison=comparison,
        heading=heading(comparison),
        facts=facts(comparison),
        warnings=warnings(comparison, rows),
        rows=rows,
        leagues=leagues_of(rows, names, footnotes),
        footnotes=footnotes.texts,
        interval_note=interval_note(rows),
        budgets=list(dict.fromkeys(row.first.budget for row in rows if row.first.budget)),
        real=figures.real_grid(rows, real),
        real_note=real.note,
        gallery=figures.gallery(rows),
        across=_across(rows),
        points=any(run.spec.get("levels") == 0 for run in comparison.runs),
        trained=trained,
        cards=words.at_a_glance(rows),
        choosing=choosing(rows, comparison) if trained else {},
        previews=figures.films(rows),
        losses=charts.losses(rows),
        steps=figures.steps(rows),
        worst_cases=copying.worst_cases(rows, real),
        twins=copying.twins(rows),
        histograms=charts.histograms(rows, names, real),
        topics=words.compare_in_words(rows, comparison),
        methods=methods(rows),
        diagnosed=patients(rows),
        extractors={row.extractor for row in rows},
        extractor_note=next((run.extractor_note for run in comparison.runs if run.extractor_note), ""),
        repeats=repeats(comparison),
        machines=machines(comparison),
        settings=settings(rows),
        several_seeds=any(len(row.runs) > 1 for row in rows),
        class_names=names,
        spec=next((run.spec for run in comparison.runs if run.spec), {}),
    )


def _across(rows: list[Row]) -> int:
    """Columns of the gallery: as many as every recipe has budgets, 2 for four grids or fewer; 0: as many as fit."""
    counts = {sum(row.first.recipe == other.first.recipe for other in rows) for row in rows}
    return counts.pop() if counts in ({2}, {3}) else 2 if len(rows) in (2, 4) else 0


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("generama.report", "parts"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["key"] = axes.key
    return environment.get_template("page.html")


def _asset(name: str) -> str:
    return (files("generama.report") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The source expression that lets exactly this text run under the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
