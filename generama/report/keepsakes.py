"""What people paste elsewhere: the samples of a comparison as one PNG, its table as Markdown."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from generama.pictures import save_png, sheet
from generama.report.collect import Comparison
from generama.report.embed import load_samples
from generama.report.numbers import show
from generama.report.ranking import leagues
from generama.report.table import BY_KEY, Cell, Column, Row, around, columns_of, floor_of, rows_of, title, written

KEPT = (
    "frechet", "precision", "recall", "coverage", "conditional_accuracy", "bits_per_dim", "seconds_per_image",
    "evaluations", "parameters", "images_seen", "peak_memory",
)  # fmt: skip
GRID_ROWS = 4


def write_keepsakes(comparison: Comparison, folder: Path) -> None:
    """Write samples.png and table.md into `folder`; the picture only where there are samples."""
    rows = rows_of(comparison)
    (folder / "table.md").write_text(markdown(rows), encoding="utf-8")
    drawn = [row for row in rows if load_samples(row.first) is not None]
    if drawn:
        drawing = io.BytesIO()
        poster(drawn).savefig(drawing, dpi=110)
        picture = Image.open(drawing).convert("RGB").quantize(128)  # a third of the bytes, and nobody sees it
        save_png(picture, folder / "samples.png", {"comparison": comparison.title})


def markdown(rows: list[Row]) -> str:
    """The most asked-for columns with their intervals, a table for each group of rows that were measured alike."""
    return "\n".join(_table(league) for league in leagues(rows))


def _table(rows: list[Row]) -> str:
    """One table; its last line is what real held-out pictures score."""
    columns = [column for column in columns_of(rows) if column.key in KEPT]
    lines = [
        "| | " + " | ".join(title(column, rows) for column in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for row in rows:
        cells = [_write(row.cell(c.key), c) for c in columns]
        lines.append(f"| {row.label} | " + " | ".join(cells) + " |")
    floors = [floor_of(rows, column.key) for column in columns]
    shown = ["" if f is None else show(f, c.unit) for f, c in zip(floors, columns, strict=True)]
    lines.append("| *real pictures* | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def _write(cell: Cell, column: Column) -> str:
    ends = around(cell, column)
    return written(cell, column) + (f" ({ends})" if ends else "")


def poster(rows: list[Row]) -> Figure:
    """A panel of samples for each row of the table; the same place in each panel has the same seed and class."""
    across = len({row.first.recipe for row in rows}) if len(rows) <= 4 else 3
    down = math.ceil(len(rows) / across)
    figure = Figure(figsize=(3.6 * across, 1.95 * down), layout="constrained")
    panels = np.atleast_1d(figure.subplots(down, across)).flatten()
    for axes, row in zip(panels, _by_budget(rows), strict=False):
        _draw(axes, row)
    for axes in panels:
        axes.set_axis_off()
    return figure


def _by_budget(rows: list[Row]) -> list[Row]:
    """All recipes of one budget, then all of the next."""
    budgets = list(dict.fromkeys(row.first.budget for row in rows))
    return sorted(rows, key=lambda row: budgets.index(row.first.budget))


def _draw(axes: Axes, row: Row) -> None:
    samples = load_samples(row.first)
    assert samples is not None
    distance = row.cell("frechet").mean
    name = title(BY_KEY["frechet"], [row])
    axes.set_title(row.label + (f"\n{name} {show(distance)}" if distance is not None else ""), fontsize=8)
    if samples.points:
        axes.scatter(samples.images[:, 0], samples.images[:, 1], s=1, color="black")
        axes.set_aspect("equal")
        return
    images = samples.images[: 10 * GRID_ROWS]
    drawn = sheet(images, columns=min(10, len(images)))
    axes.imshow(drawn.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
