"""Noise schedules in T steps: how much of the picture is left after each (Ho et al. 2020; Nichol & Dhariwal 2021).

Letters: abar the cumulative product of 1 - beta; alpha = sqrt(abar), sigma = sqrt(1 - abar);
t = sigma / (alpha + sigma).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """A variance-preserving schedule; its steps are 0, the cleanest, to T - 1."""

    name: Literal["linear", "cosine"] = "linear"
    T: int = 1000

    def alpha_bar(self) -> Tensor:
        """Cumulative product of 1 - beta, (T,) float64: equation 4 of Ho et al., equation 17 of Nichol & Dhariwal."""
        if self.name == "linear":
            beta = torch.linspace(1e-4, 0.02, self.T, dtype=torch.float64) * (1000 / self.T)
        else:
            k = torch.arange(self.T + 1, dtype=torch.float64) / self.T
            f = torch.cos((k + 0.008) / 1.008 * math.pi / 2).square()
            beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
        return torch.cumprod(1 - beta, dim=0)

    def times(self) -> Tensor:
        """t of each step, (T,) float64, increasing."""
        alpha, sigma = self.alpha_bar().sqrt(), (1 - self.alpha_bar()).sqrt()
        return sigma / (alpha + sigma)

    def step(self, t: Tensor) -> Tensor:
        """The step of time t, between 0 and T - 1: linear between the schedule's own, the ends outside."""
        times = self.times().to(t)
        right = torch.searchsorted(times, t.contiguous()).clamp(1, self.T - 1)
        share = (t - times[right - 1]) / (times[right] - times[right - 1])
        return right - 1 + share.clamp(0, 1)
