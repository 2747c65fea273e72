"""How sure recall and coverage are, whose terms depend on each other, for balls overlap. The real pictures stay.

Recall depends on all samples together, through the balls around them. Resampling with replacement would give half of
the samples a copy of themselves as nearest neighbour; so parts are drawn without replacement (Politis and Romano 1994):
a number made of local neighbourhoods has a variance of about sigma^2 / n, so that of the whole is 1/S of that of one of
S parts, which random partitions give. Wider balls even out what the narrow ones see, so the estimate falls as S grows:
those of S = 2 and S = 4 are carried on to S = 1 as a geometric series.

Coverage is a mean over fixed balls, each empty with a probability q of its own, about exp(-samples expected in it).
Were they apart, its variance would be the mean of q - q^2 over N. The mean of q is the share that is empty, that of q^2
the share of balls of twice as many neighbours that are. What overlap adds was measured on mixtures of Gaussians:
1.2 to 1.9 times the variance.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from generama.metrics.pairs import Side, sides, within

PARTITIONS = {2: 200, 4: 60}  # S: how many
MOST = 2_000  # of more samples and pictures so many are taken, and the variance scaled by 1 / n
LISTED = 12  # times k neighbours of each sample are listed; of 4 parts, the own one has k among the first 4 k or so
OVERLAP = 1.55  # by how much the variance of coverage is larger than were the balls apart


def recall_and_coverage_errors(real: Tensor, fake: Tensor, k: int) -> tuple[float, float] | None:
    """Standard errors of recall and coverage of fake (n, D) against real (n, D), both in random order; None for few."""
    n, m = len(fake), min(len(real), len(fake), MOST)
    if m <= LISTED * k:
        return None
    x, y = sides(real[:m], fake[:m])
    gap, among = _squares(y, x), _squares(y, y).fill_diagonal_(torch.inf)
    near = among.topk(LISTED * k, dim=1, largest=False)
    found = {
        parts: _recalls(gap, near.values, near.indices, k, parts, times).var(1).mean().item() / parts
        for parts, times in PARTITIONS.items()
    }
    recall = found[2] ** 2 / max(found[4] or found[2], 1e-12)
    return math.sqrt(recall * m / n), math.sqrt(_coverage(gap, x, k) * m / n)


def _coverage(gap: Tensor, real: Side, k: int) -> float:
    """Variance of the coverage of samples whose squared distances to real pictures are `gap` (m, N).

    One more empty ball is assumed than was seen, for none seen does not mean that none can be.
    """
    empty, certain = (
        (gap.amin(0) >= within(real, neighbours).radius.to(gap)).double().mean().item() for neighbours in (k, 2 * k)
    )
    return OVERLAP * (empty - certain + 1 / len(real)) / len(real)


def _recalls(gap: Tensor, near: Tensor, who: Tensor, k: int, parts: int, times: int) -> Tensor:
    """Recall of each part of random partitions, (times, S).

    `gap` (m, N) squared distances of samples to real pictures, `near` and `who` (m, L) the nearest other samples.
    """
    stream, found = torch.Generator().manual_seed(0), []
    for _ in range(times):
        part = torch.randperm(len(gap), generator=stream).to(gap.device) % parts
        own = (part[who] == part[:, None]).cumsum(1) >= k  # from the k-th neighbour of the own part on
        place = torch.where(own[:, -1], own.int().argmax(1), own.shape[1] - 1)
        reached = gap < near.gather(1, place[:, None])
        found += [reached[part == p].any(0) for p in range(parts)]
    return torch.stack(found).double().mean(1).view(times, parts)


def _squares(a: Side, b: Side) -> Tensor:
    """Squared distances (n, m), float32."""
    return (a.left @ b.right(slice(None)).T).mul_(-2).float()
