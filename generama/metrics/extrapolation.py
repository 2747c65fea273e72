"""The Frechet distance at infinitely many samples: what is left of it without its bias of about c/n.

Chong and Forsyth (2020), "Effectively Unbiased FID and Inception Score and Where to Find Them": the distance at
several n falls on a line in 1/n, whose intercept is the limit. They draw random subsets; here the samples are cut
into 1, 2 and 4 equal parts, so every sample counts once at each n, and nothing is random. Only the number of samples
goes to infinity: the real pictures stay as they are, and with them their share of the bias, which the floor has as
well.

Letters: s the number of parts, d_s the mean distance of s parts of n/s samples each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from generama.metrics.bootstrap import halves, influence_error
from generama.metrics.distances import Gaussian, Slope, fit, frechet_influence, frechet_slope, root

ENOUGH = 12  # samples a feature: with fewer the distance of a quarter of them bends away from the line


@dataclass(frozen=True)
class Frechet:
    """A Frechet distance at n samples and at infinitely many, each with its standard error."""

    value: float
    error: float
    limit: float | None  # None where samples are too few
    limit_error: float | None


def frechet_with_limit(real: Gaussian, samples: Tensor) -> Frechet:
    """Both distances of samples (n, D), in random order, n >= 2, to a Gaussian of real pictures.

    The least squares line through (s, d_s), s = 1, 2, 4, has the intercept d_1 + d_2 / 2 - d_4 / 2. Its linear part is
    that of d_1; its quadratic part has 3/2 of the variance (pairs within a quarter count 0, within a half 2, else 1).
    """
    factor, n = root(real.cov), len(samples)
    if n < 4:
        return Frechet(frechet_slope(real, fit(samples), factor).value, math.inf, None, None)
    slopes = [_slope(real, part, factor) for part in (samples, *halves(samples))]
    influence = [frechet_influence(slope, mean, samples) for mean, slope in slopes]
    whole, error = slopes[0][1].value, influence_error(*influence)
    if n < ENOUGH * samples.shape[1]:
        return Frechet(whole, error, None, None)
    quarters = [frechet_slope(real, fit(part), factor).value for part in samples.tensor_split(4)]
    limit = whole + (slopes[1][1].value + slopes[2][1].value) / 4 - sum(quarters) / 8
    quadratic = max(0.0, influence[0].var().item() / n - error**2)  # V2, see bootstrap.py
    return Frechet(whole, error, limit, (error**2 + quadratic / 2) ** 0.5)


def _slope(real: Gaussian, part: Tensor, factor: Tensor) -> tuple[Tensor, Slope]:
    fitted = fit(part)
    return fitted.mean, frechet_slope(real, fitted, factor)
