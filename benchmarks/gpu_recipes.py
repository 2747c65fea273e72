"""What the recipes for GPUs would cost: parameters and operations counted on the real networks, hours estimated.

Networks are built on torch's meta device, where shapes are computed and numbers are not, so this takes seconds.
`python -m benchmarks.gpu_recipes` writes the two tables into docs/scaling.md.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.documents import fill, markdown
from generama.core import Batch, Condition, Family, Noise, Player, Spec
from generama.families import build
from generama.recipes import recipe

DOCUMENT = Path(__file__).parents[1] / "docs" / "scaling.md"
PEAK = 312e12  # operations a second of an A100 in bfloat16, by its data sheet
UTILISATION = 0.35  # of the peak: an assumption; what others reached is in REPORTED
GPUS = (1, 2, 4, 8)
TOGETHER = 0.9  # of the speed of each GPU is left where several work together: an assumption


@dataclass(frozen=True)
class Planned:
    """A recipe that was not run here, and the data it is meant for."""

    recipe: str
    data: str
    spec: Spec
    pictures: int  # in one pass
    expected: str  # FID, with its source


@dataclass(frozen=True)
class Cost:
    """Counted, not timed."""

    parameters: int  # of everything that is trained
    training: float  # operations per image, forward and backward, of every player's turns
    sampling: float  # operations per sample, all its evaluations together
    kept: int  # bytes per image that the layers keep for the way back, in float32
    images: int  # seen in training


@dataclass(frozen=True)
class Turn:
    """What one turn of a player takes for one image."""

    flops: float  # forward and backward
    forward: float  # of the player's own network alone: a generator's without the discriminator's
    kept: int  # bytes


@dataclass(frozen=True)
class Reported:
    """A training that somebody else timed, with the operations that the recipe of the same network counts."""

    what: str
    recipe: str
    images: float
    hours: float
    devices: str
    peak: float  # of all devices together, operations a second, by their data sheets
    source: str


PLANNED = (
    Planned("ddpm-cifar10", "cifar10.npz", Spec(3, 32, 10), 50_000, "3.17 (paper; 4.73 with our variance)"),
    Planned("rectified-flow-cifar10", "cifar10.npz", Spec(3, 32, 10), 50_000, "about 3.6 (TorchCFM, m)"),
    Planned("ddpm-celeba64", "celeba/", Spec(3, 64), 162_770, "3.51 at 1000 steps, 6.53 at 100 (DDIM paper, m)"),
    Planned("dcgan-celeba64", "celeba/", Spec(3, 64), 162_770, "12.5 to 21.4 (TTUR paper; the second m)"),
    Planned("adm-imagenet64", "imagenet64/", Spec(3, 64, 1000), 1_281_167, "2.61 (paper, learned variances, m)"),
)
REPORTED = (
    Reported(
        "DDPM, CIFAR-10, 800k steps", "ddpm-cifar10", 800e3 * 128, 10.6, "TPU v3-8", 420e12, "Ho et al., appendix B"
    ),
    Reported("TorchCFM, 400k steps", "rectified-flow-cifar10", 400e3 * 128, 19, "RTX 4090", 82.6e12, "issue #105"),
    Reported("TorchCFM, 400k steps", "rectified-flow-cifar10", 400e3 * 128, 60, "V100", 15.7e12, "issue #105"),
    Reported(
        "ADM, 64x64, 74 images/s", "adm-imagenet64", 74 * 3600, 1, "V100, float16", 125e12, "ADM paper, table 7, q"
    ),
)


@functools.cache
def cost(plan: Planned) -> Cost:
    """Count the parameters, operations and activations of a recipe on its data."""
    chosen = recipe(plan.recipe)
    with torch.device("meta"):
        family = build(chosen.family, plan.spec)
        turns = {player.name: count(family, player, plan.spec) for player in family.players()}
    training = sum(turns[player.name].flops * player.turns / player.every for player in family.players())
    forward = next(turns[player.name].forward for player in family.players() if player.average)
    settings = chosen.train
    images = settings.steps * settings.batch if settings.steps else round((settings.epochs or 0) * plan.pictures)
    parameters = sum(p.numel() for p in family.parameters())
    kept = max(turn.kept for turn in turns.values())
    calls = family.evaluations(**chosen.sample)
    assert calls is not None, f"{plan.recipe} is sampled by a solver that decides on the way, so it cannot be counted"
    return Cost(parameters, training, forward * calls, kept, images)


def count(family: Family, player: Player, spec: Spec) -> Turn:
    """One turn of a player on two images, because batch norm needs two; everything is given for one."""
    batch = Batch(torch.zeros(2, *spec.shape), Condition(torch.zeros(2, dtype=torch.long) if spec.classes else None))
    weights = {p.untyped_storage()._cdata for p in family.parameters()}
    kept: dict[int, Tensor] = {}  # storage -> a tensor that autograd keeps in it; views are counted once

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage()._cdata
        if place not in weights:
            kept.setdefault(place, tensor)
        return tensor

    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = player.loss(batch, Noise(0, 2, "meta"))
        forward = sum(counter.get_flop_counts()[type(player.module).__name__].values())
        activations = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        torch.autograd.grad(loss, list(player.module.parameters()), allow_unused=True)
    return Turn(counter.get_total_flops() / 2, forward / 2, activations // 2)


def hours(total: float, gpus: int) -> float:
    """Hours for that many operations on A100s, under the assumptions at the head of this file."""
    together = TOGETHER if gpus > 1 else 1.0
    return total / (PEAK * UTILISATION * gpus * together) / 3600


def planned_table() -> str:
    """A row a recipe: what it costs, counted and estimated, and what the papers reached with it."""
    rows = []
    for plan in PLANNED:
        found = cost(plan)
        total = found.training * found.images
        rows.append(
            [
                f"`{plan.recipe}`",
                f"{found.parameters / 1e6:.1f} M",
                f"{found.training / 1e9:.1f}",
                f"{found.images / 1e6:,.0f} M",
                f"{total:.1e}",
                *(in_words(hours(total, gpus)) for gpus in GPUS),
                f"{found.kept / 2**20:.0f} MiB",
                f"{found.sampling / 1e12:.2g}",
                plan.expected,
                "not run here",
            ]
        )
    head = ["Recipe", "Parameters", "GFLOP an image, training", "Images seen", "FLOP in all"]
    head += [f"{gpus} A100" for gpus in GPUS] + ["Kept an image", "TFLOP a sample", "FID elsewhere", "FID here"]
    return markdown(head, rows)


def in_words(amount: float) -> str:
    """Hours as a person says them, in two digits: an estimate has no more."""
    if amount < 1:
        return f"{60 * amount:.0f} min"
    return f"{amount:.1f} h" if amount < 10 else f"{float(f'{amount:.2g}'):,.0f} h"


def reported_table() -> str:
    """A row a training that somebody timed: which share of their devices' peak our count makes of it."""
    costs = {plan.recipe: cost(plan) for plan in PLANNED}
    rows = []
    for report in REPORTED:
        speed = costs[report.recipe].training * report.images / (report.hours * 3600)
        shown = f"{report.hours:g} h" if report.hours > 1 else "-"
        rows.append(
            [
                report.what,
                report.devices,
                shown,
                f"{speed / 1e12:.1f}",
                f"{100 * speed / report.peak:.0f} %",
                report.source,
            ]
        )
    return markdown(["Training", "On", "Took", "TFLOP/s", "Of the peak", "Source"], rows)


def main() -> None:
    """Write both tables into the document."""
    fill(DOCUMENT, "recipes", planned_table())
    fill(DOCUMENT, "reported", reported_table())
    print(DOCUMENT)


if __name__ == "__main__":
    main()
