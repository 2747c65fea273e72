"""Fréchet distance by the length of the average of the weights, all made after one run (as figure 5 of the paper).

Karras et al. (2024), "Analyzing and Improving the Training Dynamics of Diffusion Models", arXiv:2312.02696. Trains
once, or goes on with the run that is there; every length draws the same seeds. Writes averages.json and averages.png.

    python benchmarks/averages.py --data mnist5k --minutes 5
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import tyro

import generama
from generama.commands import run_folder
from generama.data import Data
from generama.errors import UsageError
from generama.evaluation import evaluate_images
from generama.files import write_json
from generama.machine import describe
from generama.pixels import to_bytes
from generama.progress import tell
from generama.run import Trained, labels_of

LENGTHS = (0.0, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.125, 0.15, 0.175, 0.2, 0.225, 0.25)
MEASURES = ("frechet", "kid", "precision", "recall", "conditional_accuracy")


def main(
    recipe: str = "ddpm",
    data: str = "mnist5k",
    minutes: float = 5.0,
    snapshots: int = 16,
    schedule: Literal["cosine", "constant"] = "cosine",
    n: int = 1_000,
    run: str | None = None,
    out: Path = Path("docs"),
) -> None:
    """Train `recipe` for so many minutes with snapshots, then measure n samples of every length."""
    name = run or f"averages-{recipe}-{data}-{schedule}"
    if (run_folder(name) / "recipe.json").exists():
        trained = generama.resume(name)
    else:
        trained = generama.train(recipe, data, run=name, minutes=minutes, snapshots=snapshots, schedule=schedule)
    opened = trained.run.data()
    rows = [row for length in LENGTHS if (row := measure(name, length, opened, n))]
    facts = {"recipe": trained.run.record.name, "data": opened.describe(), "n": n, "machine": describe(trained.device)}
    settings = trained.run.record.recipe.train
    facts |= {
        "minutes": settings.minutes,
        "snapshots": settings.snapshots,
        "schedule": settings.schedule,
        **trained.run.read_status(),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "averages.json", {**facts, "lengths": rows})
    draw(
        rows,
        f"{facts['recipe']} on {opened.meta.name}, {facts['images']:,} images, {n:,} samples",
        out / "averages.png",
    )


def measure(run: str, length: float, data: Data, n: int) -> dict[str, Any] | None:
    """One row of the table; None where the snapshots cannot give this length."""
    try:
        trained: Trained = generama.load(run, average=length)
    except UsageError as error:
        tell(str(error))
        return None
    images, labels = trained.sample(range(n)), labels_of(data.spec, range(n)).label
    found = evaluate_images(to_bytes(images), labels, data).measures
    row: dict[str, Any] = {"average": length, "average_error": trained.average_error}
    for name in MEASURES:
        row |= {name: found[name].value, f"{name}_floor": found[name].floor}
    tell(f"average {length:g}: Fréchet distance {row['frechet']:.4g}")
    return row


def draw(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """The curve; length 0, the live weights, is a dashed line, and the floor, which would flatten it all, a number."""
    live = next(row["frechet"] for row in rows if row["average"] == 0)
    made = [row for row in rows if row["average"] > 0]
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axes.plot([row["average"] for row in made], [row["frechet"] for row in made], "o-", color="#1f5fa8")
    axes.axhline(live, color="#b04a2f", linestyle="--", label="live weights")
    axes.plot([], [], " ", label=f"real pictures, held out: {made[0]['frechet_floor']:.3g}")
    axes.set(xlabel="length of the average, share of the run", ylabel="Fréchet distance", title=title)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    tyro.cli(main)
