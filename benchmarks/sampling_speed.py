"""Images a second at equal distance: ours beside the pipelines of diffusers, with networks of equal size.

    python -m benchmarks.sampling_speed runs/mnist --steps 10 --sampler dpmpp-2m --peers .venv-peers/bin/python

Nobody can give both the same weights. So how many steps a scheduler needs is found with our network, read as the noise
that it asks for, and what its pipeline costs is timed around its own UNet2DModel of the same number of parameters.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor
from tyro.conf import Positional

import generama
from benchmarks.page import write_page
from benchmarks.peer_sampler import BATCH, drawn, scheduler_of
from benchmarks.rows import Sheet, machine, versions
from benchmarks.speed import asked
from benchmarks.watching import Others
from generama.core import Rng
from generama.data import Data
from generama.evaluation import evaluate_images
from generama.gaussian.formulations import column
from generama.pixels import to_bytes
from generama.run import Trained, labels_of

FAST = ("ddim", "dpm-solver++ 2M", "dpm-solver++ 2M, karras", "unipc")
STEPS = (3, 5, 7, 10, 15, 20, 30, 50)
COUNT = 512  # images of a timing, but for the thousand steps
EQUAL = 1.05  # distances within 5 % count as equal: that is what n = 2,000 can tell apart


def main(
    run: Positional[Path],
    peers: Path,
    teacher: Path | None = None,
    steps: int = 10,
    sampler: str = "dpmpp-2m",
    grid: str = "uniform",
    n: int = 2_000,
    rounds: int = 3,
    threads: int = os.cpu_count() or 1,
) -> None:
    """Time ours with those options, and of each scheduler the fewest steps that reach the distance of ours.

    The schedulers draw with the network of `teacher`, where `run` is a student made for few steps; else with its own.
    """
    torch.set_num_threads(threads)
    sheet = Sheet("diffusion_speed", "python -m benchmarks.sampling_speed RUN --peers PYTHON ...", machine(threads))
    trained, python = generama.load(run), str(peers.absolute())
    theirs = generama.load(teacher) if teacher else trained
    data, options = theirs.run.data(), {"steps": steps, "sampler": sampler, "grid": grid, "guidance": 1.0}
    goal = distance(sheet, f"ours, {sampler}, {steps} steps", trained.sample(range(n), **options), data)
    enough = {"ddpm": 1_000}
    for name in FAST:
        for count in STEPS:
            images = by_scheduler(theirs, name, count, n)
            if distance(sheet, f"diffusers, {name}, {count} steps", images, data) <= EQUAL * goal:
                enough[name] = count
                break
    time_all(sheet, trained, options, enough, python, rounds, threads)
    sheet.save()
    write_page()


def distance(sheet: Sheet, whom: str, images: Tensor, data: Data) -> float:
    """The Fréchet distance of images (N, C, H, W) in [-1, 1], as a row."""
    found = evaluate_images(to_bytes(images), None, data)
    value = found.measures["frechet"].value
    assert value is not None
    return sheet.add(f"Fréchet distance, n = {found.n:,}", whom, [value], "", versions())


@torch.no_grad()
def by_scheduler(trained: Trained, name: str, steps: int, n: int) -> Tensor:
    """n images drawn by a scheduler of diffusers with our network, plainly conditional."""
    spec, parts = trained.generator.spec, []
    for start in range(0, n, BATCH):
        seeds = range(start, min(start + BATCH, n))
        velocity = trained.generator.velocity(labels_of(spec, seeds))  # type: ignore[attr-defined]
        scheduler = scheduler_of(name)

        def noise(x: Tensor, step: Any, scheduler: Any = scheduler, velocity: Any = velocity) -> Tensor:
            abar = scheduler.alphas_cumprod[int(step)]
            t = (1 - abar).sqrt() / (abar.sqrt() + (1 - abar).sqrt())
            y = x * torch.hypot(1 - t, t)
            return y + column(1 - t) * velocity(y, t)

        parts.append(drawn(scheduler, steps, Rng(seeds).normal(*spec.shape), noise))
    return torch.cat(parts)


def time_all(
    sheet: Sheet,
    trained: Trained,
    options: dict[str, Any],
    enough: dict[str, int],
    python: str,
    rounds: int,
    threads: int,
) -> None:
    """Images a second of everyone, in turns, and the two ratios."""
    speeds: dict[str, list[float]] = {name: [] for name in ("ours", *enough)}
    told: dict[str, Any] = {}
    spent = Others()
    for _ in range(rounds):
        speeds["ours"].append(speed_of(trained, options))
        for name, steps in enough.items():
            count = str(BATCH if name == "ddpm" else COUNT)
            command = [python, "-m", "benchmarks.peer_sampler", "--scheduler", name, "--steps", str(steps)]
            told[name] = asked([*command, "--count", count, "--threads", str(threads)], threads)
            speeds[name].append(told[name]["speed"])
    sheet.beside(spent.share())
    weights = sum(p.numel() for p in trained.generator.parameters())
    what = "sampling speed"
    ours = sheet.add(what, "ours", speeds["ours"], "images/s", versions(), note=f"{weights:,} parameters")
    found: dict[str, float] = {}
    for name, steps in enough.items():
        note = f"{told[name]['parameters']:,} parameters"
        whom = f"diffusers, {name}, {steps:,} steps"
        found[name] = sheet.add(what, whom, speeds[name], "images/s", told[name]["versions"], note=note)
    best = max((name for name in found if name != "ddpm"), key=lambda name: found[name])
    for name, target in (("ddpm", ">= 50"), (best, ">= 3")):
        sheet.add("sampling speed, ratio", f"ours / {name}", [ours / found[name]], "x", versions(), target=target)


def speed_of(trained: Trained, options: dict[str, Any]) -> float:
    """Images a second of ours, after a batch that nobody counts."""
    trained.sample(range(BATCH), **options)
    began = time.perf_counter()
    trained.sample(range(COUNT), **options)
    return COUNT / (time.perf_counter() - began)


if __name__ == "__main__":
    tyro.cli(main)
