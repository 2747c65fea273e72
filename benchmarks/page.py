"""From benchmarks/results/*.json to the tables of docs/performance.md, between its markers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.documents import fill, markdown
from benchmarks.rows import ROOT, Row, read

DOCUMENT = ROOT / "docs" / "performance.md"
METRICS = ROOT / "docs" / "metrics.md"
DIFFUSION = ROOT / "docs" / "diffusion.md"
FEW_STEPS = ROOT / "docs" / "few-steps.md"
REAL = "real held-out pictures"
NOT_RUN = "Not run yet."
UNTIMED = {
    "diffusion_quality",
    "diffusion_calls",
    "diffusion_schedulers",
    "few_steps",
    "diffusion_variants",
    "diffusion_ways",
}  # distances
BUSY = 0.05  # share of the machine from which the work of others is to be seen in the figures
SPEED = {  # column -> how its values are written
    "parameters": "{:,.0f}",
    "operations of a training image": "{:,.0f} MFLOP",
    "training speed": "{:,.1f} images/s",
    "training operations": "{:,.0f} GFLOP/s",
    "share of the convolution peak": "{:.0%}",
    "peak memory": "{:,.0f} MiB",
}


def write_page() -> None:
    """Write the section of every benchmark that was run; the others say that they were not."""
    for name, section in SECTIONS.items():
        sheets = read(name)
        written = "\n\n".join(f"{where(rows)}\n\n{section(rows)}\n\n{origin(rows, name)}" for rows in sheets)
        fill(document_of(name), name, written or NOT_RUN)


def document_of(name: str) -> Path:
    """The page on which a benchmark stands."""
    if name.startswith("diffusion"):
        return DIFFUSION
    return {"metrics": METRICS, "few_steps": FEW_STEPS}.get(name, DOCUMENT)


def where(rows: Sequence[Row]) -> str:
    """The heading of a sheet: the kind of machine."""
    return f"#### On {rows[0].machine['cores']} cores with {rows[0].machine['instructions']}"


def speed(rows: Sequence[Row]) -> str:
    """Targets, one line a contender, and every ratio."""
    cells = {(row.whom, row.what): row for row in rows}
    lines = []
    for name in dict.fromkeys(row.whom for row in rows if row.what in SPEED):
        first = cells[name, "parameters"]
        values = [form.format(cells[name, what].value) for what, form in SPEED.items()]
        lines.append([name, first.versions["torch"], first.note, *values])
    peaks = "; ".join(f"{row.whom}: {row.value:,.0f} {row.unit}" for row in rows if row.what == "convolution peak")
    contenders = markdown(["contender", "torch", "dtype", *SPEED], lines)
    ratios = [row for row in rows if row.unit == "x"]
    return "\n\n".join([targets(rows), contenders, f"Convolution peak: {peaks}.", figures(ratios)])


def with_targets(rows: Sequence[Row]) -> str:
    """The targets, then every figure."""
    return f"{targets(rows)}\n\n{figures(rows)}"


def metrics(rows: Sequence[Row]) -> str:
    """Every number of ours beside a peer's, then speed and memory."""
    lines = []
    for row in rows:
        if row.what.startswith("relative error of "):
            values = json.loads(row.note)
            digits = [f"{values[side]:.10g}" for side in ("ours", "peer")]
            said = f"{row.value:.1g}" if row.met else f"**{row.value:.1g}**"
            lines.append([row.what.removeprefix("relative error of "), row.whom, *digits, said])
    timed = [row for row in rows if not row.what.startswith("relative error of ")]
    table = markdown(["number", "peer", "ours", "peer's", "relative error"], lines)
    return "\n\n".join([table, targets(timed), figures(timed)])


def network_calls(rows: Sequence[Row]) -> str:
    """The targets, then distances: a line for each way of drawing, a column for each number of network calls."""
    ways = by_way(rows)
    counts = sorted({count for points in ways.values() for count in points})
    lines = [[way, *(number(points[c]) if c in points else "" for c in counts)] for way, points in ways.items()]
    real = next(row for row in rows if row.whom == REAL)
    floor = f"{real.what}; {REAL}: {number(real.value)}."
    return "\n\n".join([targets(rows), floor, markdown(["network calls", *(f"{c:,}" for c in counts)], lines)])


def by_name(rows: Sequence[Row]) -> str:
    """A line for each name, a column for each thing that was measured."""
    values = {(row.whom, row.what): number(row.value) for row in rows}
    heads = list(dict.fromkeys(row.what for row in rows))
    names = dict.fromkeys(row.whom for row in rows)
    return markdown(["", *heads], [[name, *(values.get((name, head), "") for head in heads)] for name in names])


def by_way(rows: Sequence[Row]) -> dict[str, dict[int, float]]:
    """Way of drawing -> network calls -> distance."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.whom != REAL and not row.target:
            found.setdefault(row.whom.rpartition(": ")[0], {})[calls_of(row)] = row.value
    return found


def calls_of(row: Row) -> int:
    """The network calls for an image that a row's name ends with."""
    return int(row.whom.rpartition(": ")[2].removesuffix(" calls").replace(",", ""))


def figures(rows: Sequence[Row]) -> str:
    """One line a figure, with the spread of its runs."""
    lines = []
    for row in rows:
        spread = f"{number(min(row.runs))} to {number(max(row.runs))}" if len(row.runs) > 1 else ""
        lines.append([row.what, row.whom, f"{number(row.value)} {row.unit}".strip(), spread, str(len(row.runs))])
    return markdown(["what", "of", "median", "from, to", "runs"], lines)


def targets(rows: Sequence[Row]) -> str:
    """What was aimed at, what came out, and by how much it was met or missed."""
    lines = []
    for row in rows:
        if row.target:
            by = abs(row.value / row.limit - 1)
            verdict = f"{'met' if row.met else '**missed**'} by {by:{'.0%' if by >= 0.01 else '.1%'}}"
            values = [f"{value} {row.unit}".strip() for value in (row.target, number(row.value))]
            lines.append([row.what, row.whom, *values, verdict])
    return markdown(["target", "of", "aimed at", "measured", "verdict"], lines)


def origin(rows: Sequence[Row], name: str = "") -> str:
    """Machine, versions, date and command, and where time was measured what else the machine did meanwhile."""
    m = rows[0].machine
    found = [pair for row in rows for pair in row.versions.items()]
    told = {what: dict.fromkeys(v for n, v in found if n == what) for what in dict.fromkeys(n for n, _ in found)}
    versions = ", ".join(f"{what} {' and '.join(values)}" for what, values in told.items())
    on = f"{m['processor']} ({m['instructions']}), {m['cores']} cores, {m['threads']} threads, {m['platform']}"
    measured = f"Measured {m['date']} on {on}; {versions}. Repeat: `{rows[-1].command}`."
    return measured if name in UNTIMED else f"{measured} {company(m['others'])}"


def company(others: float | None) -> str:
    """What other processes took of the machine at the most, and whether the figures count."""
    if others is None:
        return "What other processes took of the machine was not measured."
    took = f"ther processes took at most {others:.1%} of the machine"
    return f"**O{took}: these figures do not count.**" if others > BUSY else f"O{took}."


def number(value: float) -> str:
    """Four digits, or all of a large number's."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


SECTIONS: dict[str, Callable[[Sequence[Row]], str]] = {
    "startup": with_targets,
    "data_path": with_targets,
    "speed": speed,
    "time_to_quality": with_targets,
    "time_to_quality_torchcfm": with_targets,
    "metrics": metrics,
    "diffusion_quality": with_targets,
    "diffusion_calls": network_calls,
    "diffusion_schedulers": by_name,
    "diffusion_speed": with_targets,
    "few_steps": network_calls,
    "diffusion_variants": by_name,
    "diffusion_ways": by_name,
}
