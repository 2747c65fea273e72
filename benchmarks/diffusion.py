"""How good a trained diffusion run is on a whole data set, and in how few network calls.

    python -m benchmarks.diffusion quality runs/mnist --steps 5 --guidance 1 1.2
    python -m benchmarks.diffusion calls runs/mnist
    python -m benchmarks.diffusion few runs/mnist runs/mnist-reflow runs/mnist-reflow-distilled --data mnist.npz

They fill tables of docs/diffusion.md and docs/few-steps.md, and `calls` and `few` draw pictures for them. The runs were
trained by the commands that stand there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
import tyro
from torch import Tensor
from tyro.conf import Positional

import generama
from benchmarks.gallery import SHOWN, draw_rows
from benchmarks.measuring import PLAIN, WORDS, measured
from benchmarks.page import REAL, by_way, calls_of, write_page
from benchmarks.rows import ROOT, Row, Sheet, kept, machine, versions
from generama.data import Data, open_data
from generama.families.diffusion import Diffusion
from generama.gaussian.formulations import RectifiedFlow
from generama.run import Trained

TARGETS = {"frechet": "<= 2 floors", "conditional_accuracy": ">= 0.99", "recall": ">= 0.6"}


@dataclass(frozen=True)
class Way:
    """A sampler on a grid, and the numbers of its steps that are tried."""

    sampler: str
    grid: str
    steps: tuple[int, ...]

    @property
    def name(self) -> str:
        """As the tables call it."""
        return f"{self.sampler}, {self.grid}"


WAYS = (
    Way("euler", "uniform", (1, 2, 5, 10, 20)),
    Way("euler", "log-snr", (5, 10, 20)),
    Way("heun", "uniform", (3, 5, 10)),
    Way("heun", "karras", (5, 10)),
    Way("dpmpp-2m", "uniform", (5, 10, 20)),
    Way("dpmpp-2m", "log-snr", (10, 20)),
    Way("dpmpp-2m", "ddpm", (5, 7, 10)),
    Way("ancestral", "uniform", (10, 30, 100)),
)


def quality(
    run: Positional[Path],
    sampler: str = "heun",
    steps: int = 5,
    guidance: tuple[float, ...] = (1.0,),
    n: int = 10_000,
    threads: int = os.cpu_count() or 1,
) -> None:
    """Draw n images of a run at each scale of guidance, and measure them beside as many held-out pictures.

    Rows of runs on other data are kept.
    """
    torch.set_num_threads(threads)
    scales = " ".join(f"{scale:g}" for scale in guidance)
    words = (
        f"python -m benchmarks.diffusion quality RUN --sampler {sampler} --steps {steps} --guidance {scales} --n {n}"
    )
    sheet = Sheet("diffusion_quality", words, machine(threads))
    trained = generama.load(run)
    data = trained.run.data()
    sheet.rows = [row for row in kept(sheet.name, sheet.machine) if row.whom.partition(",")[0] != data.meta.name]
    for scale in guidance:
        whom = f"{data.meta.name}, {sampler}, {steps} steps, guidance {scale:g}"
        images = trained.sample(range(n), sampler=sampler, steps=steps, guidance=scale)
        measured(sheet, whom, images, data, tuple(WORDS), f"{data.meta.name}, {REAL}", TARGETS)
    status = trained.run.read_status()
    note = f"{status['images']:,} images"
    sheet.add("training", data.meta.name, [status["seconds"] / 60], "min", versions(), note=note)
    sheet.save()
    write_page()


def calls(run: Positional[Path], n: int = 2_000, ancestral: int = 1_000, threads: int = os.cpu_count() or 1) -> None:
    """The distance of n images of a run by sampler, grid and steps, beside that of very many ancestral steps."""
    torch.set_num_threads(threads)
    words = f"python -m benchmarks.diffusion calls RUN --n {n} --ancestral {ancestral}"
    sheet = Sheet("diffusion_calls", words, machine(threads))
    trained = generama.load(run)
    data = trained.run.data()
    for way in WAYS:
        for steps in way.steps:
            options = PLAIN | {"sampler": way.sampler, "grid": way.grid, "steps": steps}
            entered(sheet, way.name, trained, data, n, options)
    options = PLAIN | {"sampler": "ancestral", "grid": "uniform", "steps": ancestral}
    goal = entered(sheet, "ancestral, uniform", trained, data, n, options)
    compare(sheet, goal, ancestral, 10, "<= 1.1")
    sheet.save()
    draw(sheet.rows, ROOT / "docs" / "diffusion-calls.png")
    write_page()


def few(runs: Positional[tuple[Path, ...]], data: str, n: int = 2_000, threads: int = os.cpu_count() or 1) -> None:
    """The distance to `data` of runs made for few steps, which may have learned from a teacher's images instead."""
    torch.set_num_threads(threads)
    sheet = Sheet("few_steps", f"python -m benchmarks.diffusion few RUN ... --data DATA --n {n}", machine(threads))
    opened = open_data(data)
    shown: dict[str, Tensor] = {}
    for folder in runs:
        student = generama.load(folder)
        alone = getattr(student.generator, "formulation", None) == RectifiedFlow(times="one-step")
        for count in (1,) if alone else (1, 2, 4, 10):
            options = {"steps": count, **(PLAIN if isinstance(student.generator, Diffusion) else {})}
            entered(sheet, folder.name, student, opened, n, options)
            shown[f"{folder.name}, {count}"] = student.sample(range(SHOWN), **options)
    tried = kept("diffusion_calls", sheet.machine)
    many = max((row for row in tried if is_distance(row, n)), key=calls_of)
    compare(sheet, many.value, calls_of(many), 1, "<= 2")
    sheet.save()
    draw_rows(shown, ROOT / "docs" / "few-steps.png")
    write_page()


def entered(sheet: Sheet, name: str, trained: Trained, data: Data, n: int, options: dict[str, Any]) -> float:
    """Measure one way of drawing and add it as a row; its distance."""
    asked = trained.generator.evaluations(**(trained.run.record.recipe.sample | options))
    return measured(sheet, f"{name}: {asked:,} calls", trained.sample(range(n), **options), data)


def compare(sheet: Sheet, goal: float, ancestral: int, most: int, target: str) -> None:
    """The best of all ways in at most so many calls, as a ratio to the many ancestral steps."""
    best = min((row for row in sheet.rows if row.whom != REAL and calls_of(row) <= most), key=lambda row: row.value)
    what = f"distance in at most {most} network calls, ratio to {ancestral:,} ancestral steps"
    sheet.add(what, best.whom, [best.value / goal], "x", versions(), target=target)


def is_distance(row: Row, n: int) -> bool:
    """Whether it is the distance of n images that were drawn."""
    return row.what.endswith(f"n = {n:,}") and row.whom != REAL


def draw(rows: list[Row], path: Path) -> None:
    """Distance by network calls, a line for each way, both axes logarithmic."""
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, points in by_way(rows).items():
        axes.plot(list(points), list(points.values()), "o-", markersize=3.5, linewidth=1.2, label=name)
    floor = next(row.value for row in rows if row.whom == REAL)
    axes.axhline(floor, color="#777777", linestyle=":", label=REAL)
    axes.set(xscale="log", yscale="log", xlabel="network calls an image", ylabel=rows[0].what)
    axes.legend(frameon=False, fontsize=7, ncols=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"quality": quality, "calls": calls, "few": few})
