"""MIND, the Monge Inception distance: optimal transport along random lines, where it is only sorting.

Berthet et al. (2026), "MIND: Monge Inception Distance for Generative Models Evaluation", arXiv 2605.06797: 3 D times
the mean, over 1,000 random directions, of the squared 2-Wasserstein distance between the projections of both sides.
It fits no Gaussian, so it also sees what mean and covariance do not.

Letters: L directions; x sorted projections of the samples; y the quantile function of the real ones, its mean over each
n-th part; phi the potential of the transport, whose slope is 2 (x - y): the influence of a sample at x.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from generama.metrics.bootstrap import influence_error
from generama.metrics.distances import checked

DIRECTIONS = 1_000
AT_ONCE = 2_000_000  # projected numbers held at once: 16 MB


@dataclass(frozen=True)
class Quantiles:
    """The real side, projected: all that the distance to n samples needs of it."""

    centre: Tensor  # (D,) mean of the features, taken off both sides
    directions: Tensor  # (L, D)
    y: Tensor  # (L, n) mean of the quantile function over each n-th part
    square: float  # mean square of all projections


@dataclass(frozen=True)
class Sliced:
    """The distance and its standard error over new samples."""

    value: float
    error: float


def directions(dims: int, count: int = DIRECTIONS, seed: int = 0) -> Tensor:
    """Unit vectors (L, D), uniform on the sphere, float64; the same for the same seed."""
    u = torch.randn(count, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return u / u.norm(dim=1, keepdim=True)


def mind(real: Tensor, fake: Tensor, count: int = DIRECTIONS) -> float:
    """3 D times the mean squared Wasserstein distance between projections of real (N, D) and fake (n, D) features.

    Exact for any N and n. Squared feature units; 0 for equal sets; biased upwards by about c/n.
    """
    real, fake = checked(real, fake)
    return sliced(quantiles(real, len(fake), count), fake).value


def quantiles(real: Tensor, n: int, count: int = DIRECTIONS) -> Quantiles:
    """The projections of real features (N, D), read at n quantiles."""
    x = real.double()
    centre, u = x.mean(0), directions(x.shape[1], count).to(x.device)
    x, parts, square = x - centre, [], 0.0
    edge = torch.arange(n + 1, dtype=torch.float64, device=x.device) * (len(x) / n)
    below = edge.long().clamp(max=len(x) - 1)  # whole steps of the quantile function before each edge
    for some in u.split(max(1, AT_ONCE // len(x))):
        y = (some @ x.T).sort(1).values  # (l, N)
        square += y.square().mean(1).sum().item() / count
        area = y.cumsum(1) - y  # under the steps before each
        parts.append((area[:, below] + y[:, below] * (edge - below)).diff(dim=1) * (n / len(x)))
    return Quantiles(centre, u, torch.cat(parts), square)


def sliced(real: Quantiles, fake: Tensor) -> Sliced:
    """MIND of samples (n, D), in random order, with its standard error; see `influence_error`.

    Along a line the squared distance is mean x^2 + mean y^2 - 2 mean x y, x sorted, y the quantile parts.
    """
    n, dims = fake.shape
    x, scale = fake.double() - real.centre, 3 * dims / len(real.directions)
    everyone = torch.ones(n, dtype=torch.bool, device=x.device)
    first = torch.arange(n, device=x.device) < n // 2
    influence, total = torch.zeros(3, n, dtype=torch.float64, device=x.device), len(real.directions) * real.square
    step = max(1, AT_ONCE // n)
    for u, y in zip(real.directions.split(step), real.y.split(step), strict=True):
        line, order = (u @ x.T).sort(1)  # (l, n)
        total += (line.square() - 2 * line * y).mean(1).sum().item()
        for row, chosen in enumerate((everyone, first, ~first)):
            phi = potential(line, y, chosen[order])
            influence[row].index_add_(0, order.flatten(), phi.flatten())
    return Sliced(max(0.0, scale * total), scale * influence_error(*influence))


def potential(x: Tensor, y: Tensor, chosen: Tensor) -> Tensor:
    """phi at sorted x (l, n), of the map that carries the chosen of them (l, n) bool to the quantiles y (l, n).

    A point's place among the chosen ones is its quantile; between chosen points it is that of the gap.
    """
    n = x.shape[1]
    place = (chosen.cumsum(1) - 0.5 * chosen.to(x)) * (n / chosen.sum(1, keepdim=True).to(x)) - 0.5  # 0 .. n - 1
    low = place.clamp(0, n - 1).long()
    mapped = torch.lerp(y.gather(1, low), y.gather(1, (low + 1).clamp(max=n - 1)), (place - low).clamp(0, 1))
    pull = x - mapped
    phi = torch.zeros_like(x)
    phi[:, 1:] = ((pull[:, 1:] + pull[:, :-1]) * x.diff(dim=1)).cumsum(1)  # trapezoids of 2 (x - y)
    return phi
