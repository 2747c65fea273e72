"""One picture of everything that the diffusion family can be: variants trained alike, and one run drawn in many ways.

    python -m benchmarks.gallery trained --data digits --minutes 1
    python -m benchmarks.gallery drawn runs/mnist

They write docs/diffusion-trained.png and docs/diffusion-drawn.png. A row is a way; its pictures are of the same seeds.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from torch import Tensor
from tyro.conf import Positional

import generama
from benchmarks.measuring import PLAIN, measured
from benchmarks.page import write_page
from benchmarks.rows import ROOT, Sheet, machine
from benchmarks.watching import watch
from generama.pictures import sheet as laid_out
from generama.pictures import to_array
from generama.run import Trained

SHOWN = 20  # pictures of a row
HEUN = {"steps": 20, "sampler": "heun", "grid": "uniform", **PLAIN}
DIT = "dit --family.net.patch 2 --family.net.depth 4"
ATTENTION_UNET = (  # a recipe for GPUs, made as small and as quick to learn as the others
    "rectified-flow-cifar10 --family.conditional --family.net.width 32 --family.net.multiples 1 2 "
    "--family.net.blocks 1 --family.net.attention 4 --family.net.head 32 --family.net.dropout 0 "
    "--train.batch 16 --train.rate 3e-3 --train.warmup 1000 --train.schedule cosine"
)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {  # what is trained, and how it is drawn
    "DDPM, eps, linear": ("ddpm", HEUN),
    "DDPM, eps, cosine": ("ddpm-cosine", HEUN),
    "DDPM, x0, linear": ("ddpm --family.formulation.predict x0", HEUN),
    "DDPM, eps, min-SNR 5": ("ddpm --family.formulation.min-snr 5", HEUN),
    "DDPM, v, cosine, min-SNR 5": ("ddpm-v", {}),
    "EDM": ("edm", {}),
    "rectified flow, uniform times": ("rectified-flow", HEUN),
    "rectified flow, logit-normal": ("rectified-flow --family.formulation.times logit-normal", HEUN),
    "rectified flow, attention U-Net": (ATTENTION_UNET, HEUN),
    "DiT, adaLN-zero": (DIT, HEUN),
    "DiT, cross-attention": (f"{DIT} --family.net.told cross-attention", HEUN),
    "DiT, in-context": (f"{DIT} --family.net.told in-context", HEUN),
    "DiT, joint attention": (f"{DIT} --family.net.told joint", HEUN),
    "classifier guidance, scale 2": (
        "ddpm-v --family.classifier 16",
        {"guidance": 0.0, "classifier_guidance": 2.0, "steps": 20},
    ),
    "MeanFlow, 1 call": ("meanflow", {}),
}
WAYS: dict[str, dict[str, Any]] = {
    "euler, 10": {"sampler": "euler", "steps": 10},
    "ddim, 50, eta 0.5": {"sampler": "ddim", "steps": 50, "eta": 0.5},
    "ancestral, 50": {"sampler": "ancestral", "steps": 50},
    "heun, 10": {"sampler": "heun", "steps": 10},
    "heun, 10, quadratic grid": {"sampler": "heun", "steps": 10, "grid": "quadratic"},
    "heun, 10, karras grid": {"sampler": "heun", "steps": 10, "grid": "karras"},
    "dpmpp-2m, 10": {"sampler": "dpmpp-2m", "steps": 10},
    "dpmpp-2m, 10, log-snr grid": {"sampler": "dpmpp-2m", "steps": 10, "grid": "log-snr"},
    "adaptive": {"sampler": "adaptive"},
    "heun, 10, guidance 0": {"sampler": "heun", "steps": 10, "guidance": 0.0},
    "heun, 10, guidance 2": {"sampler": "heun", "steps": 10, "guidance": 2.0},
    "heun, 10, guidance 5": {"sampler": "heun", "steps": 10, "guidance": 5.0},
    "heun, 10, guidance 5 in 0.3 to 0.7": {"sampler": "heun", "steps": 10, "guidance": 5.0, "interval": (0.3, 0.7)},
    "heun, 10, autoguidance 2": {"sampler": "heun", "steps": 10, "autoguidance": 2.0},
}


def trained(data: str = "digits", minutes: float = 1.0, n: int = 500, threads: int = os.cpu_count() or 1) -> None:
    """Train every variant for so many minutes and measure n images of each."""
    torch.set_num_threads(threads)
    words = f"python -m benchmarks.gallery trained --data {data} --minutes {minutes:g} --n {n}"
    sheet = Sheet("diffusion_variants", words, machine(threads))
    rows: dict[str, Tensor] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (what, options) in VARIANTS.items():
            run = Path(folder) / f"run-{len(rows)}"
            flags = f"--data {data} --run {run} --train.minutes {minutes:g} --train.previews 0"
            watch([sys.executable, "-m", "generama", "train", *what.split(), *flags.split()], None, threads)
            rows[name] = row(sheet, name, generama.load(run), n, options)
    sheet.save()
    draw_rows(rows, ROOT / "docs" / "diffusion-trained.png")
    write_page()


def drawn(run: Positional[Path], n: int = 500, threads: int = os.cpu_count() or 1) -> None:
    """Draw one run in every way, with the same seeds, and measure n images of each. It must have kept snapshots."""
    torch.set_num_threads(threads)
    sheet = Sheet("diffusion_ways", f"python -m benchmarks.gallery drawn RUN --n {n}", machine(threads))
    known = generama.load(run, earlier=0.25)
    rows = {name: row(sheet, name, known, n, {"grid": "uniform"} | PLAIN | way) for name, way in WAYS.items()}
    sheet.save()
    draw_rows(rows, ROOT / "docs" / "diffusion-drawn.png")
    write_page()


def row(sheet: Sheet, name: str, known: Trained, n: int, options: dict[str, Any]) -> Tensor:
    """Draw and measure one way; the pictures to be shown, (SHOWN, C, H, W)."""
    images = known.sample(range(n), **options)
    measured(sheet, name, images, known.run.data(), ("frechet", "conditional_accuracy"))
    return images[:SHOWN]


def draw_rows(rows: dict[str, Tensor], path: Path) -> None:
    """A line of pictures for each way, its name at the left."""
    lines = [laid_out(to_array(images), columns=SHOWN) for images in rows.values()]
    height, width = lines[0].shape[:2]
    tall = 8.5 * (0.995 - 0.27) * height / width  # inches of a line that is as wide as the figure lets it be
    figure, axes = plt.subplots(len(rows), figsize=(8.5, 1.1 * tall * len(rows)), squeeze=False)
    for one, line, name in zip(axes[:, 0], lines, rows, strict=True):
        one.imshow(np.repeat(line, 3, 2) if line.shape[-1] == 1 else line, interpolation="nearest", aspect="auto")
        one.set(xticks=[], yticks=[])
        one.spines[:].set_visible(False)
        one.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    figure.subplots_adjust(left=0.27, right=0.995, top=0.995, bottom=0.005, hspace=0.08)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"trained": trained, "drawn": drawn})
