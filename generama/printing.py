"""What measuring found, as one table for a terminal: plain text wherever there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from generama.core import Finding
    from generama.judging import Judgement
    from generama.metrics.measure import Measure

PLAIN_WIDTH = 400  # where no terminal limits a line


def print_judgement(found: Judgement) -> None:
    """A row a measure, a column a subject, the real pictures last; then what to know, and where it is written."""
    live = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if live else PLAIN_WIDTH, highlight=False, markup=False, emoji=False)
    console.print(_table(found))
    for line in _lines(found):
        console.print(line, soft_wrap=True)


def _table(found: Judgement) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("measure")
    table.add_column("better")
    for row in found.rows:
        table.add_column(Text(row.name), overflow="fold")
    table.add_column("real, held out")
    for key in dict.fromkeys(key for row in found.rows for key in row.evaluation.measures):
        measures = [row.evaluation.measures.get(key) for row in found.rows]
        if any(measure is not None and measure.value is not None for measure in measures):
            best = _best(key, measures)
            cells = [_cell(measure, measure is not None and measure is best) for measure in measures]
            floor = next((m.floor for m in measures if m is not None and m.floor is not None), None)
            table.add_row(key, _better(key), *cells, _number(floor))
    return table


def _better(key: str) -> str:
    from generama.report.table import BY_KEY

    return BY_KEY[key].better if key in BY_KEY else ""


def _best(key: str, measures: list[Measure | None]) -> Measure | None:
    """The one with the best value, where there is a choice and a good end."""
    known = [measure for measure in measures if measure is not None and measure.value is not None]
    if len(known) < 2 or not _better(key):
        return None
    return (min if _better(key) == "lower" else max)(known, key=lambda measure: measure.value or 0.0)


def _cell(measure: Measure | None, best: bool) -> Text:
    if measure is None or measure.value is None:
        return Text("-")
    interval = "" if measure.low is None or measure.high is None else f" [{measure.low:.3g}, {measure.high:.3g}]"
    return Text(_number(measure.value) + interval, style="bold" if best else "")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1_000 and float(value).is_integer() else f"{value:.4g}"


def _lines(found: Judgement) -> Iterator[Text]:
    """What stands beneath the table."""
    yield Text()
    for note in found.notes:
        yield Text(note)
    missing: dict[str, list[str]] = {}
    for key, measure in found.rows[0].evaluation.measures.items():
        if measure.value is None and measure.note:
            missing.setdefault(measure.note, []).append(key)
    for note, keys in missing.items():
        yield Text(f"not measured: {', '.join(keys)} ({note})")
    yield Text()
    said: dict[Finding, list[str]] = {}
    for row in found.rows:
        for finding in row.findings:
            said.setdefault(finding, []).append(row.name)
    for finding, names in said.items():
        whose = "" if len(found.rows) == 1 else f"{', '.join(names)}: "
        colour = {"problem": "bold red", "warning": "yellow"}.get(finding.severity, "")
        yield Text(f"{finding.severity}: {whose}{finding.title}", style=colour)
        yield Text(f"    {finding.evidence.rstrip('.')}. What to do: {finding.advice.rstrip('.')}.")
