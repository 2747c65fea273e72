"""Time grids: where along the way from noise to image the network is asked, (steps + 1,) float64 times, the last 0.

sigma = t / (1 - t) is the noise on an image of full size; grids in sigma start at most at 80 (Karras et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from generama.gaussian.formulations import DDPM, Formulation

HIGHEST = 80.0  # sigma: beyond it there is nothing to see of the image
RHO = 7.0


def uniform(formulation: Formulation, steps: int) -> Tensor:
    """Evenly on the formulation's own clock: t of rectified flow, steps of DDPM ("trailing": Lin et al. 2023)."""
    return formulation.at(torch.linspace(1, 0, steps + 1, dtype=torch.float64))


def quadratic(formulation: Formulation, steps: int) -> Tensor:
    """The clock's square, finer near the image (Song et al. 2021a, appendix D.2)."""
    return formulation.at(torch.linspace(1, 0, steps + 1, dtype=torch.float64).square())


def karras(formulation: Formulation, steps: int) -> Tensor:
    """sigma^(1/7) evenly (Karras et al. 2022, equation 5)."""
    high, low = ends(formulation)
    return _from_sigma(torch.linspace(high ** (1 / RHO), low ** (1 / RHO), steps, dtype=torch.float64) ** RHO)


def log_snr(formulation: Formulation, steps: int) -> Tensor:
    """ln sigma evenly, which is half of the negative log signal-to-noise ratio (Lu et al. 2022)."""
    high, low = torch.tensor(ends(formulation), dtype=torch.float64).log().tolist()
    return _from_sigma(torch.linspace(high, low, steps, dtype=torch.float64).exp())


def ddpm(formulation: Formulation, steps: int) -> Tensor:
    """Evenly in the steps of DDPM's linear schedule (Ho et al. 2020), T = 1000, whatever the formulation learned from.

    Most of them lie in the noise, where digits are decided; docs/diffusion.md has what few steps of dpmpp-2m make of
    it. It starts at the noisiest step that the formulation knows.
    """
    clock = DDPM()
    known = (clock.schedule.times() <= formulation.first).double().mean().item()
    return clock.at(torch.linspace(known, 0, steps + 1, dtype=torch.float64))


Grid = Callable[[Formulation, int], Tensor]
GRIDS: dict[str, Grid] = {
    "uniform": uniform,
    "quadratic": quadratic,
    "karras": karras,
    "log-snr": log_snr,
    "ddpm": ddpm,
}


def ends(formulation: Formulation) -> tuple[float, float]:
    """The largest and the smallest sigma of a formulation, at most 80."""
    high = HIGHEST if formulation.first == 1 else min(HIGHEST, formulation.first / (1 - formulation.first))
    return high, formulation.last / (1 - formulation.last)


def _from_sigma(sigma: Tensor) -> Tensor:
    return torch.cat([sigma / (1 + sigma), sigma.new_zeros(1)])
