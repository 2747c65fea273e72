"""Guidance wraps the velocity, and the network never knows: by no class, by a classifier, by a worse network.

All of them push away from what is likely without the wish: v + (scale - 1) (v - v_worse). Letters: w = scale - 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from generama.core import Condition
from generama.gaussian.formulations import Velocity, column

ConditionalVelocity = Callable[[Tensor, Tensor, Condition], Tensor]
LogProbability = Callable[[Tensor, Tensor, Tensor], Tensor]  # (y, t, labels (B,)) -> log p(label | y), (B,)
ALWAYS = (0.0, 1.0)


def guided(
    velocity: ConditionalVelocity, cond: Condition, scale: float, interval: tuple[float, float] = ALWAYS
) -> Velocity:
    """Classifier-free guidance (Ho & Salimans 2022): v_0 + scale (v_c - v_0), in one call on a doubled batch.

    Scale 1 is the conditional model and 0 the unconditional one, each in a single call. The papers' other scale is
    w = scale - 1: (1 + w) v_c - w v_0. Only for t in `interval`, the plain conditional model elsewhere (Kynkaanniemi et
    al. 2024).
    """
    if cond.label is None or scale == 1:
        return lambda y, t: velocity(y, t, cond)
    keep = torch.ones_like(cond.label, dtype=torch.bool)
    if scale == 0 and interval == ALWAYS:
        return lambda y, t: velocity(y, t, replace(cond, keep=~keep))
    both = replace(cond.map(lambda value: torch.cat([value, value])), keep=torch.cat([~keep, keep]))

    def guided_velocity(y: Tensor, t: Tensor) -> Tensor:
        inside = (interval[0] <= t) & (t <= interval[1])
        if not bool(inside.any()):
            return velocity(y, t, cond)
        free, asked = velocity(torch.cat([y, y]), torch.cat([t, t]) if t.dim() else t, both).chunk(2)
        return free + column(torch.where(inside, scale, 1.0)) * (asked - free)

    return guided_velocity


def guided_by_classifier(velocity: Velocity, log_probability: LogProbability, label: Tensor, scale: float) -> Velocity:
    """Classifier guidance (Dhariwal & Nichol 2021, algorithm 2): eps - scale t grad log p(label | y).

    y is noise of size t on (1 - t) x0, so the score of y is -eps / t; as a velocity v - scale t / (1 - t) grad. At
    t = 1 nothing can be seen, and nothing is added. The classifier has learned on noisy images; one call of it each.
    """
    if scale == 0:
        return velocity

    def guided_velocity(y: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            seen = y.detach().requires_grad_()
            (slope,) = torch.autograd.grad(log_probability(seen, t, label).sum(), seen)
        share = torch.where(t < 1, t / (1 - t).clamp(min=1e-6), 0.0)
        return velocity(y, t) - scale * column(share) * slope

    return guided_velocity


def guided_by_worse(velocity: Velocity, worse: Velocity, scale: float) -> Velocity:
    """Autoguidance (Karras et al. 2024b, equation 3): worse + scale (v - worse), of an earlier or smaller network."""
    if scale == 1:
        return velocity
    return lambda y, t: torch.lerp(worse(y, t), velocity(y, t), scale)
