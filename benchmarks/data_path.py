"""Whether data is ready before it is asked for: batches delivered against batches consumed, and PNGs prepared."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.rows import Sheet, machine, versions
from benchmarks.speed import BATCH, training
from benchmarks.watching import watch
from generama.data import Split, batches, open_data

FASTEST = ("gan-mlp", "vae-mlp")  # the families with the least work per image


def measure(seconds: float, rounds: int, pictures: int, threads: int, folder: Path) -> Sheet:
    """Batches of 28x28 a second, what the fastest families take of them, and 32x32 PNGs prepared a second."""
    sheet, found = Sheet("data_path", "make bench", machine(threads)), versions()
    torch.set_num_threads(threads)
    split = open_data("mnist5k").train
    delivered = [deliver(split, seconds / 10) for _ in range(rounds)]
    supply = sheet.add("batches of 64 delivered", "mnist5k, 28x28", delivered, "images/s", found)
    demand = 0.0
    for recipe in FASTEST:
        consumed = [consume(sheet, recipe, seconds, threads, folder / f"{recipe}-{turn}") for turn in range(rounds)]
        demand = max(demand, sheet.add("training speed", recipe, consumed, "images/s", found))
    sheet.add("delivered / consumed", "the fastest family", [supply / demand], "x", found, target=">= 20")
    source = write_pictures(folder / "pictures", pictures)
    speeds = []
    for turn in range(rounds):
        command = [sys.executable, "-m", "generama", "prepare", str(source), "--out", str(folder / f"out-{turn}")]
        seen = watch(command, None, threads)
        speeds.append(pictures / seen.seconds)
        sheet.beside(seen.others)
    what = f"{pictures:,} PNGs of 32x32 in colour; the whole command `generama prepare`"
    sheet.add("pictures prepared", what, speeds, "images/s", found, target=">= 2000")
    return sheet


def deliver(split: Split, seconds: float) -> float:
    """Images a second that `batches` hands out when nothing is done with them."""
    began = time.perf_counter()
    for step, _ in enumerate(batches(split, BATCH, seed=0), start=1):
        if (spent := time.perf_counter() - began) > seconds:
            return step * BATCH / spent
    return 0.0


def consume(sheet: Sheet, recipe: str, seconds: float, threads: int, run: Path) -> float:
    """Images a second that training a recipe takes."""
    seen = watch(training(recipe, run), run / "log.jsonl", threads, seconds)
    sheet.beside(seen.others)
    return seen.speed


def write_pictures(folder: Path, count: int) -> Path:
    """Smooth colour pictures, which compress about as photographs do: 8x8 noise, enlarged."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{i:05d}.png")
    return folder
