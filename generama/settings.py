"""How a family is trained, and the budget that ends it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, NewType

from generama.errors import UsageError

Count = NewType("Count", int)  # an integer that the command line also reads as 2k, 1.5M or 1G


@dataclass(frozen=True)
class TrainSettings:
    """Training settings. The run ends when the first of the limits that are set is used up; none: five minutes."""

    batch: int = 64
    rate: float = 1e-3  # learning rate of Adam, before the schedule and a player's own multiple
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["cosine", "constant"] = "cosine"  # cosine: to zero over the budget, whatever its kind
    warmup: Count = Count(0)  # images over which the rate rises from zero
    clip: float = 1.0  # largest norm of a player's gradient; 0: no clipping
    half_life: Count = Count(20_000)  # of the average of the weights, in images; 0: no averaging
    seed: int = 0
    previews: int = 8  # grids over the run, at equal shares of the budget
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: whichever is measured to be faster, if it agrees
    layout: Literal["auto", "contiguous", "channels_last"] = "auto"  # of the weights in memory; auto: the faster one
    compile: Literal["auto", "yes", "no"] = "auto"  # fuse by torch.compile; auto: where the run is long enough to gain
    epochs: float | None = None
    minutes: float | None = None
    images: Count | None = None
    steps: Count | None = None
    flops: float | None = None  # counted, forward and backward


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


def count(text: str) -> Count:
    """Read 2k, 1.5M, 1G or a plain number."""
    match = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)([kMG]?)", text.strip())
    if not match:
        raise UsageError(f"'{text}' is not a number of images; write 500, 20k or 2M")
    return Count(round(float(match[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[match[2]]))


def budget_fields(text: str) -> dict[str, Any]:
    """Read a budget as TrainSettings has it: "35s", "5min", "1h", "200k images", "10 epochs" or "1e15 flops"."""
    match = re.fullmatch(r"([0-9.]+(?:e\+?[0-9]+)?[kMG]?)\s*(s|min|h|images|epochs|flops)", text.strip())
    if not match:
        raise UsageError(f"'{text}' is not a budget; write 35s, 5min, 1h, '200k images', '10 epochs' or '1e15 flops'")
    amount, unit = count(match[1]), match[2]
    if unit in ("s", "min", "h"):
        return {"minutes": float(match[1]) * {"s": 1 / 60, "min": 1.0, "h": 60.0}[unit]}
    return {unit: amount if unit == "images" else float(amount)}
