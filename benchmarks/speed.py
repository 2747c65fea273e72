"""Training speed beside two peers: the same sizes, the same threads, each in a process of its own, in turns."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import NET
from benchmarks.rows import ROOT, Sheet, machine
from benchmarks.watching import Watched, environment, watch

BATCH = 64
MINUTES = 15  # the budget of our runs, of which the first part is watched
OURS, DIFFUSERS, DENOISING = "generama", "diffusers", "denoising-diffusion-pytorch"
TARGETS = {DIFFUSERS: ">= 2.5", DENOISING: ">= 5"}
PEAK_TARGET = ">= 0.45"
FAIR = {  # how a peer is run: whether it keeps freed memory as we do, and whether in bfloat16
    "as its users get it": (False, False),
    "with our allocator": (True, False),
    "with our allocator, in bfloat16": (True, True),
}


@dataclass
class Entry:
    """A contender in one way of running it."""

    name: str  # a key of contenders.CONTENDERS
    way: str
    python: str
    bfloat16: bool = False
    keep_memory: bool = True
    command: list[str] = field(default_factory=list)
    seen: list[Watched] = field(default_factory=list)

    @property
    def label(self) -> str:
        """As the tables call it."""
        return f"{self.name}, {self.way}"

    @property
    def counting(self) -> tuple[str, ...]:
        """The command that counts its operations, the same in every way of running it."""
        return (self.python, "-m", "benchmarks.contenders", "count", self.name)


def measure(peers: str, seconds: float, rounds: int, threads: int, folder: Path) -> Sheet:
    """Train every contender in turns, count its operations, and hold both against the machine's peak."""
    sheet = Sheet("speed", f"make bench ARGS='--seconds {seconds:g} --rounds {rounds}'", machine(threads))
    entries = contenders(peers)
    known = {command: asked(command, threads) for command in {e.counting: None for e in entries}}
    counts = {e.label: known[e.counting] for e in entries}
    images = write_images(folder)
    peaks: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    peak = [sys.executable, "-m", "benchmarks.peak", "--seconds", f"{seconds / 150:g}"]
    for turn in range(rounds):
        for name, value in asked(peak, threads).items():
            peaks[name].append(value)
        for entry in entries:
            place = folder / f"{entry.label}-{turn}".replace(" ", "-").replace(",", "")
            run(entry, place, images, seconds, threads)
            sheet.beside(entry.seen[-1].others)
    report(sheet, entries, counts, peaks)
    return sheet


def contenders(peers: str) -> list[Entry]:
    """Ours as it is, ours under the peers' torch, and each peer in three ways."""
    entries = [Entry(OURS, "as its users get it", sys.executable), Entry(OURS, "under the peers' torch", peers)]
    for name in (DIFFUSERS, DENOISING):
        for way, (keep_memory, bfloat16) in FAIR.items():
            entries.append(Entry(name, way, peers, bfloat16, keep_memory))
    return entries


def run(entry: Entry, place: Path, images: Path, seconds: float, threads: int) -> None:
    """Train one contender once, for so many seconds after its log begins."""
    if entry.name == OURS:
        log = place / "log.jsonl"
        net = f"--family.net.width {NET['width']} --family.net.patch {NET['patch']} --family.net.multiples".split()
        net += map(str, NET["multiples"])
        entry.command = [*training("ddpm", place, entry.python), *net]
    else:
        log = place.with_suffix(".jsonl")
        entry.command = [entry.python, "-m", "benchmarks.contenders", "train", entry.name]
        entry.command += f"--images {images} --log {log} --batch {BATCH}".split()
        entry.command += ["--keep-memory"] * entry.keep_memory + ["--bfloat16"] * entry.bfloat16
    entry.seen.append(watch(entry.command, log, threads, seconds))
    print(f"  {entry.label}: {entry.seen[-1].speed:,.1f} images/s", flush=True)
    if entry.name == OURS:
        entry.bfloat16 = precision(place) == "bfloat16"


def training(recipe: str, run: Path, python: str = sys.executable) -> list[str]:
    """The command that trains one of ours with a user's budget, on which its choice of execution depends."""
    flags = f"--data mnist5k --train.batch {BATCH} --train.minutes {MINUTES} --train.previews 0 --run {run}"
    return [python, "-m", "generama", "train", recipe, *flags.split()]


def report(
    sheet: Sheet, entries: list[Entry], counts: dict[str, dict[str, Any]], peaks: dict[str, list[float]]
) -> None:
    """The figures of all contenders, and the ratios with their targets."""
    ours = counts[entries[0].label]["versions"]
    for name, values in peaks.items():  # what slows a machine down is not its peak, so the best round counts
        sheet.add("convolution peak", f"this machine, {name}", [max(values)], "GFLOP/s", ours)
    reached = {}
    for e in entries:
        facts, dtype = counts[e.label], "bfloat16" if e.bfloat16 else "float32"
        speeds = [seen.speed for seen in e.seen]
        common: dict[str, Any] = {"versions": facts["versions"], "command": shown(e.command), "note": dtype}
        sheet.add("parameters", e.label, [facts["parameters"]], "", **common)
        sheet.add("operations of a training image", e.label, [facts["training"] / 1e6], "MFLOP", **common)
        sheet.add("training speed", e.label, speeds, "images/s", **common)
        flops = [speed * facts["training"] / 1e9 for speed in speeds]
        reached[e.label] = sheet.add("training operations", e.label, flops, "GFLOP/s", **common)
        shares = [value / max(peaks[dtype]) for value in flops]
        target = PEAK_TARGET if e is entries[0] else ""
        sheet.add("share of the convolution peak", e.label, shares, "", **common, target=target)
        sheet.add("peak memory", e.label, [seen.peak_memory / 2**20 for seen in e.seen], "MiB", **common)
    for mine in entries[:2]:
        for e in entries[2:]:
            target = TARGETS[e.name] if e.way == mine.way == "as its users get it" else ""
            ratio = [reached[mine.label] / reached[e.label]]
            sheet.add("training operations, ratio", f"{mine.label} / {e.label}", ratio, "x", ours, target=target)


def precision(run: Path) -> str:
    """The dtype that our run chose for itself, as its checkpoint says; float32 where it had no choice."""
    from generama.checkpoints import newest

    checkpoint = newest(run / "checkpoints")
    return checkpoint.facts.get("execution", {}).get("precision", "float32") if checkpoint else "float32"


def asked(command: Sequence[str], threads: int) -> dict[str, Any]:
    """The JSON that a command prints."""
    done = subprocess.run(command, cwd=ROOT, env=environment(threads), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def shown(command: Sequence[str]) -> str:
    """A command as anyone can type it: without the places of this machine."""
    return shlex.join(["python", *(Path(word).name if word.startswith("/") else word for word in command[1:])])


def write_images(folder: Path) -> Path:
    """The training pictures as a plain array for the peers, which so have no files to open."""
    from generama.data import open_data

    path = folder / "images.npy"
    np.save(path, open_data("mnist5k").train.pixels(slice(None)).numpy())
    return path
