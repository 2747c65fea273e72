"""The probability-flow ODE's density against exact ones, its divergence, and the variational bound by its terms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from test_gaussian import as_learned, coins, each_formulation, gaussian_velocity, towards
from tiny import UNET
from torch import Tensor

from generama.core import Batch, Spec
from generama.errors import NotDefined
from generama.families.diffusion import Diffusion, DiffusionConfig
from generama.gaussian import adaptive
from generama.gaussian.formulations import DDPM, EDM, Formulation, RectifiedFlow, Velocity, column
from generama.gaussian.likelihood import bound_by_terms, variational_bound
from generama.gaussian.ode_likelihood import START, exact, hutchinson, log_density, log_probability, signs
from generama.gaussian.schedules import Schedule
from generama.recipes import RECIPES
from generama.settings import TrainSettings
from generama.state import start
from generama.turns import play_round


def correlated(covariance: Tensor) -> Velocity:
    """The exact velocity where the data, as vectors, are N(0, covariance)."""
    one = torch.eye(len(covariance), dtype=covariance.dtype)

    def velocity(y: Tensor, t: Tensor) -> Tensor:
        t = t.expand(len(y))[:, None, None]
        slope = (t * one - (1 - t) * covariance) @ torch.linalg.inv((1 - t) ** 2 * covariance + t**2 * one)
        return (slope @ y.flatten(1)[:, :, None]).view_as(y)

    return velocity


@each_formulation
def test_gaussian_data_have_their_exact_density(formulation: Formulation) -> None:  # NU-17
    mean, std, first = 0.4, 0.3, formulation.first
    nodes, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(7))  # log p is quadratic, so they suffice
    x0 = (mean + std * nodes).view(7, 1, 1, 1).expand(7, 1, 2, 3)
    velocity = as_learned(formulation, gaussian_velocity(mean, std))
    entropy = 0.5 + math.log(std * math.sqrt(2 * math.pi))
    for tolerance in (1e-4, 1e-6):
        found = log_density(velocity, x0, first, exact, tolerance) / 6
        assert abs(float(-found @ weights / weights.sum()) - entropy) < 1e-3
    # What the model that starts from this very noise has, to the integrator's tolerance: the flow is affine.
    spread = [math.hypot((1 - t) * std, t) for t in (START, first)]
    stretch = spread[1] / spread[0]
    y = (1 - first) * mean + ((1 - START) * (x0 - mean)) * stretch
    source = torch.distributions.Normal(0.0, math.hypot(1 - first, first)).log_prob(y).mean((1, 2, 3))
    assert (found - (source + math.log(stretch) + math.log1p(-START))).abs().max() < 3e-5


def test_the_exact_divergence_is_the_trace_of_autograds_jacobian() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 11), torch.nn.Tanh(), torch.nn.Linear(11, 6)).double()

    def velocity(y: Tensor, t: Tensor) -> Tensor:
        return (net(y.flatten(1)) * t.view(-1, 1)).view_as(y)

    y, t = torch.randn(5, 1, 2, 3, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    v, diagonal = exact(velocity, y, t)
    assert torch.equal(v, velocity(y, t)) and not v.requires_grad
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(lambda one, i=i: velocity(one[None], t[i : i + 1])[0], y[i])
        assert torch.allclose(diagonal[i].flatten(), jacobian.view(6, 6).diagonal(), atol=1e-12)  # type: ignore[union-attr]


def test_hutchinsons_estimate_is_unbiased_and_its_variance_is_the_known_one() -> None:
    torch.manual_seed(0)
    count, matrix = 20_000, torch.randn(6, 6, dtype=torch.float64)
    y = torch.randn(1, 1, 2, 3, dtype=torch.float64).expand(count, -1, -1, -1)
    probe = signs(y)
    assert set(probe.unique().tolist()) == {-1.0, 1.0} and probe.mean().abs() < 4 / math.sqrt(6 * count)
    for J in (matrix, torch.diag(matrix.diagonal())):
        v, parts = hutchinson(probe)(lambda y, t, J=J: (y.flatten(1) @ J.T).view_as(y), y, torch.tensor(0.3))
        assert torch.allclose(v.flatten(1), y.flatten(1) @ J.T)
        estimate = parts.sum((1, 2, 3))
        both = J + J.T - 2 * torch.diag(J.diagonal())
        variance = float(both.square().sum() / 2)
        assert abs(float(estimate.mean() - J.trace())) <= 4 * math.sqrt(variance / count) + 1e-12
        assert abs(float(estimate.var()) - variance) <= 0.05 * variance + 1e-12


def test_along_the_path_the_estimate_is_unbiased_and_its_standard_error_honest() -> None:
    covariance = torch.tensor([[0.25, 0.15, 0.0], [0.15, 0.2, -0.05], [0.0, -0.05, 0.1]], dtype=torch.float64)
    velocity, count = correlated(covariance), 400
    point = torch.tensor([0.3, -0.2, 0.4], dtype=torch.float64).view(1, 3, 1, 1)
    truth = torch.distributions.MultivariateNormal(torch.zeros(3).double(), covariance).log_prob(point.flatten())
    certain = log_density(velocity, point, 1.0, exact, tolerance=1e-6)
    assert abs(float(certain - truth)) < 1e-3
    errors = []
    for seed in range(8):
        torch.manual_seed(seed)
        many = point.expand(count, -1, -1, -1)
        found = log_density(velocity, many, 1.0, hutchinson(signs(many)), tolerance=1e-4)
        errors.append(float((found.mean() - certain) / (found.std() / math.sqrt(count))))
    assert max(map(abs, errors)) < 4  # in standard errors
    assert 0.3 < torch.tensor(errors).square().mean().sqrt() < 1.8


def test_the_bound_lies_below_the_odes_value_which_lies_below_the_truth() -> None:  # NU-17
    torch.manual_seed(0)
    std, levels, width = 0.25, 256, 2 / 255
    drawn = (std * torch.randn(300, 1, 2, 5, dtype=torch.float64)).clamp(-1, 1)
    images = ((drawn + 1) / width).round() * width - 1
    normal = torch.distributions.Normal(0.0, std)
    truth = (normal.cdf(images + width / 2) - normal.cdf(images - width / 2)).log().sum((1, 2, 3)) / 10
    bound = variational_bound(Schedule(), gaussian_velocity(0.0, std), images, levels, draws=40) / 10
    ode = log_probability(gaussian_velocity(0.0, std), images, levels, 1.0) / 10
    for lower, upper, gap in ((bound, ode, 0.5), (ode, truth, 0.01)):
        difference = upper - lower
        error = float(difference.std()) / math.sqrt(len(images))
        assert -3 * error < float(difference.mean()) < gap + 3 * error
    assert float((ode - bound).mean()) > 0


def test_a_uniform_image_of_levels_costs_its_bits() -> None:
    """Data uniform on [-1 - w/2, 1 + w/2], whose exact velocity is that of a truncated Gaussian."""
    levels = 16
    half = 1 + 1 / (levels - 1)
    normal = torch.distributions.Normal(0.0, 1.0)

    def velocity(y: Tensor, t: Tensor) -> Tensor:
        t = column(t)
        sigma = t / (1 - t)
        centre = y / (1 - t)
        low, high = (-half - centre) / sigma, (half - centre) / sigma
        mass = (normal.cdf(high) - normal.cdf(low)).clamp(min=1e-300)
        x0 = centre - sigma * (normal.log_prob(high).exp() - normal.log_prob(low).exp()) / mass
        return (y - x0) / t

    inner = (torch.arange(1, levels - 1, dtype=torch.float64) * 2 / (levels - 1) - 1).view(-1, 1, 1, 1)
    torch.manual_seed(0)
    found = log_probability(velocity, inner, levels, EDM().first)
    assert (found + math.log(levels)).abs().max() < 5e-3


def grid(edge: float, count: int) -> tuple[Tensor, float]:
    """Points (count^2, 2, 1, 1) of a square, and the area of each."""
    line = torch.linspace(-edge, edge, count, dtype=torch.float64)
    return torch.cartesian_prod(line, line).view(-1, 2, 1, 1), (2 * edge / (count - 1)) ** 2


def two_gaussians(y: Tensor, t: Tensor) -> Tensor:
    """The exact velocity of an even mixture of N((-0.7, 0.2), 0.3^2) and N((0.5, -0.3), 0.3^2)."""
    centres = torch.tensor([[-0.7, 0.2], [0.5, -0.3]], dtype=y.dtype).view(2, 1, 2, 1, 1)
    at = column(t)
    log_weights = -0.5 * (y - (1 - at) * centres).square().sum((2, 3, 4)) / ((1 - t) ** 2 * 0.09 + t**2)
    weights = log_weights.softmax(0).view(2, -1, 1, 1, 1)
    unit = gaussian_velocity(0.0, 0.3)
    return sum((weights[k] * (unit(y - (1 - at) * centres[k], t) - centres[k]) for k in range(2)), torch.zeros_like(y))


def test_the_density_of_a_mixture_is_exact_and_integrates_to_one() -> None:  # NU-13
    points, area = grid(2.2, 41)
    found = log_density(two_gaussians, points, 1.0, exact)
    assert abs(float(found.exp().sum() * area) - 1) < 1e-3
    centres = torch.tensor([[-0.7, 0.2], [0.5, -0.3]], dtype=torch.float64)
    squares = (points.view(-1, 1, 2) - centres).square().sum(2) / 0.09
    truth = torch.logsumexp(-squares / 2, 1) - math.log(2 * 2 * math.pi * 0.09)
    near = truth > -6
    assert (found - truth)[near].abs().max() < 5e-3


@pytest.mark.parametrize("formulation", [RectifiedFlow(), EDM(), DDPM(predict="v")], ids=["rectified-flow", "edm", "v"])
def test_the_density_of_a_trained_model_of_points_integrates_to_one(formulation: Formulation) -> None:  # NU-13
    torch.manual_seed(0)
    family = Diffusion(DiffusionConfig(formulation=formulation, net=UNET), Spec(2, 1, 0, 0))
    centre = torch.tensor([[0.5, 0.3], [-0.5, -0.2]])[torch.randint(2, (499,))]
    points = (centre + 0.25 * torch.randn(499, 2)).view(-1, 2, 1, 1)
    state = start(family.train(), TrainSettings())
    for _ in range(60):
        play_round(state, Batch(points), TrainSettings(), rate=3e-3)
    assert family.likelihood == "probability-flow ODE" and family.dequantisation == "none"
    family = family.double().eval()
    places, area = grid(6.0, 97)
    near = places[(places.square().sum((1, 2, 3)) < 3**2)]  # the rest is too far away to count
    total = float(family.log_prob(near).double().exp().sum() * area)
    assert abs(total - 1) < 1e-3


def test_a_configuration_says_what_its_likelihood_is(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Spec(1, 8, 3)
    bound, ode = (Diffusion(DiffusionConfig(net=UNET, likelihood=kind), spec).eval() for kind in ("bound", "ode"))
    assert (bound.likelihood, bound.dequantisation) == ("bound", "none")
    assert (ode.likelihood, ode.dequantisation) == ("probability-flow ODE", "uniform")
    assert RECIPES["rectified-flow"]().family.likelihood == "ode"  # type: ignore[union-attr]
    ode.load_state_dict(bound.state_dict())
    images = torch.randint(256, (4, 1, 8, 8)) / 127.5 - 1
    for family in (bound, ode):
        assert family.log_prob(images).shape == (4,) and bool(family.log_prob(images).isfinite().all())
    monkeypatch.setattr(adaptive, "MOST", 2)
    with pytest.raises(NotDefined, match="not integrated"):
        ode.log_prob(images)


@pytest.mark.parametrize("T", [20, 1000])
def test_the_terms_of_gaussian_data_are_the_known_ones(T: int) -> None:
    std, schedule = 0.2, Schedule(T=T)
    torch.manual_seed(0)
    x0 = std * torch.randn(6_000, 1, 1, 3, dtype=torch.float64)
    steps = range(1, T) if T == 20 else (1, 10, 100, 400, 999)
    found = bound_by_terms(schedule, gaussian_velocity(0.0, std), x0, 256, steps)
    abar, t = schedule.alpha_bar(), schedule.times()
    snr = abar / (1 - abar)
    assert found.steps == tuple(steps)
    for i, bits in zip(found.steps, found.kl, strict=True):
        error = (std * t[i]) ** 2 / (((1 - t[i]) * std) ** 2 + t[i] ** 2)  # of the best guess
        truth = float((snr[i - 1] - snr[i]) / 2 * error) / math.log(2)
        assert abs(bits / truth - 1) < 0.05
    left = float(abar[-1] * std**2 - abar[-1] - torch.log1p(-abar[-1])) / 2 / math.log(2)
    assert abs(found.prior - left) < 0.05 * abs(left) + 1e-9


def test_all_terms_add_up_to_the_bound() -> None:
    torch.manual_seed(0)
    schedule, count = Schedule(T=20), 3_000
    images = torch.randint(0, 2, (count, 1, 1, 3), dtype=torch.float64) * 2 - 1
    terms = bound_by_terms(schedule, coins, images, 2)
    drawn = -variational_bound(schedule, coins, images, 2, draws=6) / (3 * math.log(2))
    whole = terms.prior + sum(terms.kl) + terms.decoder
    assert len(terms.kl) == 19 and abs(whole - float(drawn.mean())) < 5 * float(drawn.std()) / math.sqrt(count)
    point = torch.full((3, 1, 1, 3), 0.2, dtype=torch.float64)
    assert max(map(abs, bound_by_terms(schedule, towards(point[:1]), point, 256).kl)) < 1e-20


def test_a_model_shows_its_bound_by_terms_and_points_have_none() -> None:
    torch.manual_seed(0)
    family = Diffusion(DiffusionConfig(net=UNET), Spec(1, 8)).eval()
    terms = family.bound_by_terms(torch.rand(3, 1, 8, 8) - 0.5, steps=(1, 500, 999))
    assert terms.steps == (1, 500, 999) and len(terms.kl) == 3 and terms.kl[0] > terms.kl[2] > 0 and terms.decoder > 0
    with pytest.raises(NotDefined, match="points have none"):
        Diffusion(DiffusionConfig(net=UNET), Spec(2, 1, 0, 0)).bound_by_terms(torch.rand(3, 2, 1, 1))
