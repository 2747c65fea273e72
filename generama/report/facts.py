"""The words round the numbers: heading, facts, warnings, and what it takes to repeat everything."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from generama.report.numbers import show
from generama.report.ranking import refusals
from generama.report.records import Comparison, Finding, Run
from generama.report.table import Row

WORDS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve")


@dataclass(frozen=True)
class Repeat:
    """A command, and the runs that it made."""

    command: str
    runs: list[Run]


@dataclass(frozen=True)
class Patient:
    """Runs of one row, and what a diagnosis found in each of them alike."""

    label: str
    colour: int
    runs: list[str]  # names of their folders
    findings: list[Finding]


def heading(comparison: Comparison) -> str:
    """What the page is about, in one line."""
    data = str(comparison.data.get("name") or "an unnamed data set")
    recipes = len(comparison.recipes)
    if recipes == 1:
        return f"{comparison.recipes[0]} on {data}"
    return f"{WORDS[recipes] if recipes < len(WORDS) else recipes} ways to draw {data}"


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """The few things a reader must know before any number."""
    data, spec = comparison.data, next((run.spec for run in comparison.runs if run.spec), {})
    size, channels, classes = spec.get("size"), spec.get("channels"), spec.get("classes")
    kind = {1: "grey", 3: "colour"}.get(channels or 0, f"{channels} channels")
    look = "points in the plane" if spec.get("levels") == 0 else f"{size} × {size} pixels, {kind}" if size else ""
    counts = " + ".join(
        f"{plain(data[k])} {w}" for k, w in (("train", "for training"), ("held_out", "held out")) if data.get(k)
    )
    seeds = ", ".join(str(seed) for seed in comparison.seeds)
    measured = sorted({run.n for run in comparison.runs if run.n}) or ([comparison.n] if comparison.n else [])
    trained = sum(
        run.readings["train_seconds"].value or 0 for run in comparison.runs if "train_seconds" in run.readings
    )
    found = [
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
        ("Samples measured", f"{' or '.join(f'{n:,}' for n in measured)} a run" if measured else ""),
        ("Machine", _machine(comparison.machine)),
        ("Trained for", f"{show(trained, 'seconds')} in all" if trained else ""),
        ("Made with", f"Generama {comparison.version}" if comparison.version else ""),
    ]
    return [(name, text) for name, text in found if text]


def _machine(machine: dict[str, Any]) -> str:
    parts = [
        machine.get("processor") or machine.get("cpu"),
        f"{machine['cores']} cores" if machine.get("cores") else None,
        machine.get("device"),
    ]
    return " · ".join(str(part) for part in parts if part)


def warnings(comparison: Comparison, rows: list[Row]) -> list[str]:
    """Everything that is not as it should be, one sentence a run; the page shows them before anything else."""
    found = list(comparison.notes)
    if not comparison.runs:
        found.append("No run was found in this folder, so there is nothing to compare yet.")
    found += [f"{name} failed: {error}" for name, error in comparison.failed.items()]
    for run in comparison.runs:
        parts = [text for text in (_state(run), "; ".join(run.notes)) if text]
        if parts:
            found.append(f"{run.folder.name}: {'; '.join(parts)}")
    for run in comparison.runs:
        problems = [finding.title.rstrip(".") for finding in run.findings or [] if finding.severity == "problem"]
        if problems:
            found.append(f"{run.folder.name}: {'; '.join(problems)}; see the diagnosis")
    return found + refusals(rows)


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


def repeats(comparison: Comparison) -> list[Repeat]:
    """The commands that made the runs, each once; runs that do not say theirs share the empty command."""
    commands = dict.fromkeys(run.command for run in comparison.runs)
    return [Repeat(command, [run for run in comparison.runs if run.command == command]) for command in commands]


def machines(comparison: Comparison) -> list[tuple[list[str], list[tuple[str, str]]]]:
    """Hardware and versions as the runs recorded them: (names of the runs, facts), each different machine once."""
    found: dict[str, tuple[list[str], list[tuple[str, str]]]] = {}
    for run in comparison.runs:
        if run.machine:
            said = [(str(name), plain(value)) for name, value in run.machine.items() if value not in (None, "", {})]
            found.setdefault(json.dumps(said), ([], said))[0].append(run.folder.name)
    if not found and comparison.machine:
        return [([], [(str(name), plain(value)) for name, value in comparison.machine.items()])]
    return list(found.values())


def patients(rows: list[Row]) -> list[Patient]:
    """The diagnosed runs; those of a row in which the very same was found stand together."""
    found: list[Patient] = []
    for row in rows:
        for run in row.runs:
            if run.findings is None:
                continue
            same = next((p for p in found if p.label == row.label and p.findings == run.findings), None)
            if same:
                same.runs.append(run.folder.name)
            else:
                found.append(Patient(row.label, row.colour, [run.folder.name], run.findings))
    return found


def settings(rows: list[Row]) -> list[tuple[str, int, str]]:
    """(label, colour, configuration as indented JSON) of each row that has one."""
    return [
        (row.label, row.colour, json.dumps(row.first.config, indent=2, ensure_ascii=False, default=str))
        for row in rows
        if row.first.config
    ]


def class_names(comparison: Comparison) -> list[str]:
    """The names of the classes; [] where the data does not say them."""
    names = comparison.data.get("class_names") or next((r.data.get("class_names") for r in comparison.runs), None)
    return [str(name) for name in names] if isinstance(names, list) else []


def plain(value: Any) -> str:
    """A value of a JSON file in words."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {plain(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(plain(one) for one in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
