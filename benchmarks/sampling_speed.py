"""Images a second at equal distance: ours beside the pipelines of diffusers, with networks of equal size.

    python -m benchmarks.sampling_speed schedulers runs/mnist
    python -m benchmarks.sampling_speed speed runs/mnist --peers .venv-peers/bin/python

Nobody can give both the same weights. So how many steps a scheduler needs is found with our network, read as the noise
that it asks for, and what it costs is timed around a UNet2DModel of diffusers with 2 % fewer parameters.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor
from tyro.conf import Positional

import generama
from benchmarks.measuring import PLAIN, measured
from benchmarks.page import write_page
from benchmarks.peer_sampler import BATCH, drawn, scheduler_of
from benchmarks.rows import Row, Sheet, kept, machine, versions
from benchmarks.speed import asked
from benchmarks.watching import Others
from generama.core import Rng
from generama.gaussian.formulations import column
from generama.run import Trained, labels_of

FAST = ("ddim", "dpm-solver++ 2M", "dpm-solver++ 2M, karras", "unipc")
STEPS = (5, 7, 10, 20)
COUNT = 512  # images of a timing, but for the thousand steps
FEW: dict[str, Any] = {"sampler": "dpmpp-2m", "steps": 7, "grid": "ddpm"}
OURS = "ours, dpmpp-2m: 7 steps"
EQUAL = 1.05  # distances within 5 % count as equal: a few thousand images tell no less apart


def schedulers(run: Positional[Path], n: int = 1_000, threads: int = os.cpu_count() or 1) -> None:
    """The distance of n images that the network of a run gives under each scheduler, up to the steps that are enough.

    Enough is what comes within 5 % of ours in 7 steps of dpmpp-2m.
    """
    torch.set_num_threads(threads)
    words = f"python -m benchmarks.sampling_speed schedulers RUN --n {n}"
    sheet = Sheet("diffusion_schedulers", words, machine(threads))
    trained = generama.load(run)
    data = trained.run.data()
    goal = measured(sheet, OURS, trained.sample(range(n), **PLAIN, **FEW), data)
    for name in FAST:
        for count in STEPS:
            if measured(sheet, f"{name}: {count} steps", by_scheduler(trained, name, count, n), data) <= EQUAL * goal:
                break
    sheet.save()
    write_page()


def speed(run: Positional[Path], peers: Path, rounds: int = 3, threads: int = os.cpu_count() or 1) -> None:
    """Time ours, diffusers' DDPMPipeline, and its schedulers at the steps that `schedulers` found to be enough."""
    torch.set_num_threads(threads)
    sheet = Sheet("diffusion_speed", "python -m benchmarks.sampling_speed speed RUN --peers PYTHON", machine(threads))
    enough = {"ddpm": 1_000, **enough_steps(kept("diffusion_schedulers", sheet.machine))}
    time_all(sheet, generama.load(run), enough, str(peers.absolute()), rounds, threads)
    sheet.save()
    write_page()


def enough_steps(rows: Sequence[Row]) -> dict[str, int]:
    """Scheduler -> the fewest steps that came within 5 % of ours; of one that never did, those of its best distance."""
    goal = next(row.value for row in rows if row.whom == OURS)
    tried: dict[str, list[tuple[bool, float, int]]] = {}
    for row in rows:
        name, _, steps = row.whom.rpartition(": ")
        if name in FAST:
            far = row.value > EQUAL * goal
            count = int(steps.removesuffix(" steps"))
            tried.setdefault(name, []).append((far, row.value if far else 0.0, count))
    return {name: min(ways)[2] for name, ways in tried.items()}


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
        speeds["ours"].append(speed_of(trained))
        for name, steps in enough.items():
            count = str(BATCH if name == "ddpm" else COUNT)
            command = [python, "-m", "benchmarks.peer_sampler", "--scheduler", name, "--steps", str(steps)]
            told[name] = asked([*command, "--count", count, "--threads", str(threads)], threads)
            speeds[name].append(told[name]["speed"])
    sheet.beside(spent.share())
    weights = sum(p.numel() for p in trained.generator.parameters())
    what = "sampling speed"
    ours = sheet.add(what, OURS, speeds["ours"], "images/s", versions(), note=f"{weights:,} parameters")
    found: dict[str, float] = {}
    for name, steps in enough.items():
        note = f"{told[name]['parameters']:,} parameters"
        whom = f"diffusers, {name}, {steps:,} steps"
        found[name] = sheet.add(what, whom, speeds[name], "images/s", told[name]["versions"], note=note)
    best = max((name for name in found if name != "ddpm"), key=lambda name: found[name])
    for name, target in (("ddpm", ">= 50"), (best, ">= 3")):
        sheet.add("sampling speed, ratio", f"ours / {name}", [ours / found[name]], "x", versions(), target=target)


def speed_of(trained: Trained) -> float:
    """Images a second of ours, after a batch that nobody counts."""
    trained.sample(range(BATCH), **PLAIN, **FEW)
    began = time.perf_counter()
    trained.sample(range(COUNT), **PLAIN, **FEW)
    return COUNT / (time.perf_counter() - began)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"schedulers": schedulers, "speed": speed})
