"""Gaussian diffusion against exact answers: one-point data, Gaussian data, call counts, guidance, the bound."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from generama.core import Condition, Noise, Rng
from generama.gaussian.formulations import DDPM, EDM, Formulation, RectifiedFlow, Velocity, column, loss, read
from generama.gaussian.grids import GRIDS
from generama.gaussian.guidance import guided, guided_by_classifier, guided_by_worse
from generama.gaussian.likelihood import decoder, estimate, prior, variational_bound
from generama.gaussian.samplers import SAMPLERS, ancestral, asked, clipped, ddim, recorded
from generama.gaussian.schedules import Schedule

FORMULATIONS: dict[str, Formulation] = {
    "rectified-flow": RectifiedFlow(),
    "logit-normal": RectifiedFlow(times="logit-normal"),
    "eps": DDPM(),
    "cosine": DDPM(schedule=Schedule("cosine")),
    "few-steps": DDPM(schedule=Schedule(T=59)),
    "v": DDPM(predict="v", min_snr=5.0),
    "x0": DDPM(predict="x0"),
    "edm": EDM(),
}
DETERMINISTIC = [name for name in SAMPLERS if name != "ancestral"]
each_formulation = pytest.mark.parametrize("formulation", FORMULATIONS.values(), ids=FORMULATIONS)
each_grid = pytest.mark.parametrize("grid", GRIDS)


def as_learned(formulation: Formulation, velocity: Velocity) -> Velocity:
    """A velocity that goes through the network's target and is read back."""

    def again(y: Tensor, t: Tensor) -> Tensor:
        v = velocity(y, t)
        at = column(t)
        target = formulation.target(y - at * v, y + (1 - at) * v, at)
        return read(formulation, lambda image, label: target)(y, t)

    return again


def towards(point: Tensor) -> Velocity:
    """The exact velocity where the data is one point."""
    return lambda y, t: (y - point) / column(t)


@each_formulation
@each_grid
@pytest.mark.parametrize("sampler", DETERMINISTIC)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 47])
def test_one_point_data_is_met_exactly_along_the_whole_path(
    formulation: Formulation, sampler: str, grid: str, steps: int
) -> None:  # NU-01, NU-02
    # Heun and Runge and Kutta look ahead and divide by the later, smaller time, which magnifies rounding
    tolerance = 1e-10 if sampler in ("euler", "ddim", "dpmpp-2m") else 1e-8
    point = torch.full((1, 1, 2, 3), 0.37, dtype=torch.float64)
    rng = Rng([5, 6], dtype=torch.float64)
    times = GRIDS[grid](formulation, steps)
    start = rng.normal(1, 2, 3) * torch.hypot(1 - times[0], times[0])
    eps = (start - (1 - times[0]) * point) / times[0]
    states: list[Tensor] = []
    visited: list[Tensor] = []

    def velocity(y: Tensor, t: Tensor) -> Tensor:
        visited.append(column(t))
        return as_learned(formulation, towards(point))(y, t)

    end = SAMPLERS[sampler](recorded(velocity, states), start, times, rng)
    assert (end - point).abs().max() < tolerance
    for y, t in zip(states, visited, strict=True):
        assert (y - ((1 - t) * point + t * eps)).abs().max() < tolerance


@each_formulation
@each_grid
def test_ancestral_sampling_ends_on_the_one_point(formulation: Formulation, grid: str) -> None:  # NU-02
    point = torch.full((1, 1, 2, 3), 0.37, dtype=torch.float64)
    rng, times = Rng([5, 6], dtype=torch.float64), GRIDS[grid](formulation, 13)
    end = ancestral(as_learned(formulation, towards(point)), rng.normal(1, 2, 3), times, rng)
    assert (end - point).abs().max() < 1e-10


def gaussian_velocity(mean: float, std: float) -> Velocity:
    """The exact velocity where the data is N(mean, std^2): v = E[eps - x0 | y]."""

    def velocity(y: Tensor, t: Tensor) -> Tensor:
        t = column(t)
        variance = (1 - t) ** 2 * std**2 + t**2
        rest = y - (1 - t) * mean
        return t / variance * rest - mean - (1 - t) * std**2 / variance * rest

    return velocity


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("ddim", 1), ("heun", 2)])
def test_exact_order_of_convergence_on_a_gaussian(sampler: str, order: int) -> None:  # NU-03, NU-06
    mean, std = 0.4, 0.3
    y = torch.linspace(-2, 2, 7, dtype=torch.float64).view(7, 1, 1, 1)
    truth = mean + std * y  # the flow of N(0, 1) at t = 1 to the data
    errors = []
    for steps in (40, 80, 160, 320, 640):
        times = GRIDS["uniform"](RectifiedFlow(), steps)
        end = SAMPLERS[sampler](gaussian_velocity(mean, std), y, times, Rng(range(7)))
        errors.append(float((end - truth).abs().max()))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(abs(found - order) < 0.2 for found in orders[2:]), orders


def test_dpm_solver_is_of_second_order_where_no_step_is_infinite() -> None:  # NU-03
    mean, std, ends = 0.4, 0.3, torch.tensor([0.97, 0.03], dtype=torch.float64)
    y = torch.linspace(-2, 2, 7, dtype=torch.float64).view(7, 1, 1, 1)
    spread = torch.hypot((1 - ends) * std, ends)
    truth = (1 - ends[1]) * mean + (y - (1 - ends[0]) * mean) * spread[1] / spread[0]
    errors = []
    for steps in (40, 80, 160, 320):
        high, low = ends.logit().tolist()
        times = torch.linspace(high, low, steps + 1, dtype=torch.float64).sigmoid()
        end = SAMPLERS["dpmpp-2m"](gaussian_velocity(mean, std), y, times, Rng(range(7)))
        errors.append(float((end - truth).abs().max()))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(abs(found - 2) < 0.15 for found in orders), orders


@each_formulation
@pytest.mark.parametrize("mean", [0.4, -0.9])
def test_the_adaptive_sampler_keeps_its_tolerance_and_no_image_waits_for_another(
    formulation: Formulation, mean: float
) -> None:  # NU-03, NU-10
    std, times = 0.3, GRIDS["uniform"](formulation, 5)
    t0 = times[0]
    y = torch.linspace(-2, 2, 7, dtype=torch.float64).view(7, 1, 1, 1)
    spread = torch.hypot((1 - t0) * std, t0)
    truth = mean + std * (y - (1 - t0) * mean) / spread
    velocity = as_learned(formulation, gaussian_velocity(mean, std))
    end = SAMPLERS["adaptive"](velocity, y, times, Rng(range(7)))
    assert (end - truth).abs().max() < 2e-3  # rtol and atol are 1e-4 for each of about ten steps
    alone = torch.cat([SAMPLERS["adaptive"](velocity, one[None], times, Rng([0])) for one in y])
    assert torch.allclose(end, alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ancestral_sampling_has_the_exactly_propagated_moments(eta: float) -> None:  # NU-04
    mean, std, steps, count = 0.4, 0.3, 20, 20_000
    times = GRIDS["uniform"](DDPM(), steps)
    velocity = gaussian_velocity(mean, std)
    t0 = times[0]
    m, v = torch.zeros((), dtype=torch.float64), (1 - t0) ** 2 + t0**2
    for t, s in itertools.pairwise(times):
        zero, one = (velocity(torch.full((1, 1, 1, 1), x, dtype=torch.float64), t).item() for x in (0.0, 1.0))
        slope = one - zero  # the velocity is affine in y: zero + slope y
        c = eta**2 * (1 - ((1 - t) * s / ((1 - s) * t)) ** 2)
        keep = s * (1 - c).sqrt()
        factor = (1 - s) * (1 - t * slope) + keep * (1 + (1 - t) * slope)
        shift = (-(1 - s) * t + keep * (1 - t)) * zero
        m, v = factor * m + shift, factor**2 * v + s**2 * c
    rng = Rng(range(count), dtype=torch.float64)
    end = ddim(velocity, rng.normal(1, 1, 1) * torch.hypot(1 - t0, t0), times, rng, eta).flatten()
    assert abs(float((end.mean() - m) / (v / count).sqrt())) < 4
    assert abs(float((end.var() - v) / (v * math.sqrt(2 / count)))) < 4
    assert abs(float(m) - mean) < 0.03 and abs(float(v.sqrt()) - std) < 0.15


def test_ddim_goes_from_euler_to_ancestral_sampling() -> None:
    times, velocity = GRIDS["karras"](EDM(), 7), gaussian_velocity(0.4, 0.3)
    start = Rng(range(5), dtype=torch.float64).normal(1, 2, 3)
    for eta, name in ((0.0, "euler"), (1.0, "ancestral")):
        found = ddim(velocity, start, times, Rng(range(5), dtype=torch.float64), eta)
        other = SAMPLERS[name](velocity, start, times, Rng(range(5), dtype=torch.float64))
        assert torch.allclose(found, other, atol=1e-12, rtol=0)


@each_formulation
@each_grid
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 999, 1000])
def test_grids_fall_from_the_first_time_to_zero(formulation: Formulation, grid: str, steps: int) -> None:  # NU-07
    times = GRIDS[grid](formulation, steps)
    assert len(times) == steps + 1 and times.dtype == torch.float64
    assert times[-1] == 0 and bool((times.diff() < 0).all())
    assert 0.98 < times[0] <= formulation.first + 1e-12


def test_the_grids_are_those_of_the_papers() -> None:
    sigma = GRIDS["karras"](EDM(), 18)
    sigma = sigma / (1 - sigma)
    i = torch.arange(18, dtype=torch.float64)
    truth = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert torch.allclose(sigma[:-1], truth, rtol=1e-10, atol=0)
    logs = GRIDS["log-snr"](DDPM(), 11)[:-1].logit().diff()
    assert torch.allclose(logs, logs[0].expand(10), rtol=1e-9, atol=0)
    times = DDPM().schedule.times()
    assert torch.allclose(GRIDS["uniform"](DDPM(), 10)[:-1], times[torch.arange(999, 0, -100)], atol=1e-15, rtol=0)
    assert torch.allclose(GRIDS["uniform"](DDPM(), 1000)[:-1], times.flip(0), atol=1e-15, rtol=0)
    assert torch.equal(GRIDS["ddpm"](DDPM(), 10), GRIDS["uniform"](DDPM(), 10))  # of the others the same steps
    assert torch.equal(GRIDS["ddpm"](RectifiedFlow(), 10), GRIDS["ddpm"](DDPM(), 10))
    assert GRIDS["ddpm"](EDM(), 7)[0] <= EDM().first < GRIDS["ddpm"](DDPM(), 7)[0]
    quarter = GRIDS["quadratic"](RectifiedFlow(), 4)
    assert quarter.tolist() == [1, 9 / 16, 1 / 4, 1 / 16, 0]


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 999])
def test_the_network_is_called_as_often_as_promised_and_when(name: str, steps: int) -> None:  # NU-07
    times = GRIDS["uniform"](DDPM(), steps)
    seen: list[Tensor] = []

    def velocity(y: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return torch.zeros_like(y)

    SAMPLERS[name](velocity, torch.zeros(1, 1, 1, 1, dtype=torch.float64), times, Rng([0], dtype=torch.float64))
    promised = asked(name, times)
    if promised is None:
        assert len(seen) % 6 == 2  # one before the first step of six, and the last of Euler's
    else:
        assert torch.equal(torch.stack(seen), promised)


def test_the_schedules_are_those_of_the_papers() -> None:
    linear, cosine = Schedule().alpha_bar(), Schedule("cosine").alpha_bar()
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert torch.allclose(linear, torch.cumprod(1 - beta, 0), atol=0, rtol=1e-12)
    assert abs(float(linear[-1]) - 4.0358e-5) < 1e-8
    f = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert abs(float(cosine[499]) - f) < 1e-9


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_step_is_found_again_from_its_time(name: str) -> None:
    schedule = Schedule(name)  # type: ignore[arg-type]
    assert torch.allclose(schedule.step(schedule.times()), torch.arange(1000, dtype=torch.float64), atol=1e-6)
    assert schedule.step(torch.tensor(0.0)) == 0 and schedule.step(torch.tensor(1.0)) == 999
    single = schedule.step(schedule.times().float())
    assert torch.allclose(single, torch.arange(1000.0), atol=0.05)


@each_formulation
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_what_is_learned_is_read_back(formulation: Formulation, dtype: torch.dtype, tolerance: float) -> None:  # NU-08
    x0, eps = Rng(range(7), dtype=dtype).normal(1, 2, 3).clamp(-1, 1), Rng(range(9, 16), dtype=dtype).normal(1, 2, 3)
    for t in (formulation.first, formulation.last, 0.1, 0.5, 0.9):
        at = torch.tensor(t, dtype=dtype)
        y = torch.lerp(x0, eps, at)
        found = formulation.velocity(formulation.target(x0, eps, at), y, at)
        worst = max(1.0, 1 / (1 - t) if t < 1 else 1.0, 1 / t)  # rounding of y grows so much
        assert (found - (eps - x0)).abs().max() < tolerance * worst


@each_formulation
def test_networks_see_images_of_about_unit_size_and_labels_up_to_1000(formulation: Formulation) -> None:
    times = GRIDS["uniform"](formulation, 23)[:-1]
    labels = formulation.label(times)
    assert bool((labels.diff() < 0).all()) and labels.min() > -1e-6 and labels.max() < 1000 + 1e-6
    noise = Rng(range(101), dtype=torch.float64)
    x0, eps = 0.5 * noise.normal(1, 5, 5), noise.normal(1, 5, 5)
    for t in times:
        assert 0.4 < formulation.enter(torch.lerp(x0, eps, t), t).std() < 1.1


@each_formulation
def test_the_loss_of_a_perfect_network_is_zero_and_its_times_are_within_reach(formulation: Formulation) -> None:
    point = torch.full((1, 1, 2, 3), -0.61)
    seen: list[Tensor] = []

    def network(image: Tensor, label: Tensor) -> Tensor:
        seen.append(label)
        t, z = formulation.draw(Noise(0, 997)), Noise(0, 997)
        formulation.draw(z)
        return formulation.target(point, z.normal(1, 2, 3), column(t))

    found = loss(formulation, network, point.expand(997, -1, -1, -1), Noise(0, 997))
    assert found.shape == (997,) and found.max() < 1e-9
    assert seen[0].shape == (997,) and seen[0].min() >= 0 and seen[0].max() <= 1000.1 and seen[0].std() > 50


def test_min_snr_weighs_the_same_error_of_the_image_the_same_in_every_prediction() -> None:  # Hang et al., section 3.4
    t = torch.linspace(0.02, 0.97, 11, dtype=torch.float64)
    x0 = torch.full((11, 1, 1, 1), 0.3, dtype=torch.float64)
    y, wrong = torch.lerp(x0, torch.full_like(x0, -0.7), column(t)), x0 + 0.1
    snr = ((1 - t) / t).square()
    for name in ("eps", "v", "x0"):
        formulation = DDPM(predict=name, min_snr=5.0)
        answers = [
            formulation.target(guess, (y - (1 - column(t)) * guess) / column(t), column(t)) for guess in (x0, wrong)
        ]
        error = (answers[0] - answers[1]).square().flatten() * formulation.weight(t)
        assert torch.allclose(error, 0.01 * snr.clamp(max=5), rtol=1e-9, atol=0)


def test_clipping_keeps_the_image_estimate_and_touches_nothing_else() -> None:
    y, t = torch.tensor([0.2, 2.9]).view(2, 1, 1, 1), torch.tensor([0.5, 0.25])
    velocity = clipped(lambda y, t: torch.full_like(y, -0.4))
    x0 = y - column(t) * velocity(y, t)
    assert torch.allclose(x0.flatten(), torch.tensor([0.4, 1.0]), atol=1e-6)


def labelled(sizes: list[int]):
    """A velocity that says what it was asked: t y + the label, or - 5 where it was dropped."""

    def velocity(y: Tensor, t: Tensor, cond: Condition) -> Tensor:
        sizes.append(len(y))
        assert cond.label is not None
        kept = cond.label if cond.keep is None else torch.where(cond.keep, cond.label, -5)
        return y * column(t) + kept.view(-1, 1, 1, 1)

    return velocity


def test_guidance_is_linear_in_its_scale_and_costs_one_doubled_call() -> None:  # NU-09
    cond, sizes = Condition(torch.tensor([0, 1, 2])), []
    y, t = torch.randn(3, 1, 2, 2), torch.tensor(0.3)
    free, plain = (guided(labelled(sizes), cond, scale)(y, t) for scale in (0.0, 1.0))
    for scale in (-0.5, 2.0, 7.5):
        found = guided(labelled(sizes), cond, scale)(y, t)
        assert torch.allclose(found, free + scale * (plain - free), atol=1e-6)
        w = scale - 1  # the other published scale: (1 + w) v_c - w v_0
        assert torch.allclose(found, (1 + w) * plain - w * free, atol=1e-5)
    assert sizes == [3, 3, 6, 6, 6]


def test_guidance_in_an_interval_is_plain_outside_and_costs_nothing_there() -> None:
    cond, sizes = Condition(torch.tensor([0, 1, 2])), []
    velocity = guided(labelled(sizes), cond, 3.0, (0.2, 0.6))
    y = torch.randn(3, 1, 2, 2)
    for t in (0.1, 0.7):
        assert torch.equal(velocity(y, torch.tensor(t)), labelled([])(y, torch.tensor(t), cond))
    assert sizes == [3, 3]
    always = guided(labelled([]), cond, 3.0)
    assert torch.equal(velocity(y, torch.tensor(0.4)), always(y, torch.tensor(0.4)))
    mixed = velocity(y, torch.tensor([0.1, 0.4, 0.9]))  # a time for each image, as the adaptive sampler has them
    assert torch.allclose(mixed[1], always(y, torch.tensor(0.4))[1], atol=1e-6)
    assert torch.allclose(mixed[2], labelled([])(y, torch.tensor(0.9), cond)[2], atol=1e-6)


def test_a_perfect_classifier_turns_the_mixture_into_the_class() -> None:
    """Two Gaussians N(-1, s^2), N(1, s^2): the mixture's velocity, guided at scale 1, is that of the class."""
    s = 0.3

    def log_odds(y: Tensor, t: Tensor) -> Tensor:
        t = column(t)
        return 2 * (1 - t) * y / ((1 - t) ** 2 * s**2 + t**2)

    def log_probability(y: Tensor, t: Tensor, label: Tensor) -> Tensor:
        sign = column(2.0 * label - 1)
        return torch.nn.functional.logsigmoid(sign * log_odds(y, t)).sum((1, 2, 3))

    def mixture(y: Tensor, t: Tensor) -> Tensor:
        p = log_odds(y, t).sigmoid()
        return p * gaussian_velocity(1, s)(y, t) + (1 - p) * gaussian_velocity(-1, s)(y, t)

    label = torch.tensor([0, 1, 1])
    y = torch.tensor([0.4, -0.2, 1.1], dtype=torch.float64).view(3, 1, 1, 1)
    for t in (0.05, 0.5, 0.95):
        at = torch.tensor(t, dtype=torch.float64)
        found = guided_by_classifier(mixture, log_probability, label, 1.0)(y, at)
        wanted = torch.where(column(label) > 0, gaussian_velocity(1, s)(y, at), gaussian_velocity(-1, s)(y, at))
        assert torch.allclose(found, wanted, atol=1e-10)
    one = torch.tensor(1.0, dtype=torch.float64)
    assert torch.equal(guided_by_classifier(mixture, log_probability, label, 2.0)(y, one), mixture(y, one))


def test_autoguidance_is_linear_and_one_is_the_model_itself() -> None:
    good, bad = gaussian_velocity(0.4, 0.3), gaussian_velocity(0.1, 0.5)
    y, t = torch.randn(3, 1, 2, 2), torch.tensor(0.3)
    for scale in (0.0, 1.0, 2.5):
        found = guided_by_worse(good, bad, scale)(y, t)
        assert torch.allclose(found, bad(y, t) + scale * (good(y, t) - bad(y, t)), atol=1e-6)


def coins(y: Tensor, t: Tensor) -> Tensor:
    """The exact velocity where each pixel is a fair coin, -1 or 1: E[x0 | y] = tanh((1 - t) y / t^2)."""
    t = column(t)
    return (y - torch.tanh((1 - t) * y / t**2)) / t


@pytest.mark.parametrize("schedule", [Schedule(), Schedule("cosine")], ids=["linear", "cosine"])
def test_the_variational_bound_of_fair_coins_is_just_above_one_bit_a_pixel(schedule: Schedule) -> None:  # NU-17
    torch.manual_seed(0)
    images = torch.randint(0, 2, (160, 1, 5, 7), dtype=torch.float64) * 2 - 1
    nats = variational_bound(schedule, coins, images, levels=2, draws=60)
    bits = -nats / (35 * math.log(2))
    error = float(bits.std() / math.sqrt(len(bits)))
    assert 1.0 - 3 * error < float(bits.mean()) < 1.03 + 3 * error and error < 0.02


def test_the_bound_is_an_unbiased_estimate_of_the_sum_of_all_its_terms() -> None:
    torch.manual_seed(1)
    schedule = Schedule(T=20)
    image = torch.full((1, 1, 1, 3), 0.25, dtype=torch.float64)

    def velocity(y: Tensor, t: Tensor) -> Tensor:
        return 0.3 * y + 0.1 * column(t)

    count = 4_000
    snr = schedule.alpha_bar() / (1 - schedule.alpha_bar())
    many = image.expand(count, -1, -1, -1)
    terms = torch.zeros((), dtype=torch.float64)
    for i in range(1, 20):
        guess = estimate(schedule, velocity, many, torch.full((count,), i))
        terms += (snr[i - 1] - snr[i]) / 2 * (many - guess).square().sum((1, 2, 3)).mean()
    whole = -terms - prior(schedule.alpha_bar()[-1], image)[0] + decoder(schedule, velocity, many, 256).mean()
    drawn = variational_bound(schedule, velocity, many, 256, draws=3)
    assert abs(float(drawn.mean() - whole)) < 4 * float(drawn.std()) / math.sqrt(count)
