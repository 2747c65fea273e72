"""Five 2-D distributions whose every mode can be seen, as used to test generators since Metz et al. 2017
(Unrolled GANs: the ring) and Srivastava et al. 2017 (VEEGAN: the grid), scaled into about [-1, 1].

Each is a pure function (n, generator) -> (n, 2) float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

SPREAD = 0.02  # standard deviation of every Gaussian of the ring and of the grid


def ring_centres() -> Tensor:
    """The 8 modes of `ring`, (8, 2): evenly spaced on a circle of radius 0.8."""
    angle = torch.arange(8) * (2 * math.pi / 8)
    return 0.8 * torch.stack([angle.cos(), angle.sin()], dim=1)


def grid_centres() -> Tensor:
    """The 25 modes of `grid`, (25, 2): 5 x 5, 0.4 apart."""
    line = torch.linspace(-0.8, 0.8, 5)
    return torch.cartesian_prod(line, line)


def ring(n: int, generator: Generator) -> Tensor:
    """A mixture of 8 equally likely Gaussians on a circle, (n, 2)."""
    return _mixture(ring_centres(), n, generator)


def grid(n: int, generator: Generator) -> Tensor:
    """A mixture of 25 equally likely Gaussians on a square grid, (n, 2)."""
    return _mixture(grid_centres(), n, generator)


def moons(n: int, generator: Generator) -> Tensor:
    """Two interleaving half circles with Gaussian noise, (n, 2)."""
    angle = math.pi * torch.rand(n, generator=generator)
    lower = torch.rand(n, generator=generator) < 0.5
    x = torch.where(lower, 1 - angle.cos(), angle.cos())  # the lower moon is the upper one turned and moved
    y = torch.where(lower, 0.5 - angle.sin(), angle.sin())
    points = torch.stack([x - 0.5, y - 0.25], dim=1) / 1.75
    return points + 0.03 * torch.randn(n, 2, generator=generator)


def swiss_roll(n: int, generator: Generator) -> Tensor:
    """A spiral of one and a half turns with Gaussian noise, (n, 2)."""
    angle = 1.5 * math.pi * (1 + 2 * torch.rand(n, generator=generator))
    points = angle[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1) / (4.5 * math.pi)
    return 0.95 * points + 0.02 * torch.randn(n, 2, generator=generator)


def checkerboard(n: int, generator: Generator) -> Tensor:
    """Uniform on the 8 dark squares of a 4 x 4 board that fills [-1, 1]^2, (n, 2)."""
    column = torch.randint(4, (n,), generator=generator)
    row = 2 * torch.randint(2, (n,), generator=generator) + column % 2
    corner = torch.stack([column, row], dim=1)
    return (corner + torch.rand(n, 2, generator=generator)) / 2 - 1


def _mixture(centres: Tensor, n: int, generator: Generator) -> Tensor:
    which = torch.randint(len(centres), (n,), generator=generator)
    return centres[which] + SPREAD * torch.randn(n, 2, generator=generator)


TOYS: dict[str, Callable[[int, Generator], Tensor]] = {
    "ring": ring,
    "grid": grid,
    "moons": moons,
    "swiss-roll": swiss_roll,
    "checkerboard": checkerboard,
}
