"""Samplers: pure functions that integrate dy/dt = v(y, t) from the first time to the last.

y = (1 - t) x0 + t eps, so a velocity says both what the image is, x0 = y - t v, and what the noise is,
eps = y + (1 - t) v.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from generama.core import Rng

Velocity = Callable[[Tensor, Tensor], Tensor]  # (y (B, C, H, W), t scalar) -> dy/dt
Sampler = Callable[[Velocity, Tensor, Tensor, Rng], Tensor]  # (velocity, y, decreasing times, rng) -> image


def euler(velocity: Velocity, y: Tensor, times: Tensor, rng: Rng) -> Tensor:
    """Euler's method; in these coordinates the same step as DDIM with eta = 0 (Song et al. 2021a, equation 12)."""
    for t, s in pairwise(times):
        y = y + (s - t) * velocity(y, t)
    return y


def heun(velocity: Velocity, y: Tensor, times: Tensor, rng: Rng) -> Tensor:
    """Heun's second-order method (Karras et al. 2022, algorithm 1); the last step, to t = 0, is Euler's."""
    for t, s in pairwise(times):
        v = velocity(y, t)
        ahead = y + (s - t) * v
        y = y + (s - t) * (v + velocity(ahead, s)) / 2 if s > 0 else ahead
    return y


def ancestral(velocity: Velocity, y: Tensor, times: Tensor, rng: Rng) -> Tensor:
    """Ancestral sampling (Ho et al. 2020, algorithm 2, with the posterior's variance): DDIM with eta = 1.

    Of the noise at the next time s, the share c = 1 - SNR(t) / SNR(s) is fresh.
    """
    for t, s in pairwise(times):
        v = velocity(y, t)
        x0, eps = y - t * v, y + (1 - t) * v
        c = 1 - ((1 - t) * s / ((1 - s) * t)) ** 2
        y = (1 - s) * x0 + s * ((1 - c).sqrt() * eps + c.sqrt() * rng.normal(*y.shape[1:]))
    return y


SAMPLERS: dict[str, Sampler] = {"euler": euler, "ddim": euler, "heun": heun, "ancestral": ancestral}


def calls(sampler: str, steps: int) -> int:
    """Network calls of a sampler on a grid of `steps` steps."""
    return 2 * steps - 1 if sampler == "heun" else steps


def clipped(velocity: Velocity) -> Velocity:
    """The velocity whose image estimate x0 = y - t v is kept in [-1, 1], as in Ho et al.'s sampler."""

    def clipped_velocity(y: Tensor, t: Tensor) -> Tensor:
        return (y - (y - t * velocity(y, t)).clamp(-1, 1)) / t

    return clipped_velocity


def recorded(velocity: Velocity, states: list[Tensor]) -> Velocity:
    """The same velocity, keeping the noisy image y of each call: how a picture comes about."""

    def recorded_velocity(y: Tensor, t: Tensor) -> Tensor:
        states.append(y)
        return velocity(y, t)

    return recorded_velocity
