"""How cost grows with pixels, parameters, pictures and processes: measured on this machine through the command line.

`python -m benchmarks.scaling` should take less than ten minutes of two quiet cores. It writes
benchmarks/results/scaling.json, draws docs/scaling.png and fills the tables of docs/scaling.md. The data are the digits
of mnist5k, scaled to each size. With `--processes 1 2` it also trains in two processes.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro

import generama
from benchmarks.scaling_report import write_report
from generama.files import write_json
from generama.machine import describe, peak_memory, pick_device

ROOT = Path(__file__).parents[1]
BATCH = 16
SAMPLES = 8
SLOW = {"pixelcnn": 32}  # recipe -> the largest size at which it is sampled: an evaluation for every pixel
FLAGS = {"ddpm": ("--family.net.width", "16", "--family.net.patch", "1")}  # else large pictures had another network
Axis = Literal["pixels", "parameters", "pictures", "processes"]


@dataclass(frozen=True)
class Study:
    """What to measure; the defaults are the published run."""

    seconds: float = 4.0  # of training for every point
    sizes: tuple[int, ...] = (8, 16, 32, 64)
    recipes: tuple[str, ...] = ("vae", "dcgan", "realnvp", "pixelcnn", "ddpm")
    widths: tuple[int, ...] = (16, 32, 64)  # of the U-Net of ddpm, at 32 pixels
    pictures: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)  # of 8 pixels
    processes: tuple[int, ...] = (1,)  # as torchrun starts them, for ddpm at 32 pixels
    results: Path = ROOT / "benchmarks" / "results" / "scaling.json"
    docs: Path = ROOT / "docs"  # the folder of scaling.md and scaling.png


@dataclass
class Point:
    """One training, and what it cost. None: not measured."""

    axis: Axis
    recipe: str
    size: int
    pictures: int
    processes: int = 1
    parameters: int = 0
    images_per_second: float = 0.0
    flops_per_image: float = 0.0  # forward and backward, all players
    peak_memory: int = 0  # bytes, of the first process
    evaluations: int | None = 1  # for a sample
    seconds_per_sample: float | None = None
    prepare_seconds: float | None = None
    prepare_memory: int | None = None  # bytes


def measure(study: Study, scratch: Path) -> Iterator[Point]:
    """Every point of the study, one after the other."""
    digits = {size: scratch / f"digits-{size}" for size in {*study.sizes, 32}}
    for size, folder in digits.items():
        generama.prepare("mnist5k", size=size, out=folder)
    for size in study.sizes:
        for recipe in study.recipes:
            point = Point("pixels", recipe, size, 5_000)
            run = train(point, digits[size], study.seconds, scratch, *FLAGS.get(recipe, ()))
            if size <= SLOW.get(recipe, size):
                time_samples(point, run)
            yield point
    for width in study.widths:
        point = Point("parameters", "ddpm", 32, 5_000)
        flags = ("--family.net.patch", "1", "--family.net.width", str(width))
        time_samples(point, train(point, digits[32], study.seconds, scratch, *flags))
        yield point
    for count in study.pictures:
        point = Point("pictures", "dcgan", 8, count)
        data = prepare(point, scratch)
        train(point, data, study.seconds, scratch)
        yield point
    for processes in study.processes:
        point = Point("processes", "ddpm", 32, 5_000, processes)
        train(point, digits[32], study.seconds, scratch, *FLAGS["ddpm"])
        yield point


def train(point: Point, data: Path, seconds: float, scratch: Path, *flags: str) -> Path:
    """Train for some seconds through the command line, and note speed, operations and memory; returns the run."""
    run = scratch / f"run-{time.monotonic_ns()}"
    settings = {"data": data, "run": run, "train.batch": BATCH, "train.minutes": seconds / 60, "train.previews": 0}
    given = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    threads = max(1, (os.cpu_count() or 1) // point.processes)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    words = [*launcher(point.processes), "generama", "train", point.recipe, *given, *flags]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")

    status = json.loads((run / "status.json").read_text())
    point.parameters, point.peak_memory = status["parameters"], status["peak_memory"]
    point.flops_per_image = status["flops"] / status["images"]
    point.images_per_second = steady_speed([json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()])
    return run


def launcher(processes: int) -> list[str]:
    """What a module's name follows: Python, or torchrun where there are several processes."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "--"]
    return [sys.executable, *(several if processes > 1 else ["-m"])]


def steady_speed(log: Sequence[dict[str, Any]]) -> float:
    """Images a second between the first line of the log and the last: without the first step, which is slower."""
    first, last = log[0], log[-1]
    if len(log) == 1:
        return last["images"] / last["seconds"]
    return (last["images"] - first["images"]) / (last["seconds"] - first["seconds"])


def time_samples(point: Point, run: Path) -> None:
    """Draw a few samples, three times where that is quick, and note the shortest time."""
    trained = generama.load(run)
    settled = trained.run.record.recipe.sample
    point.evaluations = trained.generator.evaluations(**settled)
    seconds = []
    while len(seconds) < 3 and sum(seconds) < 2:
        began = time.perf_counter()
        trained.sample(range(SAMPLES))
        seconds.append(time.perf_counter() - began)
    point.seconds_per_sample = min(seconds) / SAMPLES


def prepare(point: Point, scratch: Path) -> Path:
    """Prepare as many pictures of noise in a process of its own, and note its time and its memory."""
    source, folder = scratch / f"noise-{point.pictures}.npz", scratch / f"noise-{point.pictures}"
    draw = np.random.default_rng(point.pictures)
    images = draw.integers(0, 256, (point.pictures, point.size, point.size), np.uint8)
    np.savez(source, images=images, labels=np.arange(point.pictures) % 10)
    del images
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        point.prepare_seconds, point.prepare_memory = fresh.submit(timed_prepare, source, folder).result()
    source.unlink()
    return folder


def timed_prepare(source: Path, folder: Path) -> tuple[float, int]:
    """Seconds and peak memory of `generama.prepare` in this process."""
    began = time.perf_counter()
    generama.prepare(str(source), out=folder)
    return time.perf_counter() - began, peak_memory(torch.device("cpu"))


def main(study: Study) -> None:
    """Measure, write the results, and write the report from them."""
    began, points = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as scratch:
        for point in measure(study, Path(scratch)):
            points.append(asdict(point))
            speed = f"{point.images_per_second:,.1f} images/s"
            print(f"{time.perf_counter() - began:5.0f} s  {point.axis:<10} {point.recipe:<9} {point.size:>3}  {speed}")
    study.results.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python -m benchmarks.scaling", *sys.argv[1:]]),
        "seconds": math.ceil(time.perf_counter() - began),
        "machine": describe(pick_device()),
    }
    write_json(study.results, {**about, "batch": BATCH, "points": points})
    write_report(study.results, study.docs)
    print(study.results)


if __name__ == "__main__":
    main(tyro.cli(Study))
