"""The variational bound of a chain of T noisy images (Ho et al. 2020, equation 5; Kingma et al. 2021, equation 13).

Any velocity that reads the image off noise has one, on any schedule: that of a DDPM on its own, that of rectified flow
on the schedule it is given. Letters: abar_i cumulative product at step i = 0..T-1, x_i = sqrt(abar_i) x0 +
sqrt(1 - abar_i) eps, SNR = abar / (1 - abar); t_i and y_i = (1 - t_i) x0 + t_i eps the same in straight coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from generama.gaussian.formulations import Velocity, column
from generama.gaussian.schedules import Schedule


def variational_bound(schedule: Schedule, velocity: Velocity, x0: Tensor, levels: int, draws: int = 15) -> Tensor:
    """A lower bound on log P(x0) of images with that many levels, in nats, (B,): an unbiased estimate of it.

    -log P <= KL(x_T) + sum over i of (SNR_{i-1} - SNR_i) / 2 |x0 - x0_hat(x_i)|^2 - log p(x0 | x_0), the reverse steps
    having the posterior's variance. The sum is estimated from `draws` of its T - 1 terms. They fall about as 1 / i, so
    step i is drawn with that probability, one from each of `draws` equal shares of it.
    """
    weight = 1 / torch.arange(1, schedule.T, dtype=torch.float64, device=x0.device)
    probability = weight / weight.sum()
    cumulative = probability.cumsum(0)
    total = torch.zeros(len(x0), dtype=torch.float64, device=x0.device)
    for k in range(draws):
        u = (k + torch.rand(len(x0), device=x0.device, dtype=torch.float64)) / draws
        drawn = torch.searchsorted(cumulative, u).clamp(max=schedule.T - 2)  # 0 stands for step 1
        total += reverse_step(schedule, velocity, x0, drawn + 1) / (probability[drawn] * draws)
    return decoder(schedule, velocity, x0, levels) - total - prior(schedule.alpha_bar()[-1], x0)


@dataclass(frozen=True)
class Terms:
    """What each step of the chain costs, in bits per dimension, means over images; all of them add up to the bound."""

    prior: float  # what is left of the image in the last step
    steps: tuple[int, ...]  # some of 1 .. T - 1
    kl: tuple[float, ...]  # of the reverse step from each of them
    decoder: float  # from step 0 to the levels


def bound_by_terms(
    schedule: Schedule, velocity: Velocity, x0: Tensor, levels: int, steps: Iterable[int] | None = None
) -> Terms:
    """The variational bound of images x0 by its terms, at these steps; None: at all T - 1. One noise for each."""
    bit = x0[0].numel() * math.log(2)  # nats of an image that costs one bit per dimension
    chosen = tuple(range(1, schedule.T) if steps is None else steps)
    every = (reverse_step(schedule, velocity, x0, torch.full((len(x0),), i, device=x0.device)) for i in chosen)
    kl = tuple(float(nats.mean()) / bit for nats in every)
    last = float(prior(schedule.alpha_bar()[-1], x0).mean()) / bit
    return Terms(last, chosen, kl, -float(decoder(schedule, velocity, x0, levels).mean()) / bit)


def reverse_step(schedule: Schedule, velocity: Velocity, x0: Tensor, step: Tensor) -> Tensor:
    """KL(q(x_{i-1} | x_i, x0) || p(x_{i-1} | x_i)) = (SNR_{i-1} - SNR_i) / 2 |x0 - x0_hat(x_i)|^2, (B,) float64.

    At a step i >= 1 for each image, (B,): an unbiased estimate of the mean over x_i, from one.
    """
    abar = schedule.alpha_bar().to(x0.device)
    snr = abar / (1 - abar)
    error = (x0 - estimate(schedule, velocity, x0, step)).double().square().sum((1, 2, 3))
    return (snr[step - 1] - snr[step]) / 2 * error


def estimate(schedule: Schedule, velocity: Velocity, x0: Tensor, step: Tensor) -> Tensor:
    """x0_hat: noise the images to their steps (B,), and let the network guess them back; kept in [-1, 1]."""
    t = schedule.times().to(x0)[step]
    y = torch.lerp(x0, torch.randn_like(x0), column(t))
    return (y - column(t) * velocity(y, t)).clamp(-1, 1)


def prior(abar: Tensor, x0: Tensor) -> Tensor:
    """KL(N(sqrt(abar) x0, 1 - abar) || N(0, 1)) of the last step, (B,)."""
    return 0.5 * (abar * x0.double().square() - abar - torch.log1p(-abar)).sum((1, 2, 3))


def decoder(schedule: Schedule, velocity: Velocity, x0: Tensor, levels: int) -> Tensor:
    """log p(x0 | x_0): a Gaussian of variance beta_1 around the guess, integrated over each pixel's bin, (B,).

    The outermost bins reach to infinity (Ho et al., equation 13).
    """
    step = torch.zeros(len(x0), dtype=torch.long, device=x0.device)
    mean = estimate(schedule, velocity, x0, step).double()
    sigma, half = (1 - schedule.alpha_bar()[0]).sqrt().to(x0.device), 1 / (levels - 1)
    upper = torch.special.ndtr((x0 + half - mean) / sigma).where(x0 < 1 - half, 1.0)
    lower = torch.special.ndtr((x0 - half - mean) / sigma).where(x0 > -1 + half, 0.0)
    return (upper - lower).clamp(min=1e-12).log().sum((1, 2, 3))
