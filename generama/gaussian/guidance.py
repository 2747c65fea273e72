"""Classifier-free guidance (Ho & Salimans 2022): it wraps the velocity, and the network never knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from generama.core import Condition
from generama.gaussian.samplers import Velocity

ConditionalVelocity = Callable[[Tensor, Tensor, Condition], Tensor]


def guided(velocity: ConditionalVelocity, cond: Condition, scale: float) -> Velocity:
    """v_0 + scale (v_c - v_0), in one call on a doubled batch.

    Scale 1 is the conditional model and 0 the unconditional one, each in a single call. The papers' other scale is
    w = scale - 1: (1 + w) v_c - w v_0.
    """
    if cond.label is None or scale == 1:
        return lambda y, t: velocity(y, t, cond)
    keep = torch.ones_like(cond.label, dtype=torch.bool)
    if scale == 0:
        return lambda y, t: velocity(y, t, replace(cond, keep=~keep))
    both = replace(cond.map(lambda value: torch.cat([value, value])), keep=torch.cat([~keep, keep]))

    def guided_velocity(y: Tensor, t: Tensor) -> Tensor:
        free, asked = velocity(torch.cat([y, y]), t, both).chunk(2)
        return free + scale * (asked - free)

    return guided_velocity
