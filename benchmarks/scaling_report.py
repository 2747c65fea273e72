"""The scaling results as a picture and as tables. `python -m benchmarks.scaling_report` writes both again."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image

from benchmarks.documents import fill, markdown

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]  # a point of benchmarks/scaling.py, as JSON has it
Curve = Callable[[Row], float | None]


def write_report(results: Path, docs: Path) -> None:
    """Draw docs/scaling.png and fill the tables of docs/scaling.md from the results."""
    found = json.loads(results.read_text())
    draw(found["points"], docs / "scaling.png")
    document = docs / "scaling.md"
    fill(document, "measured", f"{about(found)}\n\n![Cost against size](scaling.png)")
    for axis, table in TABLES.items():
        rows = [row for row in found["points"] if row["axis"] == axis]
        fill(document, axis, table(rows) if rows else "*not run yet*")


def about(found: Row) -> str:
    """Where, when and how it was measured."""
    machine = found["machine"]
    device = machine["accelerator"] or f"{machine['cores']} cores, {machine['threads']} threads"
    return (
        f"Measured on {found['date']} with `{found['command']}` in {found['seconds']} s on {machine['processor']}, "
        f"{device}, torch {machine['torch']}, batches of {found['batch']}, `mnist5k` scaled to each size."
    )


def draw(points: Sequence[Row], path: Path) -> None:
    """Six panels, logarithmic both ways, so that a power law is a straight line."""
    figure, axes = plt.subplots(2, 3, figsize=(12, 7), dpi=80, layout="constrained")
    pixels = [row for row in points if row["axis"] == "pixels"]
    panels: list[tuple[str, Curve]] = [
        ("training: GFLOP an image", lambda row: row["flops_per_image"] / 1e9),
        ("training: images a second", lambda row: row["images_per_second"]),
        ("training: peak memory, MiB", lambda row: row["peak_memory"] / 2**20),
        ("sampling: seconds an image", lambda row: row["seconds_per_sample"]),
    ]
    for panel, (title, value) in zip(axes.flat, panels, strict=False):
        for recipe in dict.fromkeys(row["recipe"] for row in pixels):
            line(panel, [row for row in pixels if row["recipe"] == recipe], lambda row: row["size"] ** 2, value, recipe)
        finish(panel, title, "pixels")
        sizes = sorted({row["size"] for row in pixels})
        panel.set_xticks([size**2 for size in sizes], [f"{size}x{size}" for size in sizes])
        panel.minorticks_off()
    wider = [row for row in points if row["axis"] == "parameters"]
    line(axes[1, 1], wider, lambda row: row["parameters"], lambda row: row["images_per_second"], "images a second")
    line(axes[1, 1], wider, lambda row: row["parameters"], lambda row: row["flops_per_image"] / 1e9, "GFLOP an image")
    finish(axes[1, 1], "ddpm at 32 pixels", "parameters")
    more = [row for row in points if row["axis"] == "pictures"]
    line(axes[1, 2], more, lambda row: row["pictures"], lambda row: row["prepare_seconds"], "prepare: seconds")
    line(axes[1, 2], more, lambda row: row["pictures"], lambda row: row["prepare_memory"] / 2**20, "prepare: MiB")
    line(axes[1, 2], more, lambda row: row["pictures"], lambda row: row["peak_memory"] / 2**20, "train: MiB")
    finish(axes[1, 2], "data of 8x8", "pictures")
    drawn = io.BytesIO()
    figure.savefig(drawn)
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(32).save(path, optimize=True)  # a third of the bytes


def line(panel: Axes, rows: Sequence[Row], x: Callable[[Row], float], y: Curve, name: str) -> None:
    """One curve, through the rows that were measured."""
    known = [(x(row), value) for row in rows if (value := y(row)) is not None]
    panel.plot([a for a, _ in known], [b for _, b in known], marker="o", markersize=4, label=name)


def finish(panel: Axes, title: str, x: str) -> None:
    """Scales, title and legend."""
    panel.set(xscale="log", yscale="log", title=title, xlabel=x)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)


def pixels_table(rows: Sequence[Row]) -> str:
    """Every recipe at every size, and by which power of the pixels its costs grow from 16 pixels on."""
    head = ["Recipe", "Size", "Parameters", "GFLOP an image", "Images/s", "Peak memory", "Evaluations", "Time a sample"]
    cells = []
    for row in sorted(rows, key=lambda row: (row["recipe"], row["size"])):
        speed = (
            f"{row['images_per_second']:,.0f}" if row["images_per_second"] >= 10 else f"{row['images_per_second']:.2g}"
        )
        cost = [f"{row['parameters']:,}", f"{row['flops_per_image'] / 1e9:.3g}", speed, mebibytes(row["peak_memory"])]
        drawn = (
            [f"{row['evaluations']:,}", seconds(row["seconds_per_sample"])] if row["seconds_per_sample"] else ["", ""]
        )
        cells.append([row["recipe"], f"{row['size']}", *cost, *drawn])
    return f"{markdown(head, cells)}\n\n{growth_table(rows)}"


def growth_table(rows: Sequence[Row]) -> str:
    """The exponents a in cost ~ pixels^a, by least squares on the logarithms."""
    head = ["Grows as pixels to the power of", "FLOP an image", "Training time an image", "Time a sample"]
    values: list[Curve] = [
        lambda row: row["flops_per_image"],
        lambda row: 1 / row["images_per_second"],
        lambda row: row["seconds_per_sample"],
    ]
    cells = []
    for recipe in sorted({row["recipe"] for row in rows}):
        own = [row for row in rows if row["recipe"] == recipe and row["size"] >= 16]
        cells.append([recipe, *(power(own, value) for value in values)])
    return markdown(head, cells)


def power(rows: Sequence[Row], value: Curve) -> str:
    """The slope of log value over log pixels; nothing where fewer than two points are known."""
    known = [(row["size"] ** 2, cost) for row in rows if (cost := value(row)) is not None]
    if len(known) < 2:
        return ""
    x, y = np.log(np.array(known)).T
    return f"{np.polyfit(x, y, 1)[0]:.2f}"


def parameters_table(rows: Sequence[Row]) -> str:
    """One network in several widths."""
    head = ["ddpm at 32 pixels: parameters", "GFLOP an image", "Images/s", "GFLOP/s", "Peak memory", "Time a sample"]
    cells = []
    for row in rows:
        flops, speed = row["flops_per_image"] / 1e9, row["images_per_second"]
        numbers = [f"{flops:.3g}", f"{speed:,.0f}", f"{flops * speed:.0f}"]
        cells.append(
            [f"{row['parameters']:,}", *numbers, mebibytes(row["peak_memory"]), seconds(row["seconds_per_sample"])]
        )
    return markdown(head, cells)


def pictures_table(rows: Sequence[Row]) -> str:
    """Data sets of more and more pictures."""
    head = ["Pictures of 8x8", "Preparing", "Its peak memory", "Training: images/s", "Its peak memory"]
    cells = []
    for row in rows:
        preparing = [seconds(row["prepare_seconds"]), mebibytes(row["prepare_memory"])]
        training = [f"{row['images_per_second']:,.0f}", mebibytes(row["peak_memory"])]
        cells.append([f"{row['pictures']:,}", *preparing, *training])
    return markdown(head, cells)


def processes_table(rows: Sequence[Row]) -> str:
    """The same training in several processes."""
    head = ["ddpm at 32 pixels: processes", "Images/s", "Of one process", "Peak memory of the first"]
    alone = next((row["images_per_second"] for row in rows if row["processes"] == 1), None)
    cells = []
    for row in rows:
        times = f"{row['images_per_second'] / alone:.2f} times" if alone else ""
        cells.append([str(row["processes"]), f"{row['images_per_second']:,.0f}", times, mebibytes(row["peak_memory"])])
    return markdown(head, cells)


TABLES: dict[str, Callable[[Sequence[Row]], str]] = {
    "pixels": pixels_table,
    "parameters": parameters_table,
    "pictures": pictures_table,
    "processes": processes_table,
}


def mebibytes(count: int) -> str:
    """Bytes as MiB."""
    return f"{count / 2**20:,.0f} MiB"


def seconds(value: float) -> str:
    """Seconds with their unit, in three digits."""
    return f"{value:.3g} s" if value >= 1 else f"{1e3 * value:.3g} ms"


if __name__ == "__main__":
    write_report(ROOT / "benchmarks" / "results" / "scaling.json", ROOT / "docs")
