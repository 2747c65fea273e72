"""The Frechet distance at infinitely many samples: what is left of it without its bias of about c/n.

Chong and Forsyth (2020), "Effectively Unbiased FID and Inception Score and Where to Find Them": the distance at
several n falls on a line in 1/n, whose intercept is the limit. They draw random subsets; here the samples are cut
into 1, 2 and 4 equal parts, so every sample counts once at each n, and nothing is random. Only the number of samples
goes to infinity: the real pictures stay as they are, and with them their share of the bias, which the floor has as
well.

Letters: s the number of parts, d_s the mean distance of s parts of n/s samples each.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from generama.metrics.bootstrap import influence_error
from generama.metrics.distances import Gaussian, Slope, fit, frechet_influence, frechet_slope, root

PARTS = (1, 2, 4)


@dataclass(frozen=True)
class Frechet:
    """A Frechet distance at n samples and at infinitely many, each with its standard error."""

    value: float
    error: float
    limit: float | None  # None where n/4 samples are not more than the features
    limit_error: float | None


def frechet_with_limit(real: Gaussian, samples: Tensor) -> Frechet:
    """Both distances of samples (n, D), in random order, n >= 8, to a Gaussian of real pictures.

    The least squares line through (s, d_s), s = 1, 2, 4, has the intercept d_1 + d_2 / 2 - d_4 / 2. Its linear part is
    that of d_1; its quadratic part has 3/2 of the variance (pairs within a quarter count 0, within a half 2, else 1).
    """
    factor, n = root(real.cov), len(samples)
    slopes = {s: [_slope(real, part, factor) for part in samples.tensor_split(s)] for s in (1, 2)}
    whole = slopes[1][0][1]
    influence, *halves = [frechet_influence(slope, mean, samples) for mean, slope in slopes[1] + slopes[2]]
    error = influence_error(influence, halves[0], halves[1])
    if n // PARTS[-1] <= samples.shape[1]:
        return Frechet(whole.value, error, None, None)
    quarters = [frechet_slope(real, fit(part), factor).value for part in samples.tensor_split(4)]
    d = {1: whole.value, 2: sum(slope.value for _, slope in slopes[2]) / 2, 4: sum(quarters) / 4}
    quadratic = max(0.0, influence.var().item() / n - error**2)  # V2, see bootstrap.py
    return Frechet(whole.value, error, d[1] + d[2] / 2 - d[4] / 2, (error**2 + quadratic / 2) ** 0.5)


def _slope(real: Gaussian, part: Tensor, factor: Tensor) -> tuple[Tensor, Slope]:
    fitted = fit(part)
    return fitted.mean, frechet_slope(real, fitted, factor)
