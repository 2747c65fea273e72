"""How good a trained diffusion run is on a whole data set, and in how few network calls.

    python -m benchmarks.diffusion quality runs/mnist runs/fashion
    python -m benchmarks.diffusion calls runs/mnist --few runs/mnist-reflow runs/mean

Both fill tables of docs/diffusion.md; `calls` also draws docs/diffusion-calls.png. The runs were trained by the
commands that stand there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
import tyro
from tyro.conf import Positional

import generama
from benchmarks.page import REAL, by_way, calls_of, write_page
from benchmarks.rows import ROOT, Row, Sheet, machine, versions
from benchmarks.watching import Others
from generama.evaluation import Evaluation, evaluate_images
from generama.gaussian.formulations import RectifiedFlow
from generama.pixels import to_bytes
from generama.run import Trained, labels_of

PLAIN = {"guidance": 1.0}  # guidance changes what is drawn, so the samplers are compared without it
ANCESTRAL = "ddpm ancestral"
TARGETS = {"conditional_accuracy": ">= 0.99", "recall": ">= 0.6"}
WORDS = {
    "frechet": "Fréchet distance",
    "conditional_accuracy": "conditional accuracy",
    "precision": "precision",
    "recall": "recall",
}


@dataclass(frozen=True)
class Way:
    """A sampler on a grid, and the numbers of its steps that are tried."""

    sampler: str
    grid: str
    steps: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As the tables call it."""
        return f"{self.sampler}, {self.grid}"


WAYS = (
    Way("euler", "uniform", (1, 2, 4, 5, 10, 20, 50)),
    Way("euler", "log-snr", (5, 10, 20, 50)),
    Way("heun", "uniform", (3, 5, 10, 25)),
    Way("heun", "karras", (5, 10, 18)),
    Way("dpmpp-2m", "uniform", (5, 10, 20, 50)),
    Way("dpmpp-2m", "log-snr", (5, 10, 20, 50)),
    Way("ancestral", "uniform", (10, 50, 200)),
)


def quality(runs: Positional[tuple[Path, ...]], n: int = 10_000, threads: int = os.cpu_count() or 1) -> None:
    """Draw n images of each run as its recipe says, and measure them beside as many held-out pictures."""
    torch.set_num_threads(threads)
    sheet = Sheet("diffusion_quality", f"python -m benchmarks.diffusion quality RUN ... --n {n}", machine(threads))
    for folder in runs:
        trained = generama.load(folder)
        whom = f"{trained.run.data().meta.name}: {folder.name}"
        status, spent = trained.run.read_status(), Others()
        found = measured(trained, n, {})
        sheet.beside(spent.share())
        for name, what in WORDS.items():
            measure = found.measures[name]
            assert measure.value is not None and measure.floor is not None
            target = f"<= {2 * measure.floor:.4g}" if name == "frechet" else TARGETS.get(name, "")
            sheet.add(f"{what}, n = {found.n:,}", whom, [measure.value], "", versions(), target=target)
            sheet.add(f"{what}, n = {found.n:,}", f"{whom}, real held-out pictures", [measure.floor], "", versions())
        sheet.add("training", whom, [status["seconds"] / 60], "min", versions(), note=f"{status['images']:,} images")
    sheet.save()
    write_page()


def calls(
    run: Positional[Path],
    few: tuple[Path, ...] = (),
    n: int = 2_000,
    ancestral: int = 1_000,
    threads: int = os.cpu_count() or 1,
) -> None:
    """The distance of n images by sampler, grid and steps; `few` are runs that are made for few steps."""
    torch.set_num_threads(threads)
    words = f"python -m benchmarks.diffusion calls RUN --few RUN ... --n {n} --ancestral {ancestral}"
    sheet = Sheet("diffusion_calls", words, machine(threads))
    trained = generama.load(run)
    for way in WAYS:
        for steps in way.steps:
            options = PLAIN | {"sampler": way.sampler, "grid": way.grid, "steps": steps, **way.options}
            entered(sheet, way.name, trained, n, options)
    for folder in few:
        student = generama.load(folder)
        alone = getattr(student.generator, "formulation", None) == RectifiedFlow(times="one-step")
        for count in (1,) if alone else (1, 2, 4, 10):
            entered(sheet, folder.name, student, n, {"steps": count})
    options = PLAIN | {"sampler": "ancestral", "grid": "uniform", "steps": ancestral}
    goal = entered(sheet, ANCESTRAL, trained, n, options)
    compare(sheet, goal, ancestral)
    sheet.save()
    draw(sheet.rows, ROOT / "docs" / "diffusion-calls.png")
    write_page()


def measured(trained: Trained, n: int, options: dict[str, Any]) -> Evaluation:
    """n images of the seeds from 0 beside the data that the run learned from, or its teacher did."""
    images = trained.sample(range(n), **options)
    data = trained.run.data()
    return evaluate_images(to_bytes(images), labels_of(data.spec, range(n)).label, data)


def entered(sheet: Sheet, name: str, trained: Trained, n: int, options: dict[str, Any]) -> float:
    """Measure one way of drawing and add it as a row; its distance."""
    spent = Others()
    found = measured(trained, n, options)
    sheet.beside(spent.share())
    distance = found.measures["frechet"]
    assert distance.value is not None and distance.floor is not None
    what = f"Fréchet distance, n = {found.n:,}"
    if not sheet.rows:
        sheet.add(what, REAL, [distance.floor], "", versions())
    settled = trained.run.record.recipe.sample | options
    asked = trained.generator.evaluations(**settled)
    value = sheet.add(what, f"{name}: {asked:,} calls", [distance.value], "", versions())
    sheet.save()  # an hour's figures are not lost by what comes after
    return value


def compare(sheet: Sheet, goal: float, ancestral: int) -> None:
    """The best at 10 calls and at one, of any way, as ratios to the many ancestral steps."""
    for most, target in ((10, "<= 1.1"), (1, "<= 2")):
        tried = [row for row in sheet.rows if row.whom != REAL and calls_of(row) <= most]
        best = min(tried, key=lambda row: row.value)
        what = f"distance in at most {most} calls, ratio to {ancestral:,} ancestral steps"
        sheet.add(what, best.whom, [best.value / goal], "x", versions(), target=target)


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
    tyro.extras.subcommand_cli_from_dict({"quality": quality, "calls": calls})
