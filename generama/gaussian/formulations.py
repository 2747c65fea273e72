"""How a network is read as a velocity in straight coordinates, and the t and the target it learns from.

Letters: x0 image, eps noise, y = (1 - t) x0 + t eps, v = eps - x0, F the network, n = sqrt((1 - t)^2 + t^2), by which
variance-preserving formulations divide: x = y / n = sqrt(abar) x0 + sqrt(1 - abar) eps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from generama.core import Noise

Network = Callable[[Tensor, Tensor], Tensor]  # F(image (B, C, H, W), time label (B,) in 0..1000) -> (B, C, H, W)


@dataclass(frozen=True)
class RectifiedFlow:
    """v = F(y, t), learned on every t alike (Liu et al. 2022; Lipman et al. 2022)."""

    kind: Literal["rectified-flow"] = "rectified-flow"

    def velocity(self, network: Network, y: Tensor, t: Tensor) -> Tensor:
        """dy/dt at (y, t), t a scalar or (B,)."""
        return network(y, 1000 * t.expand(len(y)))

    def loss(self, network: Network, x0: Tensor, noise: Noise) -> Tensor:
        """|F((1 - t) x0 + t z, t) - (z - x0)|^2 per image, (B,); t uniform in [0, 1]."""
        t, z = noise.uniform().to(x0), noise.normal(*x0.shape[1:]).to(x0)
        y = torch.lerp(x0, z, column(t))
        return (network(y, 1000 * t) - (z - x0)).square().mean((1, 2, 3))

    def grid(self, steps: int) -> Tensor:
        """The times of `steps` network calls: 1 to 0 evenly, (steps + 1,) float64."""
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


@dataclass(frozen=True)
class DDPM:
    """F predicts the noise at one of T steps (Ho et al. 2020, algorithm 1; Nichol & Dhariwal 2021 for the cosine)."""

    kind: Literal["ddpm"] = "ddpm"
    schedule: Literal["linear", "cosine"] = "linear"
    T: int = 1000

    def velocity(self, network: Network, y: Tensor, t: Tensor) -> Tensor:
        """v = (eps - y) / (1 - t) with eps = F(y / n, step): from y = (1 - t) x0 + t eps."""
        eps = network(y / column(torch.hypot(1 - t, t)), self.step(t).expand(len(y)))
        return (eps - y) / column(1 - t)

    def loss(self, network: Network, x0: Tensor, noise: Noise) -> Tensor:
        """|eps - F(sqrt(abar) x0 + sqrt(1 - abar) eps, step)|^2 per image, (B,): equation 14, L_simple."""
        step, eps = noise.integers(self.T), noise.normal(*x0.shape[1:]).to(x0)
        abar = self.alpha_bar().to(x0)[step]
        x = column(abar.sqrt()) * x0 + column((1 - abar).sqrt()) * eps
        return (network(x, step * (1000 / self.T)) - eps).square().mean((1, 2, 3))

    def grid(self, steps: int) -> Tensor:
        """The times of `steps` network calls: that many of the T steps, evenly and with both ends; then 0."""
        if not 1 <= steps <= self.T:
            raise ValueError(f"steps must be between 1 and {self.T}, not {steps}")
        chosen = torch.linspace(self.T - 1, 0, steps, dtype=torch.float64).round().long()
        return torch.cat([self.times()[chosen], torch.zeros(1, dtype=torch.float64)])

    def alpha_bar(self) -> Tensor:
        """Cumulative product of 1 - beta, (T,) float64: equation 4 of Ho et al., equation 17 of Nichol & Dhariwal."""
        if self.schedule == "linear":
            beta = torch.linspace(1e-4, 0.02, self.T, dtype=torch.float64) * (1000 / self.T)
        else:
            k = torch.arange(self.T + 1, dtype=torch.float64) / self.T
            f = torch.cos((k + 0.008) / 1.008 * math.pi / 2).square()
            beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
        return torch.cumprod(1 - beta, dim=0)

    def times(self) -> Tensor:
        """t = sigma / (alpha + sigma) of each step, (T,) float64, increasing."""
        alpha, sigma = self.alpha_bar().sqrt(), (1 - self.alpha_bar()).sqrt()
        return sigma / (alpha + sigma)

    def step(self, t: Tensor) -> Tensor:
        """The network's label 0..1000 for time t: the step of that t, linear in between, the ends outside."""
        times = self.times().to(t)
        right = torch.searchsorted(times, t.contiguous()).clamp(1, self.T - 1)
        share = (t - times[right - 1]) / (times[right] - times[right - 1])
        return (right - 1 + share.clamp(0, 1)) * (1000 / self.T)


Formulation = RectifiedFlow | DDPM


def column(t: Tensor) -> Tensor:
    """(B,) or scalar -> (B, 1, 1, 1) or scalar: to multiply images by."""
    return t.view(-1, 1, 1, 1) if t.dim() else t
