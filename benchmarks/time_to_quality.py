"""How good the images are after how long: a peer trained as its documentation says, and ours in a part of its time.

`make bench-quality DATA=mnist.npz`, on whole MNIST; `ARGS='--peer torchcfm'` for the other peer. Ours draws with 50
network evaluations, denoising-diffusion-pytorch too, torchcfm with the adaptive solver of its notebook; all are
measured by the same function in the same features at the same n.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass, field
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
from generama.errors import unknown

STEPS = 50  # network evaluations for an image
START = 15.0  # seconds of a run's time that are kept for starting and saving
SHARES = (8, 4)  # ours trains for the peer's time divided by these


@dataclass(frozen=True)
class Rival:
    """A peer: the module that trains it, and its settings by what they are called."""

    module: str
    documented: dict[str, str]  # flags
    tuned: dict[str, str] = field(default_factory=dict)  # not documented, but a patient user would find them


RIVALS = {
    "denoising-diffusion-pytorch": Rival(
        f"benchmarks.peer_trainer --steps {STEPS}",
        {"README's settings, dim 32": "--dim 32 --rate 8e-5", "README's settings, dim 16": "--dim 16 --rate 8e-5"},
        {"a higher rate, dim 16": "--dim 16 --rate 1e-3"},
    ),
    "torchcfm": Rival("benchmarks.peer_torchcfm", {"its notebook's settings": ""}),
}
FIRST = next(iter(RIVALS))


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


def main(
    peers: Path,
    data: str,
    peer: str = FIRST,
    minutes: float = 8,
    samples: int = 1_000,
    threads: int = os.cpu_count() or 1,
) -> None:
    """Train the peer for `minutes`, each of ours for an eighth and for a quarter of that, and measure all alike."""
    if peer not in RIVALS:
        raise SystemExit(unknown("peer", peer, RIVALS))
    if 60 * minutes / max(SHARES) <= START:
        raise SystemExit(f"an eighth of {minutes:g} minutes is too short; --minutes 3 is the least that works")
    data = str(Path(data).absolute()) if Path(data).exists() else data
    opened, rival = open_data(data), RIVALS[peer]
    flags = f"--peer {peer} --minutes {minutes:g} --samples {samples}"
    words = f"make bench-quality DATA={Path(data).name} ARGS='{flags}'"
    sheet = Sheet(sheet_of(peer), words, machine(threads))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        pictures = write_pictures(opened, folder / "pictures")
        python = str(peers.absolute())
        theirs = {}
        for label, settings in (rival.documented | rival.tuned).items():
            words = f"{rival.module} --pictures {pictures} --minutes {minutes:g} {settings} --samples {samples}"
            theirs[label] = reached_by_peer(sheet, f"{peer}, {label}", [python, "-m", *words.split()], opened, threads)
        reached = {}
        for label, entrant in OURS.items():
            for share in SHARES:
                budget = 60 * minutes / share
                reached[label, share] = ours(sheet, label, entrant, budget, (data, opened), samples, threads, folder)
    compare(sheet, peer, theirs, reached, minutes)
    sheet.save()
    write_page()


def sheet_of(peer: str) -> str:
    """The name of the results beside this peer."""
    return "time_to_quality" if peer == FIRST else f"time_to_quality_{peer}"


def reached_by_peer(sheet: Sheet, whom: str, command: list[str], data: Data, threads: int) -> float:
    """The distance that a peer reaches, with its rows."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "drawn.npz"
        command = [*command, "--out", str(out)]
        watch(command, None, threads)
        found = dict(np.load(out))
    others = float(found["others"])
    sheet.beside(None if np.isnan(others) else others)  # while it trained: drawing is not timed
    told = asked([command[0], "-c", "import json, benchmarks.rows as r; print(json.dumps(r.versions()))"], threads)
    common: dict[str, Any] = {"versions": told, "command": shown(command)}
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


def compare(
    sheet: Sheet, peer: str, theirs: dict[str, float], reached: dict[tuple[str, int], float], minutes: float
) -> None:
    """Ours after a quarter of the time against the peer's best, and the shortest time tried that is no worse."""
    documented = min(theirs[label] for label in RIVALS[peer].documented)
    whom = min(OURS, key=lambda label: reached[label, 4])
    found = versions()
    what = "distance after a quarter of the time, ratio"
    best = reached[whom, 4]
    sheet.add(what, f"{whom} / {peer} as documented", [best / documented], "x", found, target="<= 1")
    if RIVALS[peer].tuned:
        sheet.add(what, f"{whom} / {peer}, best of all", [best / min(theirs.values())], "x", found)
    what = f"shortest time tried that reaches {peer} as documented"
    for label in OURS:
        enough = [share for share in SHARES if reached[label, share] <= documented]
        if enough:
            sheet.add(what, label, [60 * minutes / max(enough)], "s", found)


def write_pictures(data: Data, folder: Path) -> Path:
    """The training pictures as a folder of PNGs, which is what one peer's Trainer reads, and labels.npy."""
    folder.mkdir()
    labels = data.train.labels(slice(None))
    if labels is not None:
        np.save(folder / "labels.npy", labels.numpy())
    for i, image in enumerate(data.train.pixels(slice(None)).numpy()):
        Image.fromarray(image[0]).save(folder / f"{i:05d}.png")
    return folder


if __name__ == "__main__":
    tyro.cli(main)
