"""How far a number would move if the model were asked for n other samples: 95 % intervals (Efron 1979, 1982).

What is estimated is the expected value of the number over new samples of the same model, at the same n and against the
same real pictures; so the upward bias of a Frechet distance at this n is part of it, and every model compared on the
same data stands before the same pictures. A bootstrap that resamples with replacement makes ties, which widen Frechet
distances and break nearest neighbours. So a mean takes the bootstrap's standard error in closed form; a
differentiable statistic that of its influence function, which is the bootstrap of its linear part with infinitely many
draws (infinitesimal jackknife, Efron 1982, chapter 6); and neighbours are drawn without replacement (Politis and Romano
1994), in neighbours.py.

Letters: T the number, x_i its n samples, u_i the influence of sample i on T, so T varies like the mean of u_i.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Z = 1.959964  # the normal distribution has 95 % within this many standard deviations
Interval = tuple[float, float]


def around(value: float, error: float, lowest: float = -math.inf, highest: float = math.inf) -> Interval:
    """value +- 1.96 standard errors, cut at what the number can be."""
    return max(lowest, value - Z * error), min(highest, value + Z * error)


def around_square(value: float, error: float, offset: float = 0.0) -> Interval:
    """Interval of a squared distance, skewed near 0 while its root is not: of value + offset >= 0, by its root.

    Near its minimum a squared distance is a sum of few squares, and its error grows with its root; `offset` is what an
    unbiased estimate has subtracted.
    """
    root = math.sqrt(max(0.0, value + offset))
    if root == 0:
        return around(value, error, -offset)
    low, high = around(root, error / (2 * root), 0)
    return low**2 - offset, high**2 - offset


def of_share_with(value: float, error: float, n: int) -> Interval:
    """Interval of a share whose standard error is known, by its logit; at 0 or 1 as if n were independent."""
    if not 0 < value < 1:
        return of_share(torch.full((n,), value))
    centre, spread = math.log(value / (1 - value)), error / (value * (1 - value))
    low, high = around(centre, spread)
    return 1 / (1 + math.exp(-low)), 1 / (1 + math.exp(-high))


def standard_error(values: Tensor) -> float:
    """Standard error of the mean of (n,) independent values; infinite for one."""
    return (values.double().std() / math.sqrt(len(values))).item() if len(values) > 1 else math.inf


def of_share(hits: Tensor) -> Interval:
    """Interval of the mean of (n,) independent yes and no (Wilson 1927): sound where it is 0 or 1 as well."""
    n, p = len(hits), hits.double().mean().item()
    centre, spread = p + Z**2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return max(0.0, (centre - spread) / (1 + Z**2 / n)), min(1.0, (centre + spread) / (1 + Z**2 / n))


def influence_error(influence: Tensor, first: Tensor, second: Tensor) -> float:
    """Standard error of T from the influence of its samples (n,), and that found from each half of them alone (n,).

    Near its minimum T is a quadratic form of the samples' mean: var T = V1 + V2, the linear and the quadratic part. The
    influence is taken at the samples themselves, which overstates: its variance is V1 + 2 V2 on average. Two halves
    err independently, so the covariance of their influences is V1 alone, and the mean of both is the variance sought.
    Each half is centred by itself, for its own influences have learned where its mean lies; a V1 below 0 is noise.
    Infinite for fewer than four samples.
    """
    n = len(influence)
    if n < 4:
        return math.inf
    covs = [torch.stack(pair).cov()[0, 1] for pair in zip(halves(first), halves(second), strict=True)]
    linear = (covs[0] + covs[1]).item() / 2
    return math.sqrt((influence.var().item() + abs(linear)) / (2 * n))


def halves(values: Tensor) -> tuple[Tensor, Tensor]:
    """The two halves that influences are found from: the first n // 2, and the rest."""
    middle = len(values) // 2
    return values[:middle], values[middle:]
