"""How a family is trained, the budget that ends it, and what a comparison can be asked for."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from generama.errors import UsageError

Count = Annotated[  # that the command line also reads as 2k, 1.5M or 1G
    int,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="N",
        instance_from_str=lambda args: count(args[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    ),
]
Need = Literal["quality", "fast-sampling", "likelihood", "diversity", "control", "low-memory"]
Names = Annotated[Positional[tuple[str, ...]], arg(metavar="[RECIPE ...]", help_behavior_hint="")]
Subjects = Annotated[Positional[tuple[str, ...]], arg(metavar="A [B ...]", help_behavior_hint="")]
Pictures = Annotated[Positional[tuple[str, ...]], arg(metavar="[PICTURE ...]", help_behavior_hint="")]
How = Literal["img2img", "inpaint", "reconstruct", "interpolate", "variations"]


def _listed(kind: type[int] | type[float]) -> PrimitiveConstructorSpec[Any]:
    """How the command line reads several numbers as one word: 10,100."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="N,N",
        instance_from_str=lambda args: tuple(kind(number) for number in args[0].split(",")),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(f"{number:g}" for number in value)],
    )


Integers = Annotated[tuple[int, ...], _listed(int), arg(help_behavior_hint="")]
Numbers = Annotated[tuple[float, ...], _listed(float), arg(help_behavior_hint="")]


@dataclass(frozen=True)
class TrainSettings:
    """Training settings. The run ends when the first of the limits that are set is used up; none: five minutes."""

    batch: int = 64
    rate: float = 1e-3  # learning rate of Adam, before the schedule and a player's own multiple
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["cosine", "constant"] = "cosine"  # cosine: to zero over the budget, whatever its kind
    warmup: Count = 0  # images over which the rate rises from zero
    clip: float = 1.0  # largest norm of a player's gradient; 0: no clipping
    average: float = 0.05  # length of the sampled average of the weights, as a share of the run; 0: the live weights
    snapshots: int = 0  # times over the run at which averages are kept, from which any length can be made afterwards
    seed: int = 0
    shard: bool = False  # under torchrun: each process holds a share of the weights (FSDP2), not a copy (DDP)
    save_minutes: float = 2.0  # between two checkpoints
    previews: int = 8  # grids over the run, at equal shares of the budget; 0: none
    kept: int = 0  # pictures kept at each preview, so that quality over training time can be measured afterwards
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: whichever is measured to be faster, if it agrees
    layout: Literal["auto", "contiguous", "channels_last"] = "auto"  # of the weights in memory; auto: the faster one
    compile: Literal["auto", "yes", "no"] = "auto"  # fuse by torch.compile; auto: where the run is long enough to gain
    epochs: float | None = None
    minutes: float | None = None
    images: Count | None = None
    steps: Count | None = None
    flops: float | None = None  # counted, forward and backward


@dataclass(frozen=True)
class CompareSettings:
    """What a comparison can be asked for; the command line has these as its flags."""

    recipes: Names = ()  # none named: one of each family
    data: str = "mnist5k"  # a name, a folder, a zip, an .npz, IDX files or hub:NAME
    budget: str = "35s"  # of each run: 35s, 5min, "200k images" or "1e15 flops"
    epochs: Numbers = ()  # 10,100: each recipe for 10 and for 100 passes, instead of the budget
    seeds: int = 1  # runs of each recipe
    rates: Numbers = (1.0,)  # 0.5,1,2: one more run of each recipe at half and at double its learning rate
    samples: int = 1_000  # drawn and measured, of each run
    quality: float | None = None  # a kernel distance, to which times are compared; left out: the median of the rows
    out: Path | None = None  # the folder; left out: runs/compare-DATA
    size: int | None = None  # pixels a side that the pictures are scaled to
    grey: bool | None = None  # left out: grey where every picture is
    device: str | None = None  # cpu, cuda or mps; left out: the GPU where there is one
    engine: Literal["here", "ray"] = "here"  # one run after the other, or many at once as tasks of Ray
    address: str | None = None  # of a running Ray cluster; left out: one on this machine, for this call
    cpus_per_run: int = 1  # with ray: the cores of each run


@dataclass(frozen=True)
class EvaluateSettings:
    """What measuring can be asked for; the command line has these as its flags."""

    subjects: Subjects = ()  # runs, folders or zips of pictures, or .npz files
    against: str | None = None  # the real pictures: a name or a source of data; left out: what a run learned from
    n: Count | None = None  # pictures measured of each; left out: as many as all sides have, 1,000 drawn from a run
    extractor: str | None = None  # of features; left out: a classifier where the real pictures have labels
    size: int | None = None  # pixels a side that both sides are scaled to; left out: the real pictures' own
    grey: bool | None = None  # left out: grey where every picture of both sides is
    average: float | None = None  # of runs: the length of another average of the weights
    on_bad: Literal["error", "skip"] = "error"  # what a picture that cannot be read leads to
    bad_limit: float = 0.01  # with skip: the most of them, as a share
    out: Path | None = None  # the folder; left out: runs/judged-A-against-D


@dataclass(frozen=True)
class EditSettings:
    """What an edit can be asked for; the command line has these as its flags."""

    pictures: Pictures = ()  # files of any size: cropped to a square and scaled as the run's own pictures are
    how: How = "img2img"
    held_out: int = 0  # instead of files: so many held-out pictures of the run's data, with their classes
    label: int | None = None  # the class to draw; left out: a held-out picture's own, of files none in particular
    strength: float = 0.6  # img2img, variations: the noise that is added, 0 (the picture itself) to 1 (nothing of it)
    seeds: Integers = ()  # 0,1,2: a result for each; left out: one, eight for variations, two to interpolate between
    mask: Path | None = None  # inpaint: a picture, white where to make anew; cropped and scaled like the pictures
    box: Integers = ()  # inpaint: x0,y0,x1,y1 in pixels of the run, instead of a mask
    repeats: int = 10  # inpaint: times that each step is taken, for both sides to agree
    frames: int = 8  # interpolate: pictures from one end to the other, both included
    name: str | None = None  # of the folder in the run's edits; left out: that of the edit
    batch: int = 64


@dataclass
class Spent:
    """What a run has used so far. Rounds are the only clock; the seconds are those of training alone."""

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    flops: float = 0.0


def progress(settings: TrainSettings, spent: Spent, epoch: int) -> float:
    """The share of the budget that is used, 0 to 1; `epoch` is the number of pictures in one pass of the data."""
    limits = {
        "epochs": (spent.images / epoch, settings.epochs),
        "minutes": (spent.seconds / 60, settings.minutes),
        "images": (spent.images, settings.images),
        "steps": (spent.step, settings.steps),
        "flops": (spent.flops, settings.flops),
    }
    shares = [used / limit for used, limit in limits.values() if limit is not None]
    return min(1.0, max(shares, default=spent.seconds / 300))


def learning_rate(settings: TrainSettings, spent: Spent, share: float) -> float:
    """The rate at this share of the budget, so that a run of any length ends decayed."""
    rise = min(1.0, (spent.images + settings.batch) / settings.warmup) if settings.warmup else 1.0
    fall = 0.5 * (1 + math.cos(math.pi * share)) if settings.schedule == "cosine" else 1.0
    return settings.rate * rise * fall


def count(text: str) -> int:
    """Read 2k, 1.5M, 1G or a plain number."""
    match = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)([kMG]?)", text.strip())
    if not match:
        raise UsageError(f"'{text}' is not a number of images; write 500, 20k or 2M")
    return round(float(match[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[match[2]])


def budget_fields(text: str) -> dict[str, Any]:
    """Read a budget as TrainSettings has it: "35s", "5min", "1h", "200k images", "10 epochs" or "1e15 flops"."""
    match = re.fullmatch(r"([0-9.]+(?:e\+?[0-9]+)?[kMG]?)\s*(s|min|h|images|epochs|flops)", text.strip())
    if not match:
        raise UsageError(f"'{text}' is not a budget; write 35s, 5min, 1h, '200k images', '10 epochs' or '1e15 flops'")
    amount, unit = count(match[1]), match[2]
    if unit in ("s", "min", "h"):
        return {"minutes": float(match[1]) * {"s": 1 / 60, "min": 1.0, "h": 60.0}[unit]}
    return {unit: amount if unit == "images" else float(amount)}
