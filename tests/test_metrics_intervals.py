"""ME-11: a 95 % interval covers the truth in about 95 % of toy repeats. The long proof prints the table of the docs.

The truth of a number is its mean over all repeats, each with n new samples of one model, against the same real set;
that of the limit is the distance of a model known by 200,000 samples.
"""

from __future__ import annotations

import math

import pytest
import torch

from generama.metrics.bootstrap import (
    around,
    around_square,
    halves,
    influence_error,
    of_share,
    standard_error,
)
from generama.metrics.distances import fit, frechet_of
from generama.metrics.quality import NEIGHBOURS, neighbour_measures, pairs, transport
from generama.metrics.recognised import class_measures
from generama.metrics.resampling import recall_and_coverage_errors
from generama.metrics.sliced import quantiles
from tests.toys import mixture

MODELS = {"a little off": {"shift": 0.15, "scale": 1.1}, "perfect": {}, "without 2 of 5 modes": {"modes": 3}}
FEATURES = ("frechet", "frechet_infinity", "kid", "mind", *NEIGHBOURS)
CLASSES = ("inception_score", "class_entropy", "confidence", "conditional_accuracy")


def intervals(real, gaussian, lines, fake):
    """(value, low, high) of every number of features (n, D) of one repeat."""
    found = transport(gaussian, lines, fake)
    pair = pairs(real, real, [fake], 5)[0]
    found |= neighbour_measures(pair.near, pair.near, recall_and_coverage_errors(real, fake, 5), 5)
    kid = (pair.kid, *around_square(pair.kid, pair.error, pair.bias))
    return {"kid": kid} | {name: (m.value, m.low, m.high) for name, m in found.items()}


def covered(repeats, truth=None):
    """Share of repeats, a list of {name: (value, low, high)}, whose interval holds the truth, by name."""
    shares = {}
    for name in repeats[0]:
        value, low, high = torch.tensor([repeat[name] for repeat in repeats], dtype=torch.float64).T
        middle = (truth or {}).get(name, value.mean())
        shares[name] = ((low <= middle) & (middle <= high)).double().mean().item()
    return shares


def features_covered(model, n, times):
    """Coverage of the numbers that are made of features, of a model of `MODELS`."""
    real = mixture(1, n)
    gaussian, lines = fit(real), quantiles(real, n, 400)
    limit = frechet_of(gaussian, fit(mixture(2, 200_000, **MODELS[model])))
    repeats = [intervals(real, gaussian, lines, mixture(1_000 + seed, n, **MODELS[model])) for seed in range(times)]
    return covered(repeats, {"frechet_infinity": limit})


def classes_covered(n, times):
    """Coverage of the numbers that a classifier gives: noisy softmax of a class that is asked for and often missed."""

    def draw(seed):
        stream = torch.Generator().manual_seed(seed)
        asked = torch.randint(7, (n,), generator=stream)
        logits = torch.randn(n, 7, generator=stream) + 3 * torch.eye(7)[asked] + torch.tensor([3.0, 1, 0, 0, 0, 0, -1])
        return logits.softmax(1), asked

    repeats = []
    for seed in range(times):
        probs, asked = draw(seed)
        found = class_measures(probs, probs, asked, asked, asked)
        repeats.append({name: (found[name].value, found[name].low, found[name].high) for name in CLASSES})
    return covered(repeats)


def test_intervals_of_features_hold_the_truth_mostly():
    shares = features_covered("a little off", 199, 40)
    assert set(shares) == set(FEATURES)
    assert min(shares.values()) > 0.8, shares  # of 40; the slow proof takes 1,000


def test_intervals_of_classes_hold_the_truth():
    shares = classes_covered(199, 400)
    assert set(shares) == set(CLASSES)
    assert all(0.92 < share < 0.98 for share in shares.values()), shares


@pytest.mark.parametrize("p", [0.004, 0.1, 0.5, 0.97])
def test_intervals_of_shares_hold_the_truth(p):
    stream = torch.Generator().manual_seed(0)
    hits = torch.rand(1_000, 997, generator=stream) < p
    inside = [low <= p <= high for low, high in map(of_share, hits)]
    assert 0.93 < sum(inside) / 1_000 < 0.98
    low, high = of_share(torch.zeros(101, dtype=torch.bool))
    assert low == 0 and 0.03 < high < 0.04


def test_intervals_of_means_hold_the_truth():
    draws = torch.randn(1_000, 101, generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp()
    truth = math.exp(0.5)
    inside = [low <= truth <= high for low, high in (around(x.mean().item(), standard_error(x)) for x in draws)]
    assert 0.88 < sum(inside) / 1_000 < 0.96  # of a skewed distribution


def test_the_error_of_a_quadratic_number_is_neither_that_of_its_linear_part_nor_twice_it():
    """T = |mean|^2 of n normal numbers in D dimensions around 0: var T = 2 D / n^2, all of it V2."""
    n, dims = 307, 53
    errors, values = [], []
    for seed in range(60):
        x = torch.randn(n, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        influence = [2 * (x - x.mean(0)) @ some.mean(0) for some in (x, *halves(x))]
        errors.append(influence_error(*influence))
        values.append(x.mean(0).square().sum())
    assert torch.stack(values).std() == pytest.approx(math.sqrt(2 * dims) / n, rel=0.3)
    assert sum(errors) / 60 == pytest.approx(math.sqrt(2 * dims) / n, rel=0.15)


@pytest.mark.slow
def test_the_long_proof():
    table = {model: features_covered(model, 500, 1_000) for model in MODELS}
    for name in FEATURES:
        print(f"| `{name}` | " + " | ".join(f"{100 * table[model][name]:.1f} %" for model in MODELS) + " |")
    for name, share in classes_covered(500, 1_000).items():
        print(f"| `{name}` | {100 * share:.1f} % |")
    assert all(share > 0.85 for shares in table.values() for share in shares.values())
