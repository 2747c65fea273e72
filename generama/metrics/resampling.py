"""How sure recall and coverage are, which depend on all samples together: parts of them drawn without replacement.

Resampling with replacement would give half of the samples a copy of themselves as nearest neighbour. Politis and Romano
(1994): a number made of local neighbourhoods has a variance of about sigma^2 / n, so that of the whole is 1/S of that
of one of S parts, which random partitions give. The real pictures stay as they are. Balls around samples grow by
themselves when these are fewer; those around real pictures are made to reach to the S k-th neighbour, so that as many
samples are expected in each as before. Wider balls even out what the narrow ones see, so the estimate falls as S grows:
those of S = 2 and S = 4 are carried on to S = 1 as a geometric series.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from generama.metrics.pairs import Side, sides, within

PARTITIONS = {2: 200, 4: 60}  # S: how many
MOST = 2_000  # of more samples and pictures so many are taken, and the variance scaled by 1 / n
LISTED = 12  # times k neighbours of each sample are listed; of 4 parts, the own one has k among the first 4 k or so


def recall_and_coverage_errors(real: Tensor, fake: Tensor, k: int) -> tuple[float, float] | None:
    """Standard errors of recall and coverage of fake (n, D) against real (n, D), both in random order; None for few."""
    n, m = len(fake), min(len(real), len(fake), MOST)
    if m <= LISTED * k:
        return None
    x, y = sides(real[:m], fake[:m])
    gap, among = _squares(y, x), _squares(y, y).fill_diagonal_(torch.inf)
    near = among.topk(LISTED * k, dim=1, largest=False)
    found = {}
    for parts, times in PARTITIONS.items():
        inside = gap < within(x, parts * k).radius.to(gap)
        shares = _shares(gap, inside, near.values, near.indices, k, parts, times)  # (times, S, 2)
        found[parts] = shares.var(1).mean(0) / parts
    variance = found[2].square() / torch.where(found[4] > 0, found[4], found[2]).clamp(min=1e-12) * (m / n)
    return math.sqrt(variance[0].item()), math.sqrt(variance[1].item())


def _shares(gap: Tensor, inside: Tensor, near: Tensor, who: Tensor, k: int, parts: int, times: int) -> Tensor:
    """Recall and coverage of each part of random partitions, (times, S, 2).

    `gap` (m, N) squared distances of samples to real pictures, `inside` (m, N) who is in whose real ball, `near` and
    `who` (m, L) the nearest other samples, in order.
    """
    stream, found = torch.Generator().manual_seed(0), []
    for _ in range(times):
        part = torch.randperm(len(gap), generator=stream).to(gap.device) % parts
        own = (part[who] == part[:, None]).cumsum(1) >= k  # from the k-th neighbour of the own part on
        place = torch.where(own[:, -1], own.int().argmax(1), own.shape[1] - 1)
        reached = gap < near.gather(1, place[:, None])
        for p in range(parts):
            found += [reached[part == p].any(0), inside[part == p].any(0)]
    return torch.stack(found).double().mean(1).view(times, parts, 2)


def _squares(a: Side, b: Side) -> Tensor:
    """Squared distances (n, m), float32."""
    return (a.left @ b.right(slice(None)).T).mul_(-2).float()
