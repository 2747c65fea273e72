"""Distances between two sets of features, each a pure function of (N, D) tensors computed in float64.

Frechet distance: Heusel et al. 2017. Kernel distance: Binkowski et al. 2018. Precision and recall: Kynkaanniemi et
al. 2019. Density and coverage: Naeem et al. 2020. Work on pairs goes row block by row block, so memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from generama.errors import UsageError

PAIRS = 1_000_000  # pairs of rows held at once: 8 MB of float64, which a processor's cache likes


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance between Gaussians fitted to features a (N, D) and b (M, D); Heusel et al. 2017, equation 6.

    Squared feature units; covariances are unbiased. Needs N, M >= 2 and finite features (UsageError). Biased upwards by
    about c/N: compare only values of equal N, and beside the floor.
    """
    a, b = _checked(a, b)
    return frechet_from_moments(a.mean(0), a.T.cov(), b.mean(0), b.T.cov())


def frechet_from_moments(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) for means (D,) and covariances (D, D).

    With symmetric roots, tr (C_a C_b)^(1/2) is the sum of the singular values of C_a^(1/2) C_b^(1/2), the square roots
    of the eigenvalues of the symmetric product C_a^(1/2) C_b C_a^(1/2): real and finite at any rank.
    """
    mean_a, cov_a, mean_b, cov_b = (moment.double() for moment in (mean_a, cov_a, mean_b, cov_b))
    cov_a, cov_b = (cov.reshape(len(mean_a), len(mean_a)) for cov in (cov_a, cov_b))  # D = 1 gives a scalar
    cross = torch.linalg.svdvals(_root(cov_a) @ _root(cov_b)).sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(0.0, distance.item())  # rounding may leave -1e-13


def kid(a: Tensor, b: Tensor) -> float:
    """Kernel distance: unbiased MMD^2 between a (N, D) and b (M, D), kernel (x.y/D + 1)^3; Binkowski et al. 2018.

    The full U-statistic (their equation 4): no subsets, no randomness; it can be slightly negative. Needs N, M >= 2.
    """
    a, b = _checked(a, b)
    n, m = len(a), len(b)
    within_a = (_kernel_sum(a, a) - _kernel(a, a).sum().item()) / (n * (n - 1))
    within_b = (_kernel_sum(b, b) - _kernel(b, b).sum().item()) / (m * (m - 1))
    return within_a + within_b - 2 * _kernel_sum(a, b) / (n * m)


@dataclass(frozen=True)
class PRDC:
    """Fidelity (precision, density) and diversity (recall, coverage): 0 to 1, but density may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall_density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> PRDC:
    """Nearest-neighbour measures of fake (M, D) against real (N, D), with the conventions of the package `prdc`.

    A ball around each point reaches to its k-th nearest other point of the same set. Precision: fakes inside any real
    ball. Recall: reals inside any fake ball. Density: real balls around a fake, over k. Coverage: real balls with a
    fake inside. "Inside" is strict. Needs N, M > k (UsageError).
    """
    real, fake = _checked(real, fake)
    if min(len(real), len(fake)) <= k:
        raise UsageError(f"k = {k} neighbours need more than {k} samples on both sides; ask for more, or a smaller k")
    real_radius, fake_radius = radii(real, k), radii(fake, k)  # (N,), (M,)
    balls = torch.zeros(len(fake), dtype=torch.int64, device=fake.device)  # real balls around each fake
    recalled, covered = 0, 0
    for rows in blocks(len(real), len(fake)):
        distance = pairwise(real[rows], fake)  # (R, M)
        inside = distance < real_radius[rows, None]
        balls += inside.sum(0)
        covered += int(inside.any(1).sum())
        recalled += int((distance < fake_radius).any(1).sum())
    precision = (balls > 0).double().mean().item()
    density = balls.double().mean().item() / k
    return PRDC(precision, recalled / len(real), density, covered / len(real))


def radii(points: Tensor, k: int) -> Tensor:
    """Distance from each of (N, D) points to its k-th nearest other point, (N,)."""
    found = [
        pairwise(points[rows], points).topk(k + 1, dim=1, largest=False).values[:, k]  # the point itself comes first
        for rows in blocks(len(points), len(points))
    ]
    return torch.cat(found)


def pairwise(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances (N, M), each pair on its own: a copy is exactly 0 away, whatever the block."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Row slices whose (rows, columns) table stays under PAIRS entries."""
    step = max(1, PAIRS // columns)
    return (slice(start, start + step) for start in range(0, rows, step))


def _root(cov: Tensor) -> Tensor:
    """Symmetric square root of a covariance (D, D); eigenvalues below rounding are the zeros they stand for."""
    values, vectors = torch.linalg.eigh((cov + cov.T) / 2)
    rounding = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    return (vectors * torch.where(values > rounding, values, 0.0).sqrt()) @ vectors.T


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """(x.y/D + 1)^3 row by row."""
    return ((a * b).sum(1) / a.shape[1] + 1) ** 3


def _kernel_sum(a: Tensor, b: Tensor) -> float:
    """The sum of (x.y/D + 1)^3 over all pairs of rows."""
    one, total = a.new_ones(1), 0.0
    for rows in blocks(len(a), len(b)):
        table = torch.addmm(one, a[rows], b.T, alpha=1 / a.shape[1])
        total += table.pow_(3).sum().item()
    return total


def _checked(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets in float64, or the reason why they cannot be compared."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise UsageError(f"features must be (N, D) with one D; got {tuple(a.shape)} and {tuple(b.shape)}")
    if min(len(a), len(b)) < 2:
        raise UsageError(f"a distance needs at least 2 samples on both sides; got {len(a)} and {len(b)}")
    a, b = a.double(), b.double()
    if not bool(a.isfinite().all() and b.isfinite().all()):
        raise UsageError("features hold NaN or infinity; look at the samples: the model has probably diverged")
    return a, b
