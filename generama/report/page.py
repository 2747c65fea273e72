"""Rows and figures -> one HTML file that needs no network, no JavaScript and no colour vision."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from generama.report import figures, plots, words
from generama.report.collect import Comparison, Run, collect
from generama.report.keepsakes import write_keepsakes
from generama.report.table import SPREAD, Column, Row, best, columns_of, floor_of, rows_of, show, title

WORDS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve")


@dataclass(frozen=True)
class Written:
    """A cell as it is printed."""

    text: str
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
    columns = columns_of(rows)
    real = figures.open_real(comparison)
    footnotes = Footnotes()
    style, script = _asset("style.css"), _asset("sort.js")
    budgets = list(dict.fromkeys(row.first.budget for row in rows if row.first.budget))
    return _template().render(
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        comparison=comparison,
        heading=_heading(comparison),
        facts=_facts(comparison),
        warnings=_warnings(comparison),
        rows=rows,
        columns=columns,
        groups=_groups(columns),
        titles={column.key: title(column, comparison) for column in columns},
        sorted_by=next((c.key for c in columns if c.better), ""),
        table=_table(rows, columns, footnotes),
        floors={c.key: show(floor, c.unit) for c in columns if (floor := floor_of(rows, c.key)) is not None},
        footnotes=footnotes.texts,
        budgets=budgets,
        real=figures.real_grid(rows, real),
        gallery=figures.gallery(rows),
        across=_across(rows),
        points=any(run.spec.get("levels") == 0 for run in comparison.runs),
        cards=words.at_a_glance(rows),
        real_note=real.note,
        speed_plot=figures.against(rows, comparison, "seconds_per_image", "time per image"),
        cost_plot=figures.against(rows, comparison, "train_seconds", "training time") if len(budgets) > 1 else None,
        films=figures.films(rows),
        losses=figures.losses(rows),
        noise=figures.noise(rows),
        neighbours=figures.neighbours(rows, real),
        histograms=figures.histograms(rows, _class_names(comparison), real),
        topics=words.compare_in_words(rows, comparison),
        methods=_methods(rows, columns),
        extractor_note=next((run.extractor_note for run in comparison.runs if run.extractor_note), ""),
        machine=[(str(name), _plain(value)) for name, value in comparison.machine.items()],
        several_seeds=any(len(row.runs) > 1 for row in rows),
        class_names=_class_names(comparison),
        spec=next((run.spec for run in comparison.runs if run.spec), {}),
    )


def _heading(comparison: Comparison) -> str:
    """What the page is about, in one line."""
    data = str(comparison.data.get("name") or "an unnamed data set")
    recipes = len(comparison.recipes)
    if recipes == 1:
        return f"{comparison.recipes[0]} on {data}"
    return f"{WORDS[recipes] if recipes < len(WORDS) else recipes} ways to draw {data}"


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    """The few things a reader must know before any number."""
    data, spec = comparison.data, next((run.spec for run in comparison.runs if run.spec), {})
    size, channels, classes = spec.get("size"), spec.get("channels"), spec.get("classes")
    kind = {1: "grey", 3: "colour"}.get(channels or 0, f"{channels} channels")
    look = "points in the plane" if spec.get("levels") == 0 else f"{size} × {size} pixels, {kind}" if size else ""
    counts = " + ".join(
        f"{_plain(data[k])} {w}" for k, w in (("train", "for training"), ("held_out", "held out")) if data.get(k)
    )
    seeds = ", ".join(str(seed) for seed in comparison.seeds)
    trained = sum(
        run.readings["train_seconds"].value or 0 for run in comparison.runs if "train_seconds" in run.readings
    )
    facts = [
        ("Data", " · ".join(str(part) for part in (data.get("name"), look, counts) if part)),
        ("Classes", f"{classes}" if classes else "no labels" if spec else ""),
        ("Fingerprint", str(data.get("hash") or "")[:16]),
        ("Licence", str(data.get("licence") or "")),
        ("Budget", comparison.budget),
        (
            "Seeds",
            f"{seeds} ({len(comparison.seeds)} run{'s' if len(comparison.seeds) > 1 else ''} of each recipe)"
            if seeds
            else "",
        ),
        ("Samples measured", f"{comparison.n:,} a run" if comparison.n else ""),
        ("Machine", _machine(comparison.machine)),
        ("Trained for", f"{show(trained, 'seconds')} in all" if trained else ""),
        ("Made with", f"Generama {comparison.version}" if comparison.version else ""),
    ]
    return [(name, text) for name, text in facts if text]


def _machine(machine: dict[str, Any]) -> str:
    parts = [
        machine.get("processor") or machine.get("cpu"),
        f"{machine['cores']} cores" if machine.get("cores") else None,
        machine.get("device"),
    ]
    return " · ".join(str(part) for part in parts if part)


def _warnings(comparison: Comparison) -> list[str]:
    """Everything that is not as it should be, one sentence a run; the page shows them before anything else."""
    found = list(comparison.notes)
    if not comparison.runs:
        found.append("No run was found in this folder, so there is nothing to compare yet.")
    found += [f"{name} failed: {error}" for name, error in comparison.failed.items()]
    for run in comparison.runs:
        parts = [text for text in (_state(run), "; ".join(run.notes)) if text]
        if parts:
            found.append(f"{run.folder.name}: {'; '.join(parts)}")
    return found


def _state(run: Run) -> str:
    if run.state == "done":
        return ""
    if run.state == "failed":
        return f"failed: {run.error or 'it does not say why'}"
    if run.state == "running":
        return "was still running when this page was made; its numbers are not final"
    if run.state == "interrupted":
        return "was interrupted before its budget was used"
    return "does not say whether it finished"


def _table(rows: list[Row], columns: list[Column], footnotes: Footnotes) -> list[tuple[Row, list[Written]]]:
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
    tag = words.kind_of(cell) if column.key == "bits_per_dim" else ""
    why = cell.note if tag or cell.note.startswith("unreliable") else ""
    if cell.broken:
        why = "one of the seeds gave a value that is not a number; the others are shown"
    text = ("≤ " if tag == "bound" else "") + show(
        cell.mean, column.unit, cell.spread if column.group in SPREAD else None
    )
    return Written(text, repr(cell.mean), is_best, footnotes.number(why), tag, why)


def _across(rows: list[Row]) -> int:
    """Columns of the gallery: as many as every recipe has budgets, 2 for four grids or fewer; 0: as many as fit."""
    counts = {sum(row.first.recipe == other.first.recipe for other in rows) for row in rows}
    return counts.pop() if counts in ({2}, {3}) else 2 if len(rows) in (2, 4) else 0


def _groups(columns: list[Column]) -> list[tuple[str, int]]:
    """(group, number of columns), in order."""
    names = list(dict.fromkeys(column.group for column in columns))
    return [(name, sum(column.group == name for column in columns)) for name in names]


def _methods(rows: list[Row], columns: list[Column]) -> list[tuple[Column, list[str]]]:
    """Each measure with what the runs themselves say about it, where that is not a footnote already."""
    found = []
    for column in columns:
        cells = [row.cell(column.key) for row in rows]
        notes = [cell.note for cell in cells if cell.mean is not None and cell.note] if column.group != "Cost" else []
        found.append((column, [] if column.key == "bits_per_dim" else list(dict.fromkeys(notes))[:3]))
    return found


def _class_names(comparison: Comparison) -> list[str]:
    names = comparison.data.get("class_names") or next((r.data.get("class_names") for r in comparison.runs), None)
    return [str(name) for name in names] if isinstance(names, list) else []


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(one) for one in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["key"] = plots.key
    return environment.from_string(_asset("template.html"))


def _asset(name: str) -> str:
    return (files("generama.report") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The source expression that lets exactly this text run under the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
