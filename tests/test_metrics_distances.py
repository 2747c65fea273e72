"""Distances between feature sets: closed forms, independent implementations, invariances, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from generama.errors import UsageError
from generama.metrics import pairs
from generama.metrics.distances import frechet, frechet_from_moments
from generama.metrics.kernel import kid
from generama.metrics.neighbours import precision_recall_density_coverage


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dims", [1, 7, 61])
@pytest.mark.parametrize("c", [0.25, 1.0, 9.0])
def test_frechet_of_scaled_normal_is_exact(dims, c):
    mean, eye = normal(0, dims), torch.eye(dims, dtype=torch.float64)
    expected = mean.square().sum().item() + dims * (1 - c**0.5) ** 2
    assert frechet_from_moments(torch.zeros(dims), eye, mean, c * eye) == pytest.approx(expected, abs=1e-8)


def test_frechet_of_covariances_that_do_not_commute_is_exact():
    # With R = C_a^(1/2) and C_b = (R^-1 S R^-1)^2, the product R C_b R has no easy root; in 2-D there is a closed form:
    # tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)).
    a = torch.tensor([[2.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, -0.9], [-0.9, 3.0]], dtype=torch.float64)
    cross = ((a @ b).trace() + 2 * (a.det() * b.det()).sqrt()).sqrt()
    expected = (a.trace() + b.trace() - 2 * cross).item()
    zero = torch.zeros(2, dtype=torch.float64)
    assert frechet_from_moments(zero, a, zero, b) == pytest.approx(expected, abs=1e-12)


def test_frechet_of_sampled_normals_comes_near():
    a, b = normal(1, 20_000, 3), 2 * normal(2, 20_000, 3) + 1
    assert frechet(a, b) == pytest.approx(3 + 3, rel=0.03)


@pytest.mark.parametrize(("n", "dims"), [(211, 13), (5, 17), (2, 31), (11, 1)])
def test_equal_inputs_are_no_distance_apart_at_any_rank(n, dims):
    a = normal(3, n, dims)
    assert 0 <= frechet(a, a.clone()) < 1e-6
    assert 0 <= frechet(torch.zeros(n, dims), torch.zeros(n, dims)) < 1e-12


def test_rank_deficient_supports_at_right_angles_add_their_variances():
    a, b = torch.zeros(5, 19, dtype=torch.float64), torch.zeros(7, 19, dtype=torch.float64)
    a[:, :8], b[:, 8:] = normal(4, 5, 8), normal(5, 7, 11)
    expected = (a.mean(0) - b.mean(0)).square().sum() + a.var(0).sum() + b.var(0).sum()
    assert frechet(a, b) == pytest.approx(expected.item(), rel=1e-9)


def test_frechet_agrees_with_scipy():
    a, b = normal(6, 307, 41).relu() @ normal(7, 41, 41), normal(8, 401, 41).relu() @ normal(9, 41, 41)
    cov_a, cov_b = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_keeps_its_digits_far_from_the_origin():
    a, b = normal(10, 97, 5), normal(11, 89, 5) * 1.5
    assert frechet(a + 1e4, b + 1e4) == pytest.approx(frechet(a, b), abs=1e-6)


@pytest.mark.parametrize("distance", [frechet, kid])
def test_distances_are_symmetric_and_blind_to_order(distance):
    a, b = normal(12, 53, 11), normal(13, 59, 11) + 0.5
    shuffled = a[torch.randperm(53, generator=torch.Generator().manual_seed(0))]
    assert distance(a, b) == pytest.approx(distance(b, a), abs=1e-9)
    assert distance(shuffled, b) == pytest.approx(distance(a, b), abs=1e-9)


def test_blocks_do_not_change_the_numbers(monkeypatch):
    a, b = normal(14, 103, 7), normal(15, 101, 7) + 0.3
    whole = kid(a, b), precision_recall_density_coverage(a, b, 3)
    monkeypatch.setattr(pairs, "TILE", 17)
    assert len(list(pairs.blocks(103))) == 7
    assert kid(a, b) == pytest.approx(whole[0], abs=1e-12)
    assert precision_recall_density_coverage(a, b, 3) == whole[1]


def test_kid_agrees_with_two_plain_loops():
    a, b = normal(16, 7, 3), normal(17, 5, 3) + 1

    def kernel(x, y):
        return (float(x @ y) / 3 + 1) ** 3

    within_a = sum(kernel(a[i], a[j]) for i in range(7) for j in range(7) if i != j) / 42
    within_b = sum(kernel(b[i], b[j]) for i in range(5) for j in range(5) if i != j) / 20
    between = sum(kernel(x, y) for x in a for y in b) / 35
    assert kid(a, b) == pytest.approx(within_a + within_b - 2 * between, rel=1e-12)


def test_kid_of_one_distribution_is_zero_on_average():
    draws = torch.tensor([kid(normal(2 * i, 23, 5), normal(2 * i + 1, 29, 5)) for i in range(400)])
    error = draws.std() / 400**0.5
    assert abs(draws.mean()) < 3 * error
    moved = torch.tensor([kid(normal(2 * i, 23, 5), normal(2 * i + 1, 29, 5) + 0.3) for i in range(400)])
    assert moved.mean() > 10 * error


def prdc_by_loops(real, fake, k):
    """Naeem et al. 2020, equations 3 to 5 and 9 to 10, read literally."""
    to_real = [sorted(float((x - y).norm()) for y in real)[k] for x in real]
    to_fake = [sorted(float((x - y).norm()) for y in fake)[k] for x in fake]
    gap = [[float((x - y).norm()) for y in fake] for x in real]
    n, m = len(real), len(fake)
    precision = sum(any(gap[i][j] < to_real[i] for i in range(n)) for j in range(m)) / m
    recall = sum(any(gap[i][j] < to_fake[j] for j in range(m)) for i in range(n)) / n
    density = sum(gap[i][j] < to_real[i] for i in range(n) for j in range(m)) / (k * m)
    coverage = sum(min(gap[i]) < to_real[i] for i in range(n)) / n
    return precision, recall, density, coverage


def test_precision_and_friends_agree_with_plain_loops():
    real, fake = normal(18, 47, 3), normal(19, 31, 3) * 0.6 + 0.4
    found = precision_recall_density_coverage(real, fake, 4)
    values = (found.precision, found.recall, found.density, found.coverage)
    assert values == pytest.approx(prdc_by_loops(real, fake, 4), abs=1e-12)


def test_a_tight_cluster_inside_wide_data_is_precise_but_recalls_little():
    real, fake = normal(20, 499, 5), normal(21, 499, 5) * 0.2
    found = precision_recall_density_coverage(real, fake)
    assert found.precision > 0.8
    assert found.recall < 0.3 and found.coverage < 0.3


def test_the_same_set_is_perfect_and_a_far_one_worthless():
    real = normal(22, 83, 3)
    same = precision_recall_density_coverage(real, real.clone(), 3)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    far = precision_recall_density_coverage(real, real + 100, 3)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)


def test_the_edge_of_a_ball_is_outside():
    line, edges = torch.arange(4.0)[:, None], torch.tensor([[-1.0], [4.0], [100.0], [101.0]])  # balls of radius 1
    assert precision_recall_density_coverage(line, edges, 1).precision == 0
    assert precision_recall_density_coverage(line, edges, 1).coverage == 0
    assert precision_recall_density_coverage(edges, line, 1).recall == 0


def test_unfit_inputs_are_refused():
    a = normal(23, 5, 3)
    with pytest.raises(UsageError, match="at least 2"):
        frechet(a[:1], a)
    with pytest.raises(UsageError, match="one D"):
        kid(a, a[:, :2])
    with pytest.raises(UsageError, match="NaN"):
        frechet(a, a * torch.nan)
    with pytest.raises(UsageError, match="more than 5"):
        precision_recall_density_coverage(a, a, 5)
