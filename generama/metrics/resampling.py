"""How sure recall and coverage are, which depend on all samples together: parts of them drawn without replacement.

Resampling with replacement would give half of the samples a copy of themselves as nearest neighbour. Politis and
Romano (1994): a number made of local neighbourhoods has a variance of about sigma^2 / n, so that of the whole is 1/S
of that of one of S parts, which many random partitions give. The real pictures stay as they are. Balls around samples
grow by themselves when these are fewer; those around real pictures are made to reach to the S k-th neighbour, so that
as many samples are expected in each as before.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from generama.metrics.pairs import sides, within

PARTS = 4
PAIRS = 5e7  # distances computed in all


def recall_and_coverage_errors(real: Tensor, fake: Tensor, k: int) -> tuple[float, float] | None:
    """Standard errors of recall and coverage of fake (n, D) against real (N, D) over new samples; None for too few."""
    n = len(fake)
    if n // PARTS <= k or len(real) <= PARTS * k:
        return None
    x, y = sides(real, fake)
    radius = within(x, PARTS * k).radius.to(x.left.dtype)
    stream, found = torch.Generator().manual_seed(0), []
    for _ in range(max(2, min(40, int(PAIRS / (n * len(real)))))):
        parts = torch.randperm(n, generator=stream).tensor_split(PARTS)
        found.append(torch.tensor([_shares(x.left, y.left[some], radius, k) for some in parts]))
    variance = torch.stack(found).var(1).mean(0) / PARTS  # (2,)
    return math.sqrt(variance[0].item()), math.sqrt(variance[1].item())


def _shares(real: Tensor, part: Tensor, radius: Tensor, k: int) -> tuple[float, float]:
    """Recall and coverage of a part (b, D + 2) of the samples; `radius` of the real balls is squared."""
    to_each_other = -2 * _products(part, part).fill_diagonal_(-torch.inf)
    reach = to_each_other.kthvalue(k, dim=1).values  # (b,)
    to_real = -2 * _products(part, real)  # (b, N)
    recalled, covered = (to_real < reach[:, None]).any(0), (to_real < radius).any(0)
    return recalled.double().mean().item(), covered.double().mean().item()


def _products(a: Tensor, b: Tensor) -> Tensor:
    """-|x - y|^2 / 2, see pairs.py."""
    return a @ torch.cat([b[:, :-2], b[:, -1:], b[:, -2:-1]], 1).T
