"""Precision, recall, density, coverage: who lies within reach of whose nearest neighbours.

Precision and recall: Kynkaanniemi et al. 2019; density and coverage: Naeem et al. 2020. A ball around each point
reaches to its k-th nearest other point of the same set, and "inside" is strict, as in the package `prdc`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from generama.errors import UsageError
from generama.metrics.distances import checked
from generama.metrics.pairs import Between, between, sides, within


@dataclass(frozen=True)
class PRDC:
    """Fidelity (precision, density) and diversity (recall, coverage): 0 to 1, but density may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall_density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> PRDC:
    """Nearest-neighbour measures of fake (M, D) against real (N, D).

    Precision: fakes inside any real ball. Recall: reals inside any fake ball. Density: real balls around a fake, over
    k. Coverage: real balls with a fake inside. Needs N, M > k (UsageError).
    """
    real, fake = checked(real, fake)
    if min(len(real), len(fake)) <= k:
        raise UsageError(f"k = {k} neighbours need more than {k} samples on both sides; ask for more, or a smaller k")
    x, y = sides(real, fake)
    return prdc_of(between(x, y, within(x, k).radius, within(y, k).radius), k)


def prdc_of(found: Between, k: int) -> PRDC:
    """The same from what was found for all pairs."""
    balls = found.balls.double()
    shares = (balls > 0, found.recalled, balls / k, found.covered)
    precision, recall, density, coverage = (share.double().mean().item() for share in shares)
    return PRDC(precision, recall, density, coverage)
