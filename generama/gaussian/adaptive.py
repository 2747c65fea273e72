"""Dormand and Prince's Runge-Kutta method of orders 5 and 4, with steps as long as the tolerance allows.

Dormand and Prince (1980); the choice of the next step as in Hairer, Norsett and Wanner (1993), section II.4. Each image
has steps of its own, so that it does not depend on its batch: images that are done wait, unchanged, for the others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from generama.errors import Diverged
from generama.gaussian.formulations import Velocity, column

NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),  # the solution of order 5
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)  # it less that of order 4
MOST = 1_000  # steps


def dopri5(velocity: Velocity, y: Tensor, start: Tensor, end: Tensor, rtol: float = 1e-4, atol: float = 1e-4) -> Tensor:
    """y at time `end` from y (B, C, H, W) at `start`, both scalars; six calls a step, and one before the first.

    The root mean square over pixels of a step's error is below atol + rtol |y|. Raises Diverged after 1,000 steps.
    """
    t = start.expand(len(y)).clone()
    h = (end - t) / 20
    first = velocity(y, t)
    for _ in range(MOST):
        h = torch.where((end - t).abs() < h.abs(), end - t, h)
        ahead, slopes = _step(velocity, y, t, h, first)
        scale = atol + rtol * torch.maximum(y.abs(), ahead.abs())
        error = (_combine(h, ERROR, slopes) / scale).square().mean((1, 2, 3)).sqrt()
        good = error <= 1
        y = torch.where(column(good), ahead, y)
        t = torch.where(good & (h == end - t), end, torch.where(good, t + h, t))
        if bool((t == end).all()):
            return y
        first = torch.where(column(good), slopes[-1], first)
        h = h * (0.9 * error.clamp(min=1e-10) ** -0.2).clamp(0.2, 5)
    raise Diverged(f"the adaptive sampler took {MOST:,} steps and is not there; use another sampler, such as heun")


def _step(velocity: Velocity, y: Tensor, t: Tensor, h: Tensor, first: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The solution of order 5 after a step h (B,), and the seven slopes, the last of which is that at its end."""
    slopes, ahead = [first], y
    for node, weights in zip(NODES, STAGES, strict=True):
        ahead = y + _combine(h, weights, slopes)
        slopes.append(velocity(ahead, t + node * h))
    return ahead, slopes


def _combine(h: Tensor, weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    return column(h) * sum((w * k for w, k in zip(weights, slopes, strict=True) if w), torch.zeros_like(slopes[0]))
