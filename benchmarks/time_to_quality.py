"""How good the images are after how long: denoising-diffusion-pytorch's own Trainer, and ours in a part of its time.

`make bench-quality DATA=mnist.npz`, on whole MNIST. Everyone draws with the same number of network evaluations, and is
measured by the same function in the same features at the same n.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image
from torch import Tensor

from benchmarks.page import write_page
from benchmarks.rows import Sheet, machine, versions
from benchmarks.speed import asked, shown
from benchmarks.watching import watch
from generama.data import Data, open_data

STEPS = 50  # network evaluations for an image
START = 15.0  # seconds of a run's time that are kept for starting and saving
SHARES = (8, 4)  # ours trains for the peer's time divided by these
README = {"README's settings, dim 32": (32, 8e-5), "README's settings, dim 16": (16, 8e-5)}
TUNED = {"a higher rate, dim 16": (16, 1e-3)}  # what its README does not say, but a patient user would find


@dataclass(frozen=True)
class Entrant:
    """One of our recipes: the flags it is trained with and the options it is sampled with."""

    recipe: str
    flags: tuple[str, ...]
    options: dict[str, Any]


OURS = {
    "rectified-flow": Entrant("rectified-flow", (), {"steps": STEPS, "guidance": 1.0}),
    "rectified-flow, no labels": Entrant("rectified-flow", ("--family.no-conditional",), {"steps": STEPS}),
    "ddpm": Entrant("ddpm", (), {"steps": STEPS, "sampler": "ddim"}),
}


def main(peers: Path, data: str, minutes: float = 8, samples: int = 1_000, threads: int = os.cpu_count() or 1) -> None:
    """Train the peer for `minutes`, each of ours for an eighth and for a quarter of that, and measure all alike."""
    if 60 * minutes / max(SHARES) <= START:
        raise SystemExit(f"an eighth of {minutes:g} minutes is too short; --minutes 3 is the least that works")
    data = str(Path(data).absolute()) if Path(data).exists() else data
    opened = open_data(data)
    words = f"make bench-quality DATA={Path(data).name} ARGS='--minutes {minutes:g} --samples {samples}'"
    sheet = Sheet("time_to_quality", words, machine(threads))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        pictures = write_pictures(opened, folder / "pictures")
        python = str(peers.absolute())
        theirs = {}
        for label, (dim, rate) in {**README, **TUNED}.items():
            flags = f"--pictures {pictures} --minutes {minutes:g} --dim {dim} --rate {rate} --samples {samples}"
            theirs[label] = peer(sheet, label, python, flags.split(), opened, threads, folder)
        reached = {}
        for label, entrant in OURS.items():
            for share in SHARES:
                budget = 60 * minutes / share
                reached[label, share] = ours(sheet, label, entrant, budget, (data, opened), samples, threads, folder)
    compare(sheet, theirs, reached, minutes)
    sheet.save()
    write_page()


def peer(sheet: Sheet, label: str, python: str, flags: list[str], data: Data, threads: int, folder: Path) -> float:
    """The distance that the peer reaches, with its rows."""
    out = folder / f"peer-{label.replace(' ', '-')}.npz"
    command = [python, "-m", "benchmarks.peer_trainer", *flags, "--out", str(out), "--steps", str(STEPS)]
    watch(command, None, threads)
    found = np.load(out)
    sheet.beside(
        None if np.isnan(found["others"]) else float(found["others"])
    )  # while it trained: drawing is not timed
    told = asked([python, "-c", "import json, benchmarks.rows as r; print(json.dumps(r.versions()))"], threads)
    common: dict[str, Any] = {"versions": told, "command": shown(command)}
    whom = f"denoising-diffusion-pytorch, {label}"
    sheet.add("training time", whom, [float(found["seconds"])], "s", **common, note=f"{int(found['steps'])} steps")
    return distance(sheet, whom, found["images"], data, common)


def ours(
    sheet: Sheet,
    label: str,
    entrant: Entrant,
    budget: float,
    data: tuple[str, Data],
    samples: int,
    threads: int,
    folder: Path,
) -> float:
    """The distance that one of our recipes reaches when its whole command may take `budget` seconds, with its rows."""
    from generama import load
    from generama.pixels import to_bytes

    typed, opened = data
    run = folder / f"{label.replace(', ', '-').replace(' ', '-')}-{budget:.0f}s"
    command = [sys.executable, "-m", "generama", "train", entrant.recipe, "--data", typed, "--run", str(run)]
    command += ["--train.minutes", f"{(budget - START) / 60:g}", "--train.previews", "0", *entrant.flags]
    seen = watch(command, None, threads)
    sheet.beside(seen.others)
    common: dict[str, Any] = {"versions": versions(), "command": shown(command)}
    whom = f"{label}, {budget:.0f} s"
    sheet.add("training time", whom, [seen.seconds], "s", **common, target=f"<= {budget:.0f}")
    images = load(run).sample(range(samples), **entrant.options)
    return distance(sheet, whom, to_bytes(images), opened, common)


def distance(sheet: Sheet, whom: str, images: Tensor | np.ndarray, data: Data, common: dict[str, Any]) -> float:
    """The Fréchet distance to the training pictures, as a row; the first time also that of real pictures."""
    from generama.evaluation import evaluate_images

    found = evaluate_images(images, None, data)
    measure = found.measures["frechet"]
    what = f"Fréchet distance ({found.extractor}), n = {found.n:,}"
    if measure.value is None or measure.floor is None:
        raise SystemExit(f"{whom} has no Fréchet distance: {measure.note}")
    if not any(row.what == what for row in sheet.rows):
        sheet.add(what, "real held-out pictures", [measure.floor], "", versions())
    sheet.add(what, whom, [measure.value], "", **common)
    sheet.save()  # an hour's figures are not lost by what comes after
    return measure.value


def compare(sheet: Sheet, theirs: dict[str, float], reached: dict[tuple[str, int], float], minutes: float) -> None:
    """Ours after a quarter of the time against the peer's best, and the shortest time tried that is no worse."""
    readme = min(theirs[label] for label in README)
    best = min(theirs.values())
    whom = min(OURS, key=lambda label: reached[label, 4])
    found = versions()
    ratio = reached[whom, 4] / readme
    what = "distance after a quarter of the time, ratio"
    sheet.add(what, f"{whom} / the README's best", [ratio], "x", found, target="<= 1")
    sheet.add(what, f"{whom} / the peer's best of all", [reached[whom, 4] / best], "x", found)
    for label in OURS:
        enough = [share for share in SHARES if reached[label, share] <= readme]
        if enough:
            sheet.add(
                "shortest time tried that reaches the README's best", label, [60 * minutes / max(enough)], "s", found
            )


def write_pictures(data: Data, folder: Path) -> Path:
    """The training pictures as a folder of PNGs, which is what the peer's Trainer reads."""
    folder.mkdir()
    for i, image in enumerate(data.train.pixels(slice(None)).numpy()):
        Image.fromarray(image[0]).save(folder / f"{i:05d}.png")
    return folder


if __name__ == "__main__":
    tyro.cli(main)
