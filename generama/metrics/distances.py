"""Distances between two sets of features, each a pure function of (N, D) tensors computed in float64.

Frechet distance: Heusel et al. 2017; its slope gives the influence of each sample, hence an interval, and its values at
several n its limit (Chong and Forsyth 2020). Letters: m, C the mean and covariance of one side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from generama.errors import UsageError

COLUMNS = 320  # of a covariance at once


@dataclass(frozen=True)
class Gaussian:
    """Mean (D,) and unbiased covariance (D, D), float64."""

    mean: Tensor
    cov: Tensor


@dataclass(frozen=True)
class Slope:
    """A Frechet distance, and its derivative by the mean (D,) and the covariance (D, D) of the samples."""

    value: float
    mean: Tensor
    cov: Tensor


def fit(features: Tensor) -> Gaussian:
    """The Gaussian of features (N, D), N >= 2."""
    x = features.double()
    mean = x.mean(0)
    x = x - mean
    cov = x.new_empty(x.shape[1], x.shape[1])
    for first in range(0, x.shape[1], COLUMNS):  # the upper triangle, and whatever is in its way
        cov[first : first + COLUMNS, first:] = x[:, first : first + COLUMNS].T @ x[:, first:]
    cov = cov.triu() / (len(x) - 1)
    return Gaussian(mean, cov + cov.triu(1).T)


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance between Gaussians fitted to features a (N, D) and b (M, D); Heusel et al. 2017, equation 6.

    Squared feature units; covariances are unbiased. Needs N, M >= 2 and finite features (UsageError). Biased upwards by
    about c/N: compare only values of equal N, and beside the floor.
    """
    a, b = checked(a, b)
    return frechet_of(fit(a), fit(b))


def frechet_from_moments(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) for means (D,) and covariances (D, D)."""
    mean_a, cov_a, mean_b, cov_b = (moment.double() for moment in (mean_a, cov_a, mean_b, cov_b))
    return frechet_of(Gaussian(mean_a, cov_a), Gaussian(mean_b, cov_b))


def frechet_of(a: Gaussian, b: Gaussian) -> float:
    """The same for two Gaussians.

    With C_a = F F', tr (C_a C_b)^(1/2) is the sum of the roots of the eigenvalues of the symmetric F' C_b F: real and
    finite at any rank.
    """
    factor = root(a.cov)
    return _distance(a, b, _kept(torch.linalg.eigvalsh(_symmetric(factor.T @ b.cov @ factor))).sqrt().sum())


def frechet_slope(a: Gaussian, b: Gaussian, factor: Tensor) -> Slope:
    """The distance of b, the samples, from a, the real pictures, and its slope; `factor` is `root(a.cov)`.

    d/dm_b = 2 (m_b - m_a);  d/dC_b = I - F (F' C_b F)^(-1/2) F', which is I minus the map that carries N(0, C_b) to
    N(0, C_a) with the least effort. Directions without variance have no slope.
    """
    values, vectors = torch.linalg.eigh(_symmetric(factor.T @ b.cov @ factor))
    roots = _kept(values).sqrt()
    inverse = torch.where(roots > 0, 1 / roots.sqrt(), 0.0)  # of the fourth root of the eigenvalues
    carried = factor @ (vectors * inverse)  # (D, D), whose square is the map
    slope = torch.eye(len(carried), dtype=carried.dtype, device=carried.device) - carried @ carried.T
    return Slope(_distance(a, b, roots.sum()), 2 * (b.mean - a.mean), slope)


def frechet_influence(slope: Slope, mean: Tensor, features: Tensor) -> Tensor:
    """By how much more each of features (n, D) than the average one pulls the distance, (n,), about their mean (D,)."""
    x = features.double() - mean
    pull = x @ slope.mean + ((x @ slope.cov) * x).sum(1)
    return pull - pull.mean()


def root(cov: Tensor) -> Tensor:
    """F with F F' = a covariance (D, D): Cholesky's, or where it has no full rank the symmetric root."""
    factor, failed = torch.linalg.cholesky_ex(_symmetric(cov))
    if not failed:
        return factor
    values, vectors = torch.linalg.eigh(_symmetric(cov))
    return (vectors * _kept(values).sqrt()) @ vectors.T


def checked(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets, or the UsageError that says why they cannot be compared."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise UsageError(f"features must be (N, D) with one D; got {tuple(a.shape)} and {tuple(b.shape)}")
    if min(len(a), len(b)) < 2:
        raise UsageError(f"a distance needs at least 2 samples on both sides; got {len(a)} and {len(b)}")
    if not bool(a.isfinite().all() and b.isfinite().all()):
        raise UsageError("features hold NaN or infinity; look at the samples: the model has probably diverged")
    return a, b


def _distance(a: Gaussian, b: Gaussian, cross: Tensor) -> float:
    found = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross
    return max(0.0, found.item())  # rounding may leave -1e-13


def _kept(values: Tensor) -> Tensor:
    """Eigenvalues; those below rounding are the zeros they stand for."""
    rounding = values.abs().amax() * len(values) * torch.finfo(values.dtype).eps
    return torch.where(values > rounding, values, 0.0)


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2
