"""Does bfloat16 cost quality? The loss curves of the same seed in float32 and in bfloat16, in one picture.

Run by hand: `python benchmarks/precision.py --data mnist5k --images 100k`. Everything but the precision is the same in
both runs: weights, order of the pictures, noise, layout. Writes precision.json and precision.png into --out.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import tyro

matplotlib.use("agg")
import matplotlib.pyplot as plt

import generama
from generama.execution import PRECISIONS, Precision
from generama.files import write_json
from generama.machine import describe, pick_device
from generama.settings import count

Rows = list[dict[str, Any]]  # the lines of a run's log


def main(
    data: str = "mnist5k",
    images: str = "100k",
    recipes: tuple[str, ...] = ("ddpm", "vae"),
    seed: int = 0,
    out: Path = Path("benchmarks/results"),
) -> None:
    """Train each recipe in both precisions, print how the curves end, and write the numbers and the picture."""
    curves: dict[str, dict[Precision, Rows]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for recipe in recipes:
            curves[recipe] = {p: curve(recipe, p, data, images, seed, Path(folder)) for p in PRECISIONS}
    facts = {"data": data, "images": count(images), "seed": seed}
    out.mkdir(parents=True, exist_ok=True)
    write_json(
        out / "precision.json", {**facts, "machine": describe(pick_device()), "curves": curves, "end": summary(curves)}
    )
    draw(curves, out / "precision.png")
    for row in summary(curves):
        print("  ".join(f"{key} {value:.5g}" if isinstance(value, float) else str(value) for key, value in row.items()))


def curve(recipe: str, precision: Precision, data: str, images: str, seed: int, folder: Path) -> Rows:
    """The log of one run: images, seconds and losses, a row for each half a percent of the budget."""
    trained = generama.train(
        recipe,
        data=data,
        run=str(folder / f"{recipe}-{precision}"),
        images=count(images),
        seed=seed,
        previews=1,
        precision=precision,
        layout="channels_last",
        compile="no",
    )
    rows = [json.loads(line) for line in (trained.run.folder / "log.jsonl").read_text().splitlines()]
    wanted = ("images", "seconds", *(key for key in rows[0] if key.startswith("loss/")))
    return [{key: row[key] for key in wanted} for row in rows]


def summary(curves: dict[str, dict[Precision, Rows]]) -> list[dict[str, Any]]:
    """For each loss: its mean over the last tenth of the run in both precisions, and the seconds that each run took."""
    found = []
    for recipe, runs in curves.items():
        for name in losses(runs):
            row: dict[str, Any] = {"recipe": recipe, "loss": name}
            for precision, rows in runs.items():
                last = rows[-max(1, len(rows) // 10) :]
                row[precision] = sum(line[name] for line in last) / len(last)
                row[f"{precision} seconds"] = rows[-1]["seconds"]
            found.append(row)
    return found


def draw(curves: dict[str, dict[Precision, Rows]], path: Path) -> None:
    """A panel for each loss, both precisions in each."""
    panels = [(recipe, name) for recipe, runs in curves.items() for name in losses(runs)]
    figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 3.6), squeeze=False, layout="constrained")
    for axis, (recipe, name) in zip(axes[0], panels, strict=True):
        for (precision, rows), style in zip(curves[recipe].items(), ("-", "--"), strict=True):
            axis.plot([row["images"] for row in rows], [row[name] for row in rows], style, lw=1.2, label=precision)
        scale = "log" if positive(curves[recipe], name) else "linear"
        axis.set(title=recipe, xlabel="images seen", ylabel=name, yscale=scale)
        axis.legend(frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def losses(runs: dict[Precision, Rows]) -> Sequence[str]:
    """The names of the losses in the logs of a recipe."""
    return [key for key in next(iter(runs.values()))[0] if key.startswith("loss/")]


def positive(runs: dict[Precision, Rows], name: str) -> bool:
    """Whether a logarithmic axis can show this loss."""
    return all(row[name] > 0 for rows in runs.values() for row in rows)


if __name__ == "__main__":
    tyro.cli(main)
