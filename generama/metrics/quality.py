"""From features to measures: distances of samples to real pictures, each beside its floor and with its interval."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from generama.metrics.bootstrap import around, around_square, of_share, of_share_with, standard_error
from generama.metrics.choice import choose
from generama.metrics.distances import Gaussian, fit
from generama.metrics.extrapolation import ENOUGH, frechet_with_limit
from generama.metrics.kernel import kid_bias, kid_error, kid_of
from generama.metrics.measure import Measure
from generama.metrics.neighbours import prdc_of
from generama.metrics.pairs import Between, between, sides, within
from generama.metrics.resampling import recall_and_coverage_errors
from generama.metrics.sliced import Quantiles, quantiles, sliced_error, sliced_value

NEIGHBOURS = ("precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class Pairs:
    """What all pairs of samples and real pictures gave: the kernel distance, its error, and who is near whom."""

    kid: float
    error: float
    bias: float  # what the unbiased kernel distance has subtracted
    near: Between | None  # None where k is too many neighbours


def distance_measures(real: Tensor, fake: Tensor, floor: Tensor, k: int) -> dict[str, Measure]:
    """Distances of fake (n, D), in random order, to real (N, D), each beside that of floor (n, D).

    Precision, recall, density and coverage take n of the N, as in their papers: a ball's reach depends on how many
    points there are, so unequal sides would not be measured with one yardstick.
    """
    some = real if len(real) == len(fake) else real[choose(len(real), len(fake))]
    value, limit = pairs(real, some, [fake, floor], k)
    low, high = around_square(value.kid, value.error, value.bias)
    found = {"kid": Measure(value.kid, limit.kid, "unbiased: may be slightly negative", low, high)}
    gaussian, lines = fit(real), quantiles(real, len(fake))
    least = transport(gaussian, lines, floor)
    found |= {name: replace(m, floor=least[name].value) for name, m in transport(gaussian, lines, fake).items()}
    if value.near is None or limit.near is None:
        return found | {name: Measure(None, None, f"needs more than {k} samples") for name in NEIGHBOURS}
    return found | neighbour_measures(value.near, limit.near, recall_and_coverage_errors(some, fake, k), k)


def pairs(real: Tensor, some: Tensor, sets: list[Tensor], k: int) -> list[Pairs]:
    """Each of the sets (n, D) against all real features (N, D) by kernel, and against n of them by neighbours."""
    k = k if len(some) > k else 0
    whole = sides(real, *sets)
    near = whole if some is real else sides(some, *sets)
    of_real = within(whole[0], k if some is real else 0)
    of_some = of_real if some is real else within(near[0], k)
    found = []
    for side, same in zip(near[1:], whole[1:], strict=True):
        of_set = within(side, k)
        both = between(near[0], side, of_some.radius, of_set.radius)
        kernel = both if some is real else between(whole[0], same, of_real.radius, torch.zeros_like(of_set.radius))
        error = kid_error(of_real, of_set, kernel)
        bias = kid_bias(of_real, of_set)
        found.append(Pairs(kid_of(of_real, of_set, kernel), error, bias, both if k else None))
    return found


def transport(real: Gaussian, lines: Quantiles, fake: Tensor) -> dict[str, Measure]:
    """Frechet distance, its limit and MIND of fake (n, D) with their intervals; no floor yet."""
    n, width = fake.shape
    found = frechet_with_limit(real, fake)
    moved, error = sliced_value(lines, fake), sliced_error(lines, fake)
    warning = f"unreliable: n = {n} < {width} feature dimensions" if n < width else ""
    note = f"sliced Wasserstein, {len(lines.directions):,} directions"
    limit = Measure(None, None, f"needs {ENOUGH * width:,} samples for {width:,} features, not {n:,}")
    if found.limit is not None and found.limit_error is not None:
        line = f"intercept of the line through the distances at n = {n:,}, {n // 2:,} and {n // 4:,} over 1/n"
        limit = Measure(found.limit, None, line, *around(found.limit, found.limit_error))
    return {
        "frechet": Measure(found.value, None, warning, *around_square(found.value, found.error)),
        "frechet_infinity": limit,
        "mind": Measure(moved, None, note, *around_square(moved, error)),
    }


def neighbour_measures(
    found: Between, floor: Between, errors: tuple[float, float] | None, k: int
) -> dict[str, Measure]:
    """Precision, recall, density and coverage from who is near whom; `errors` are those of recall and coverage."""
    n, value, limit = len(found.balls), prdc_of(found, k), prdc_of(floor, k)
    intervals = {
        "precision": of_share(found.balls > 0),
        "density": around(value.density, standard_error(found.balls.double() / k), 0),
    }
    if errors:
        intervals["recall"] = of_share_with(value.recall, errors[0], n)
        intervals["coverage"] = of_share_with(value.coverage, errors[1], n)
    note = f"k = {k}, against {len(found.covered):,} training pictures"
    return {
        name: Measure(getattr(value, name), getattr(limit, name), note, *intervals.get(name, (None, None)))
        for name in NEIGHBOURS
    }
