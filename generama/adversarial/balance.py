"""Who is ahead in the game of a generator and a discriminator, and whether the game is about the pictures at all.

At the optimum the discriminator is right half of the time (Goodfellow et al. 2014, theorem 1), because nobody could
tell the samples from real pictures. A discriminator that is no better while others can tell them is merely weak. Who
else could tell is asked of a classifier of one nearest neighbour (Lopez-Paz and Oquab 2017, "Revisiting Classifier
Two-Sample Tests", arXiv:1610.06545).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from generama.core import Finding

STRONG = 0.98  # right about real and about generated pictures: what it teaches is only that all is wrong
WEAK = 0.55  # right about both together: hardly better than a coin
TOLD = 0.9  # right by one nearest neighbour: anybody can tell
RISE = 0.1  # of the generator's loss over the second half: it is losing
FEWEST = 8  # lines of the log


def told_apart(real: Tensor, fake: Tensor) -> float:
    """How often the nearest other picture is of the same kind, over (N, ...) real and (N, ...) generated ones.

    0.5 where they cannot be told apart, 1 where they can.
    """
    both = torch.cat([real, fake]).flatten(1).float()
    kind = torch.arange(len(both), device=both.device) < len(real)
    table = torch.cdist(both, both).fill_diagonal_(torch.inf)
    return (kind[table.argmin(1)] == kind).double().mean().item()


def unbalanced(log: Sequence[Mapping[str, float]], told: float) -> list[Finding]:
    """A discriminator too strong or too weak in the last quarter of the log; `told` is what `told_apart` says."""
    lines = [line for line in log if "discriminator/real_accuracy" in line]
    if len(lines) < FEWEST:
        return []
    last, third = lines[-(len(lines) // 4) :], lines[len(lines) // 2 : -(len(lines) // 4)]
    real, fake = (mean(last, f"discriminator/{kind}_accuracy") for kind in ("real", "fake"))
    before, now = mean(third, "loss/generator"), mean(last, "loss/generator")
    seen = (
        f"in the last quarter of the training it was right about {real:.1%} of the real and {fake:.1%} of the generated"
    )
    if real >= STRONG and fake >= STRONG:
        rises = now > before + RISE * abs(before)
        course = f"the generator's loss went from {before:.3g} in the quarter before to {now:.3g}"
        return [
            Finding(
                "discriminator-too-strong",
                "problem" if rises else "warning",
                "The discriminator is too strong: it recognises nearly everything, so the generator learns little",
                f"{seen} pictures; {course}",
                "more --family.generator_turns, more --family.smoothing, or a lower --train.rate",
            )
        ]
    if (real + fake) / 2 <= WEAK and told >= TOLD:
        return [
            Finding(
                "discriminator-too-weak",
                "problem",
                "The discriminator is too weak: it guesses, while anybody could tell the samples from real pictures",
                f"{seen} pictures, that is {(real + fake) / 2:.1%} of all; by the nearest picture alone {told:.1%} of "
                "them are told apart",
                "fewer --family.generator_turns, less --family.smoothing, a wider discriminator, or longer training",
            )
        ]
    return []


def mean(lines: Sequence[Mapping[str, float]], key: str) -> float:
    """The mean of a key over the lines that have it."""
    values = [line[key] for line in lines if key in line]
    return sum(values) / max(len(values), 1)
