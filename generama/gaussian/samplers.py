"""Samplers: pure functions that integrate dy/dt = v(y, t) from the first time to the last.

y = (1 - t) x0 + t eps, so a velocity says both what the image is, x0 = y - t v, and what the noise is,
eps = y + (1 - t) v.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from generama.core import Rng
from generama.gaussian.adaptive import dopri5
from generama.gaussian.formulations import Velocity, column

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


def dpmpp_2m(velocity: Velocity, y: Tensor, times: Tensor, rng: Rng) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): exact but for the image, which is drawn on in a straight line.

    lambda = ln((1 - t) / t), h = lambda_s - lambda_t, r = h of the step before over h. The last step, where h is
    infinite, is of first order, as is the first.
    """
    before, h_before = None, torch.inf
    for t, s in pairwise(times):
        x0 = y - t * velocity(y, t)
        h = ((1 - s) * t / (s * (1 - t))).log()
        ahead = x0 if before is None or h.isinf() else x0 + (x0 - before) * h / (2 * h_before)
        y = s / t * y + ((1 - s) - (1 - t) * s / t) * ahead
        before, h_before = x0, h
    return y


def ddim(velocity: Velocity, y: Tensor, times: Tensor, rng: Rng, eta: float = 0.0) -> Tensor:
    """DDIM (Song et al. 2021a, equations 12 and 16): from Euler's method, eta = 0, to ancestral sampling, eta = 1.

    Of the noise at the next time s, the share c = eta^2 (1 - SNR(t) / SNR(s)) is fresh.
    """
    for t, s in pairwise(times):
        v = velocity(y, t)
        x0, eps = y - t * v, y + (1 - t) * v
        c = eta**2 * (1 - ((1 - t) * s / ((1 - s) * t)) ** 2)
        if c > 0:
            eps = (1 - c).sqrt() * eps + c.sqrt() * rng.normal(*y.shape[1:])
        y = (1 - s) * x0 + s * eps
    return y


def ancestral(velocity: Velocity, y: Tensor, times: Tensor, rng: Rng) -> Tensor:
    """Ancestral sampling (Ho et al. 2020, algorithm 2, with the posterior's variance): DDIM with eta = 1."""
    return ddim(velocity, y, times, rng, eta=1.0)


def adaptive(velocity: Velocity, y: Tensor, times: Tensor, rng: Rng) -> Tensor:
    """Dormand and Prince's adaptive Runge-Kutta method; the times between the first and the last are its own.

    The last thousandth, where the image is divided by the time, is one step of Euler's.
    """
    near = torch.minimum(times[-1] + 1e-3, times[0])
    y = dopri5(velocity, y, times[0], near)
    return y + (times[-1] - near) * velocity(y, near)


SAMPLERS: dict[str, Sampler] = {
    "euler": euler,
    "ddim": ddim,
    "heun": heun,
    "dpmpp-2m": dpmpp_2m,
    "ancestral": ancestral,
    "adaptive": adaptive,
}


def asked(sampler: str, times: Tensor) -> Tensor | None:
    """The times at which a sampler asks the network, on this grid; None where it decides on the way."""
    if sampler == "adaptive":
        return None
    return torch.cat([times[:1], times[1:-1].repeat_interleave(2)]) if sampler == "heun" else times[:-1]


def start(times: Tensor, rng: Rng, shape: Sequence[int]) -> Tensor:
    """What sampling starts from, (B, *shape): noise of the size that a noisy image has at the first time."""
    return rng.normal(*shape) * torch.hypot(1 - times[0], times[0])


def clipped(velocity: Velocity) -> Velocity:
    """The velocity whose image estimate x0 = y - t v is kept in [-1, 1], as in Ho et al.'s sampler."""

    def clipped_velocity(y: Tensor, t: Tensor) -> Tensor:
        x0 = y - column(t) * velocity(y, t)
        return (y - x0.clamp(-1, 1)) / column(t)

    return clipped_velocity


def recorded(velocity: Velocity, states: list[Tensor]) -> Velocity:
    """The same velocity, keeping the noisy image y of each call: how a picture comes about."""

    def recorded_velocity(y: Tensor, t: Tensor) -> Tensor:
        states.append(y)
        return velocity(y, t)

    return recorded_velocity


def foreseen(velocity: Velocity, estimates: list[Tensor]) -> Velocity:
    """The same velocity, keeping what it takes the finished image to be at each call, x0 = y - t v."""

    def foreseen_velocity(y: Tensor, t: Tensor) -> Tensor:
        v = velocity(y, t)
        estimates.append(y - column(t) * v)
        return v

    return foreseen_velocity
