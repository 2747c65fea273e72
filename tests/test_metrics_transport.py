"""Fréchet's limit, MIND and duplicates: closed forms, other implementations, planted cases."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import wasserstein_distance

from generama.metrics.distances import fit, frechet, frechet_influence, frechet_slope, root
from generama.metrics.extrapolation import frechet_with_limit
from generama.metrics.memorisation import alike, authentic, duplicate, nearest
from generama.metrics.sliced import directions, mind, quantiles, sliced_value


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_mind_of_moved_and_of_equal_sets_is_exact():
    a = normal(0, 101, 7)
    move = torch.arange(7.0, dtype=torch.float64)
    u = directions(7)
    assert torch.allclose(u.norm(dim=1), torch.ones(1_000, dtype=torch.float64))
    assert mind(a, (a + move).flip(0)) == pytest.approx(21 * (u @ move).square().mean().item(), rel=1e-9)
    assert mind(a, (a + move).flip(0)) == pytest.approx(
        3 * move.square().sum().item(), rel=0.1
    )  # E (u.m)^2 = |m|^2 / D
    assert mind(a, a.flip(0)) == pytest.approx(0, abs=1e-12)


def test_mind_of_normals_comes_near_its_closed_form():
    """Along u, W2^2 of N(0, 1) and N(0, s^2) is (1 - s)^2."""
    assert mind(normal(1, 20_000, 3), 2 * normal(2, 20_000, 3), 50) == pytest.approx(3 * 3 * 1, rel=0.05)


@pytest.mark.parametrize(("n", "m"), [(97, 97), (97, 31), (31, 97)])
def test_mind_agrees_with_scipy_in_one_dimension(n, m):
    """scipy has W1; of a set moved beyond the other, W1 is the difference of the means, W2^2 its square plus the rest.

    So W2^2 is taken from many copies of both sets, n m numbers each, where sorting alone is transport.
    """
    a, b = normal(3, n, 1), normal(4, m, 1) + 0.7
    x, y = (side.repeat_interleave(times, 0).sort(0).values for side, times in ((a, m), (b, n)))
    assert mind(a, b) == pytest.approx(3 * (x - y).square().mean().item(), rel=1e-9)
    assert (x - y).abs().mean().item() == pytest.approx(wasserstein_distance(a[:, 0], b[:, 0]), rel=1e-9)


def test_mind_sees_what_mean_and_covariance_do_not():
    gaussian = normal(5, 2_003, 2)
    gaussian = (gaussian - gaussian.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(gaussian.T.cov())).T
    flat = torch.rand(2_003, 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    flat = (flat - flat.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(flat.T.cov())).T
    assert frechet(gaussian, flat) < 1e-9
    assert mind(gaussian, flat) > 5 * mind(gaussian, normal(7, 2_003, 2))


def test_quantiles_are_kept_for_any_number_of_samples():
    real, fake = normal(8, 53, 5), normal(9, 71, 5)
    assert sliced_value(quantiles(real, 71, 17), fake) == pytest.approx(mind(real, fake, 17), rel=1e-12)


def test_the_slope_of_the_frechet_distance_is_its_derivative():
    real, fake = fit(normal(10, 211, 5)), 1.3 * normal(11, 101, 5) + 0.2
    fitted = fit(fake)
    slope = frechet_slope(real, fitted, root(real.cov))
    influence = frechet_influence(slope, fitted.mean, fake)
    for i in (3, 7):
        heavier = torch.cat([fake, fake[i : i + 1].repeat(1, 1)])  # one sample a little more often
        n = len(fake)
        rescaled = fit(heavier)  # its covariance divides by n, that of the others by n - 1
        value = frechet_slope(real, rescaled, root(real.cov)).value
        assert (value - slope.value) * n == pytest.approx(influence[i].item(), abs=0.1 * influence.std().item() + 0.05)


def test_the_limit_has_lost_the_bias():
    real = fit(normal(12, 100_003, 11))
    draws = [frechet_with_limit(real, normal(100 + i, 307, 11)) for i in range(20)]
    value = sum(draw.value for draw in draws) / 20
    limit = sum(draw.limit or 0.0 for draw in draws) / 20
    assert value > 0.1 and abs(limit) < 0.1 * value  # the truth is about 0
    assert frechet_with_limit(real, normal(13, 131, 11)).limit is None


def test_samples_of_a_copier_are_not_authentic_and_those_of_the_world_are():
    bank = (40 * normal(14, 401, 3, 5) + 128).round().clamp(0, 255).to(torch.uint8)
    new = (40 * normal(15, 101, 3, 5) + 128).round().clamp(0, 255).to(torch.uint8)
    assert not bool(authentic(nearest(bank[:31], bank), bank).any())
    share = authentic(nearest(new, bank), bank).double().mean()
    assert 0.3 < share < 0.9
    twice = torch.cat([bank, bank])  # a picture that is there twice has no distance to its nearest other
    assert not bool(authentic(nearest(bank[:31], twice), twice).any())
    table = torch.cdist(new.flatten(1).double(), bank.flatten(1).double())
    own = torch.cdist(bank.flatten(1).double(), bank.flatten(1).double()).fill_diagonal_(math.inf).amin(1)
    assert torch.equal(authentic(nearest(new, bank), bank), table.amin(1) > own[table.argmin(1)])


def test_duplicates_are_found_and_each_pair_is_told_once():
    world = (40 * normal(16, 211, 30) + 128).round().clamp(0, 255).to(torch.uint8)
    samples, held_out = world[:101].clone(), world[101:202]
    samples[7], samples[50] = samples[3], (samples[20].float() + 1).clamp(0, 255).to(torch.uint8)
    among = nearest(samples, samples, others=True)
    assert duplicate(among, nearest(samples, held_out)).nonzero()[:, 0].tolist() == [3, 7, 20, 50]
    pairs = alike(among, 2)
    assert [(pair["a"], pair["b"]) for pair in pairs] == [(3, 7), (20, 50)]
    assert pairs[0]["distance"] == 0 and 0.5 < pairs[1]["distance"] <= 1
