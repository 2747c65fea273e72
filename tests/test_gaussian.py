"""Gaussian diffusion against exact answers: one-point data, Gaussian data, step counts, guidance."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from generama.core import Condition, Noise, Rng
from generama.gaussian.formulations import DDPM, Formulation, RectifiedFlow
from generama.gaussian.guidance import guided
from generama.gaussian.likelihood import decoder, estimate, prior, variational_bound
from generama.gaussian.samplers import SAMPLERS, Velocity, ancestral, calls, euler, heun, recorded

FORMULATIONS = [RectifiedFlow(), DDPM(), DDPM(schedule="cosine")]
each_formulation = pytest.mark.parametrize("formulation", FORMULATIONS, ids=["rectified-flow", "linear", "cosine"])


def exact_network(formulation: Formulation, point: Tensor):
    """What a perfectly trained network answers where the data is one point: v = (y - x0) / t, eps likewise."""
    times = formulation.times() if isinstance(formulation, DDPM) else None

    def network(image: Tensor, label: Tensor) -> Tensor:
        if times is None:
            t = (label / 1000).view(-1, 1, 1, 1)
            return (image - point) / t
        t = torch.stack([times[round(float(step))] for step in label]).view(-1, 1, 1, 1)
        n = torch.hypot(1 - t, t)
        return (image * n - (1 - t) * point) / t  # eps from y = (1 - t) x0 + t eps

    return network


@each_formulation
@pytest.mark.parametrize("sampler", ["euler", "ddim", "heun"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 47])
def test_one_point_data_is_met_exactly_along_the_whole_path(
    formulation: Formulation, sampler: str, steps: int
) -> None:  # NU-01, NU-02
    # Heun looks ahead and divides by the later, smaller time, which magnifies rounding on the cosine's first step
    tolerance = 1e-8 if sampler == "heun" else 1e-10
    point = torch.full((1, 1, 2, 3), 0.37, dtype=torch.float64)
    rng = Rng([5, 6], dtype=torch.float64)
    times = formulation.grid(steps)
    start = rng.normal(1, 2, 3) * torch.hypot(1 - times[0], times[0])
    eps = (start - (1 - times[0]) * point) / times[0]
    states: list[Tensor] = []
    visited: list[Tensor] = []

    def velocity(y: Tensor, t: Tensor) -> Tensor:
        visited.append(t)
        return formulation.velocity(exact_network(formulation, point), y, t)

    end = SAMPLERS[sampler](recorded(velocity, states), start, times, rng)
    assert (end - point).abs().max() < tolerance
    for y, t in zip(states, visited, strict=True):
        assert (y - ((1 - t) * point + t * eps)).abs().max() < tolerance


def gaussian_velocity(mean: float, std: float) -> Velocity:
    """The exact velocity where the data is N(mean, std^2): v = E[eps - x0 | y]."""

    def velocity(y: Tensor, t: Tensor) -> Tensor:
        variance = (1 - t) ** 2 * std**2 + t**2
        rest = y - (1 - t) * mean
        return t / variance * rest - mean - (1 - t) * std**2 / variance * rest

    return velocity


def test_exact_order_of_convergence_on_a_gaussian() -> None:  # NU-03, NU-06
    mean, std = 0.4, 0.3
    y = torch.linspace(-2, 2, 7, dtype=torch.float64).view(7, 1, 1, 1)
    truth = mean + std * y  # the flow of N(0, 1) at t = 1 to the data
    for sampler, order in ((euler, 1), (heun, 2)):
        errors = []
        for steps in (40, 80, 160, 320):
            times = RectifiedFlow().grid(steps)
            end = sampler(gaussian_velocity(mean, std), y, times, Rng(range(7)))
            errors.append(float((end - truth).abs().max()))
        orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
        assert all(abs(found - order) < 0.15 for found in orders[1:]), (sampler.__name__, orders)


def test_ancestral_sampling_has_the_exactly_propagated_moments() -> None:  # NU-04
    mean, std, steps, count = 0.4, 0.3, 20, 20_000
    times = DDPM().grid(steps)
    velocity = gaussian_velocity(mean, std)
    t0 = times[0]
    m, v = torch.zeros((), dtype=torch.float64), (1 - t0) ** 2 + t0**2
    for t, s in itertools.pairwise(times):
        zero, one = (velocity(torch.full((1, 1, 1, 1), x, dtype=torch.float64), t).item() for x in (0.0, 1.0))
        slope = one - zero  # the velocity is affine in y: zero + slope y
        c = 1 - ((1 - t) * s / ((1 - s) * t)) ** 2
        keep = s * (1 - c).sqrt()
        factor = (1 - s) * (1 - t * slope) + keep * (1 + (1 - t) * slope)
        shift = (-(1 - s) * t + keep * (1 - t)) * zero
        m, v = factor * m + shift, factor**2 * v + s**2 * c
    rng = Rng(range(count), dtype=torch.float64)
    end = ancestral(velocity, rng.normal(1, 1, 1) * torch.hypot(1 - t0, t0), times, rng).flatten()
    assert abs(float((end.mean() - m) / (v / count).sqrt())) < 4
    assert abs(float((end.var() - v) / (v * math.sqrt(2 / count)))) < 4
    assert abs(float(m) - mean) < 0.02 and abs(float(v.sqrt()) - std) < 0.15


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 999, 1000])
def test_the_network_is_called_as_often_as_promised_and_never_twice_at_a_time(name: str, steps: int) -> None:  # NU-07
    for formulation in FORMULATIONS:
        times = formulation.grid(steps)
        assert len(times) == steps + 1 and times[-1] == 0 and bool((times.diff() < 0).all())
        count = 0

        def velocity(y: Tensor, t: Tensor) -> Tensor:
            nonlocal count
            count += 1
            return torch.zeros_like(y)

        SAMPLERS[name](velocity, torch.zeros(1, 1, 1, 1, dtype=torch.float64), times, Rng([0], dtype=torch.float64))
        assert count == calls(name, steps)


def test_the_schedules_are_those_of_the_papers() -> None:
    linear, cosine = DDPM().alpha_bar(), DDPM(schedule="cosine").alpha_bar()
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert torch.allclose(linear, torch.cumprod(1 - beta, 0), atol=0, rtol=1e-12)
    assert abs(float(linear[-1]) - 4.0358e-5) < 1e-8
    f = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert abs(float(cosine[499]) - f) < 1e-9


@pytest.mark.parametrize("formulation", FORMULATIONS[1:], ids=["linear", "cosine"])
def test_a_step_is_found_again_from_its_time(formulation: DDPM) -> None:
    steps = formulation.step(formulation.times())
    assert torch.allclose(steps, torch.arange(1000, dtype=torch.float64), atol=1e-6)
    assert formulation.step(torch.tensor(0.0)) == 0 and formulation.step(torch.tensor(1.0)) == 999


@each_formulation
def test_the_loss_of_a_perfect_network_on_one_point_is_zero(formulation: Formulation) -> None:  # NU-08
    point = torch.full((1, 1, 2, 3), -0.61, dtype=torch.float64)
    loss = formulation.loss(exact_network(formulation, point), point.expand(13, -1, -1, -1), Noise(0, 13))
    assert loss.shape == (13,) and loss.max() < 1e-10


def test_guidance_is_linear_in_its_scale_and_costs_one_doubled_call() -> None:  # NU-09
    cond = Condition(torch.tensor([0, 1, 2]))
    sizes: list[int] = []

    def velocity(y: Tensor, t: Tensor, cond: Condition) -> Tensor:
        sizes.append(len(y))
        assert cond.label is not None
        kept = cond.label if cond.keep is None else torch.where(cond.keep, cond.label, -5)
        return y * t + kept.view(-1, 1, 1, 1)

    y, t = torch.randn(3, 1, 2, 2), torch.tensor(0.3)
    free, plain = (guided(velocity, cond, scale)(y, t) for scale in (0.0, 1.0))
    for scale in (-0.5, 2.0, 7.5):
        assert torch.allclose(guided(velocity, cond, scale)(y, t), free + scale * (plain - free), atol=1e-6)
    assert sizes == [3, 3, 6, 6, 6]


def coin_network(ddpm: DDPM):
    """The exact noise predictor where each pixel is a fair coin, -1 or 1: E[x0 | x] = tanh(sqrt(abar) x / sigma^2)."""
    abar = ddpm.alpha_bar()

    def network(x: Tensor, label: Tensor) -> Tensor:
        a = torch.stack([abar[round(float(step))] for step in label]).view(-1, 1, 1, 1)
        guess = torch.tanh(a.sqrt() * x / (1 - a))
        return (x - a.sqrt() * guess) / (1 - a).sqrt()

    return network


def test_the_variational_bound_of_fair_coins_is_just_above_one_bit_a_pixel() -> None:  # NU-17
    torch.manual_seed(0)
    ddpm = DDPM()
    coins = torch.randint(0, 2, (160, 1, 5, 7), dtype=torch.float64) * 2 - 1
    nats = variational_bound(ddpm, coin_network(ddpm), coins, levels=2, draws=60)
    bits = -nats / (35 * math.log(2))
    error = float(bits.std() / math.sqrt(len(bits)))
    assert 1.0 - 3 * error < float(bits.mean()) < 1.03 + 3 * error and error < 0.02


def test_the_bound_is_an_unbiased_estimate_of_the_sum_of_all_its_terms() -> None:
    torch.manual_seed(1)
    ddpm = DDPM(T=20)
    image = torch.full((1, 1, 1, 3), 0.25, dtype=torch.float64)

    def network(x: Tensor, label: Tensor) -> Tensor:
        return 0.3 * x + 0.01 * label.view(-1, 1, 1, 1) / 100

    count = 4_000
    snr = ddpm.alpha_bar() / (1 - ddpm.alpha_bar())
    many = image.expand(count, -1, -1, -1)
    terms = torch.zeros((), dtype=torch.float64)
    for i in range(1, 20):
        guess = estimate(ddpm, network, many, torch.full((count,), i))
        terms += (snr[i - 1] - snr[i]) / 2 * (many - guess).square().sum((1, 2, 3)).mean()
    whole = -terms - prior(ddpm.alpha_bar()[-1], image)[0] + decoder(ddpm, network, many, 256).mean()
    drawn = variational_bound(ddpm, network, many, 256, draws=3)
    assert abs(float(drawn.mean() - whole)) < 4 * float(drawn.std()) / math.sqrt(count)
