"""The density of what the probability-flow ODE draws (Song et al. 2021b, section 4.3; Grathwohl et al. 2019).

Noise that flows along dy/dt = v(y, t) keeps its probability while its volume changes: log p_0(y_0) = log p_1(y_1) +
the integral of div v over t. This is exact for the model that is sampled by the same ODE, whatever the network has
learned, because what it starts from is stated, not estimated. Letters: y = (1 - t) x0 + t eps, J = dv/dy, e a probe.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from generama.gaussian.adaptive import dopri5
from generama.gaussian.formulations import Velocity

FEW = 8  # numbers of an image up to which the divergence is exact, as of points; an estimate is cheaper beyond
START = 1e-3  # the time at which the image counts as reached; an eighth of the step between two of 256 levels
Divergence = Callable[[Velocity, Tensor, Tensor], tuple[Tensor, Tensor]]  # v, and numbers (B, C, H, W): sum is div v


def log_probability(velocity: Velocity, images: Tensor, levels: int, first: float) -> Tensor:
    """log P of images with that many levels in [-1, 1], by the density of them dequantised, in nats, (B,) float64.

    Noise of one level's width is added, and the volume of the level counted, so a uniform model gives -D ln levels;
    the mean over the noise is a lower bound (Theis et al. 2016). Points have no levels, 0, and log p is their density.
    The noise, and the probe of the divergence, come from torch's global stream.
    """
    divergence = exact if images[0].numel() <= FEW else hutchinson(signs(images))
    if not levels:
        return log_density(velocity, images, first, divergence)
    width = 2 / (levels - 1)
    x0 = images + width * (torch.rand_like(images) - 0.5)
    return log_density(velocity, x0, first, divergence) + images[0].numel() * math.log(width)


def log_density(
    velocity: Velocity, x0: Tensor, first: float, divergence: Divergence, tolerance: float = 1e-4
) -> Tensor:
    """log p(x0) in nats, (B,), of the model that starts at time `first` from noise of variance (1 - t)^2 + t^2.

    It is the density of the image with the noise that is left at START, sigma = 1e-3: nearer, some velocities divide
    by the time. Integrated by Dormand and Prince's method, the image and the change of volume that each of its
    numbers adds as one state, so the tolerance holds for both. Raises Diverged where 1,000 steps do not suffice.
    """
    start, end = (torch.tensor(t, dtype=x0.dtype, device=x0.device) for t in (START, first))
    y, change = x0 * (1 - START), torch.zeros_like(x0)

    def both(state: Tensor, t: Tensor) -> Tensor:
        return torch.cat(divergence(velocity, state.chunk(2, dim=1)[0], t), dim=1)

    y, change = dopri5(both, torch.cat([y, change], dim=1), start, end, tolerance, tolerance).chunk(2, dim=1)
    shrunk = x0[0].numel() * math.log1p(-START)  # y = (1 - START) x
    return source(y, first) + change.double().sum((1, 2, 3)) + shrunk


def source(y: Tensor, t: float) -> Tensor:
    """log N(y; 0, (1 - t)^2 + t^2), of the noise that samplers start from at time t, (B,) float64.

    True data noised to time t would have this variance if theirs were 1, so it is the exact end of the line for t = 1
    alone. But it is what the model starts from, EDM too, and the density of a model needs no more; from sigma = 80 on
    the two differ by less than 1e-4 nats per number in the mean.
    """
    variance = (1 - t) ** 2 + t**2
    return -0.5 * (y.double().square() / variance + math.log(2 * math.pi * variance)).sum((1, 2, 3))


def exact(velocity: Velocity, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """v and the diagonal of J, (B, C, H, W) each: one product with J for each number of an image, so for small ones."""
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        v = velocity(y, t)
        each = v.flatten(1).unbind(1)
        slopes = [torch.autograd.grad(one.sum(), y, retain_graph=True)[0].flatten(1) for one in each]
    return v.detach(), torch.stack(slopes, dim=1).diagonal(dim1=1, dim2=2).view_as(y)


def hutchinson(probe: Tensor) -> Divergence:
    """e * (J^T e), whose sum is e^T J e: an unbiased estimate of div v for e of independent signs (Hutchinson 1990).

    The probe (B, C, H, W) stays the same along the path, so the integrand is smooth. The variance of the estimate is
    half the sum of (J_ij + J_ji)^2 over i != j: none where the numbers of an image do not touch one another.
    """

    def divergence(velocity: Velocity, y: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            v = velocity(y, t)
            (product,) = torch.autograd.grad(v, y, probe)
        return v.detach(), probe * product

    return divergence


def signs(like: Tensor) -> Tensor:
    """A probe: -1 or 1, each with probability 1/2, of the shape of `like`; from torch's global stream."""
    return torch.randint_like(like, 2) * 2 - 1
