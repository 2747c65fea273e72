"""MeanFlow against exact answers: Gaussian and one-point data, whose average velocity is known in closed form."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_gaussian import gaussian_velocity, towards
from tiny import ATTENTION_UNET, DIT, TINY, UNET
from torch import Tensor, nn
from torch.func import jvp

from generama.core import Batch, Condition, Noise, Rng, Spec
from generama.errors import UsageError
from generama.execution import Execution, autocast, prepare
from generama.families import build
from generama.families.meanflow import MeanFlow, MeanFlowConfig
from generama.gaussian.formulations import column
from generama.gaussian.meanflow import AverageVelocity, Pairs, adapted, jumps, loss, target
from generama.nets.norm import GroupNorm

MEAN, STD = 0.4, 0.3
POINT = torch.full((1, 1, 2, 3), 0.37, dtype=torch.float64)
NETS = {"unet": UNET, "unet-patches": replace(UNET, width=16, patch=2), "attention-unet": ATTENTION_UNET, "dit": DIT}
each_net = pytest.mark.parametrize("net", NETS.values(), ids=NETS)


def spread(t: Tensor, std: float = STD) -> Tensor:
    """Of (1 - t) x0 + t eps."""
    return torch.hypot((1 - t) * std, t)


def carried(y: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """The exact flow of N(MEAN, STD^2) from t to r: it keeps the number of standard deviations from the mean."""
    return (1 - r) * MEAN + (y - (1 - t) * MEAN) * spread(r) / spread(t)


def gaussian_average(y: Tensor, r: Tensor, t: Tensor) -> Tensor:
    """The exact u of N(MEAN, STD^2): the way from t to r over t - r, written so that it holds at r = t too."""
    r, t = column(r), column(t)
    change = (t + r - STD**2 * (2 - t - r)) / (spread(t) + spread(r))  # (spread(t) - spread(r)) / (t - r)
    return (y - (1 - t) * MEAN) * change / spread(t) - MEAN


def unguided(y: Tensor, t: Tensor, v: Tensor) -> Tensor:
    return v


def places(count: int = 101, equal: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """y, r and t in float64, r < t, but r = t in the first rows."""
    stream = torch.Generator().manual_seed(3)
    y = torch.randn(count, 1, 2, 3, generator=stream, dtype=torch.float64)
    r, t = torch.rand(count, 2, generator=stream, dtype=torch.float64).sort(dim=1).values.unbind(1)
    r[:equal] = t[:equal]
    return y, r, t


def moved(net: object, omega: float = 2.0, classes: int = 3) -> MeanFlow:
    """A small family in float64 whose layers of zeros are zeros no longer."""
    torch.manual_seed(0)
    family = build(MeanFlowConfig(net=net, omega=omega), Spec(1, 8, classes))  # type: ignore[arg-type]
    assert isinstance(family, MeanFlow)
    for parameter in family.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return family.double().eval()


def batch(count: int = 5) -> Batch:
    """Random pictures of three classes, float64."""
    images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    return Batch(images, Condition(torch.arange(count) % 3))


def test_the_exact_average_is_the_way_of_the_exact_flow_and_ends_as_the_velocity() -> None:
    y, r, t = places()
    way = (y - carried(y, column(r), column(t))) / column(t - r)
    assert torch.allclose(gaussian_average(y, r, t)[7:], way[7:], atol=1e-10, rtol=0)
    velocity = gaussian_velocity(MEAN, STD)(y, t)
    assert torch.allclose(gaussian_average(y, t, t), velocity, atol=1e-10, rtol=0)


def test_the_identity_gives_the_exact_average_back() -> None:  # the MeanFlow identity
    y, r, t = places()
    said, wanted = target(gaussian_average, y, r, t, gaussian_velocity(MEAN, STD)(y, t))
    assert torch.equal(said, gaussian_average(y, r, t))
    assert (wanted - said).abs().max() < 1e-10 and not wanted.requires_grad
    wrong = target(lambda y, r, t: gaussian_average(y, t, t), y, r, t, gaussian_velocity(MEAN, STD)(y, t))
    assert (wrong[1] - wrong[0]).abs()[7:].max() > 0.01  # the velocity itself is no average


def test_the_loss_of_the_exact_average_is_zero_on_one_point() -> None:
    def u(y: Tensor, r: Tensor, t: Tensor) -> Tensor:
        return towards(POINT)(y, t)  # the flow is straight, so its velocity is also its average

    weighted, error = loss(Pairs(apart=0.5), u, unguided, POINT.expand(997, -1, -1, -1), Noise(0, 997))
    assert weighted.shape == error.shape == (997,) and weighted.max() < 1e-18 and error.max() < 1e-18
    _, missed = loss(Pairs(), lambda y, r, t: u(y, r, t) + 0.1, unguided, POINT.expand(997, -1, -1, -1), Noise(0, 997))
    assert missed.min() > 1e-3


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_gradient_vanishes_at_the_exact_average_and_only_there(power: float) -> None:
    count = 40_000
    x0 = MEAN + STD * torch.randn(count, 1, 1, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def slopes(shift: float, size: float) -> list[float]:
        """Of the loss in what is added to the exact average, and in what it is multiplied by: in standard errors."""
        a, b = (torch.full((count, 1, 1, 1), z, dtype=torch.float64, requires_grad=True) for z in (shift, size))
        weighted, _ = loss(
            Pairs(apart=0.5), lambda *at: a + b * gaussian_average(*at), unguided, x0, Noise(0, count), power
        )
        return [float(g.mean() / g.std() * count**0.5) for g in torch.autograd.grad(weighted.sum(), (a, b))]

    assert max(map(abs, slopes(0.0, 1.0))) < 4
    assert slopes(0.1, 1.0)[0] > 8 and slopes(-0.1, 1.0)[0] < -8
    assert slopes(0.0, 1.1)[1] > 8 and slopes(0.0, 0.9)[1] < -8


@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_any_number_of_steps_lands_exactly_on_the_end_of_the_flow(steps: int) -> None:  # algorithm 2, NU-06
    y = torch.linspace(-2, 2, 7, dtype=torch.float64).view(7, 1, 1, 1)
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    ends = list(jumps(gaussian_average, y, times))
    assert len(ends) == steps
    for end, time in zip(ends, times[1:], strict=True):
        assert (end - carried(y, time, times[0])).abs().max() < 1e-12
    assert (ends[-1] - (MEAN + STD * y)).abs().max() < 1e-12


@each_net
def test_the_derivative_along_the_flow_is_that_of_finite_differences(net: object) -> None:
    u, (_, r, t) = moved(net).average_velocity(Condition(torch.arange(5) % 3)), places(5, equal=0)
    y, v, h = batch().images, torch.randn(5, 1, 8, 8, dtype=torch.float64), 1e-5
    with torch.no_grad():
        said, wanted = target(u, y, r, t, v)
        slope = (u(y + h * v, r, t + h) - u(y - h * v, r, t - h)) / (2 * h)
        assert torch.allclose(said, u(y, r, t), atol=1e-12)
    assert slope.abs().max() > 0.1
    assert torch.allclose(wanted, v - column(t - r) * slope, atol=1e-6)


def test_equal_times_are_flow_matching() -> None:
    family, seen = moved(UNET, omega=1.0), []
    u = family.average_velocity(Condition(torch.arange(5) % 3))

    def network(y: Tensor, r: Tensor, t: Tensor) -> Tensor:
        seen.append((y, r, t))
        return u(y, r, t)

    x0 = batch().images
    weighted, error = loss(Pairs(apart=0.0), network, unguided, x0, Noise(0, 5), power=0.0)
    noise = Noise(0, 5)
    noise.normal(2), noise.uniform()
    eps = noise.normal(1, 8, 8).double()
    _, time = Pairs(apart=0.0).draw(Noise(0, 5))
    y = torch.lerp(x0, eps, column(time.double()))
    plain = (u(y, time.double(), time.double()) - (eps - x0)).square()
    assert len(seen) == 1
    assert torch.allclose(weighted, plain.sum((1, 2, 3)), rtol=1e-12)
    assert torch.allclose(error, plain.mean((1, 2, 3)), rtol=1e-12)


def test_the_pairs_are_those_of_the_paper() -> None:
    r, t = Pairs().draw(Noise(0, 20_000))
    apart = r < t
    assert bool((r <= t).all()) and abs(float(apart.float().mean()) - 0.25) < 4 * (0.25 * 0.75 / 20_000) ** 0.5
    logits = torch.cat([r[apart], t[apart]]).logit()  # of two sorted numbers, both together are as they were drawn
    assert abs(float(logits.mean()) + 0.4) < 0.05 and abs(float(logits.std()) - 1) < 0.05
    r, t = Pairs(apart=1.0, log_mean=-2.0, log_std=2.0).draw(Noise(0, 20_000))
    logits = torch.cat([r, t]).logit()
    assert abs(float(logits.mean()) + 2) < 0.06 and abs(float(logits.std()) - 2) < 0.06
    assert torch.equal(*Pairs(apart=0.0).draw(Noise(1, 97)))


def test_the_adaptive_weight_is_a_constant_to_the_gradient() -> None:
    error = torch.tensor([0.0, 0.5, 8.0], requires_grad=True)
    for power in (0.0, 0.5, 1.0):
        (slope,) = torch.autograd.grad(adapted(error, power).sum(), error)
        assert torch.allclose(slope, (error.detach() + 1e-3) ** -power)


@pytest.mark.parametrize("omega", [0.5, 1.0, 3.0])
def test_guidance_between_two_points_is_learned_without_error(omega: float) -> None:  # section 4.2
    family = moved(UNET, omega)
    other = -2 * POINT  # where everything lies for the model without a class
    goal = omega * POINT + (1 - omega) * other  # so says the guided velocity, whose flow is straight again

    def say(cond: Condition) -> AverageVelocity:
        assert cond.keep is not None
        at = torch.where(cond.keep.view(-1, 1, 1, 1), goal, other)
        return lambda y, r, t: (y - at) / column(t)

    family.average_velocity = say  # type: ignore[method-assign]
    keep = torch.arange(97) % 3 > 0
    cond = Condition(torch.zeros(97, dtype=torch.long), keep=keep)
    x0 = torch.where(keep.view(-1, 1, 1, 1), POINT, other)
    _, error = loss(Pairs(apart=0.5), say(cond), family.guide(cond), x0, Noise(0, 97))
    assert error.max() < 1e-18


def test_guidance_follows_the_formula_and_leaves_dropped_labels_alone() -> None:
    family = moved(UNET, 3.0)
    label, keep = torch.arange(5) % 3, torch.tensor([True, False, True, True, False])
    (y, v), t = (batch().images, torch.randn(5, 1, 8, 8, dtype=torch.float64)), places(5)[2]
    found = family.guide(Condition(label, keep))(y, t, v)
    free = family.average_velocity(Condition(label, torch.zeros(5, dtype=torch.bool)))(y, t, t)
    assert torch.allclose(found[keep], (3 * v + (1 - 3) * free)[keep], atol=1e-12)
    assert torch.equal(found[~keep], v[~keep]) and not found.requires_grad
    assert moved(UNET, 1.0).guide(Condition(label, keep))(y, t, v) is v


@each_net
@pytest.mark.parametrize(
    "execution",
    [Execution(layout="channels_last"), Execution("bfloat16"), Execution("bfloat16", "channels_last")],
    ids=str,
)
def test_every_execution_finds_the_gradient_of_plain_float32(net: object, execution: Execution) -> None:
    gradients = []
    for way in (Execution(), execution):
        family = moved(net).float()
        prepare(family, way)
        learn = Batch(batch(16).images.float(), batch(16).cond)
        with autocast(torch.device("cpu"), way):
            found, _ = family.players()[0].loss(learn, Noise(0, 16))
        found.backward()
        assert all(p.grad is not None for p in family.parameters())
        gradients.append(torch.cat([p.grad.flatten() for p in family.parameters() if p.grad is not None]))
    exact = execution.precision == "float32"
    assert torch.cosine_similarity(*gradients, dim=0) > (1 - 1e-5 if exact else 0.99)


def test_a_compiled_network_is_differentiated_as_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    family = moved(UNET)
    plain, _ = family.players()[0].loss(batch(), Noise(0, 5))

    def refuse(*args: object) -> Tensor:
        raise AssertionError("torch.compile's code knows no derivative forward in time")

    monkeypatch.setattr(family.net, "_compiled_call_impl", refuse)
    assert torch.equal(plain, family.players()[0].loss(batch(), Noise(0, 5))[0])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_group_norm_is_differentiated_forward_in_any_layout(layout: torch.memory_format) -> None:
    norm = GroupNorm(2, 6).double()
    x, v = (torch.randn(3, 6, 4, 4, dtype=torch.float64).to(memory_format=layout) for _ in range(2))
    _, slope = jvp(norm, (x,), (v,))
    assert torch.allclose(slope, (norm(x + 1e-6 * v) - norm(x - 1e-6 * v)) / 2e-6, atol=1e-7)


@each_net
def test_the_network_hears_of_both_times(net: object) -> None:
    u, (_, r, t) = moved(net).average_velocity(Condition()), places(5, equal=0)
    y = batch().images
    assert (u(y, r, t) - u(y, 0 * r, t)).abs().max() > 1e-3
    assert (u(y, r, t) - u(y, r, (r + t) / 2 + 0.1)).abs().max() > 1e-3


def test_a_sample_is_the_last_of_its_steps_and_costs_one_call_each() -> None:
    family = build(TINY["meanflow"], Spec(1, 8, 3)).eval()
    assert isinstance(family, MeanFlow)
    nn.init.normal_(family.net.leave.weight, std=0.1)  # type: ignore[union-attr]
    cond, calls = Condition(torch.tensor([0, 2])), []
    forward = family.net.forward
    family.net.forward = lambda *args: (calls.append(1), forward(*args))[1]  # type: ignore[method-assign]
    frames = family.trajectory(Rng([3, 5]), cond, steps=3)
    assert frames.shape == (4, 2, 1, 8, 8) and len(calls) == family.evaluations(steps=3) == 3
    assert torch.equal(frames[0], Rng([3, 5]).normal(1, 8, 8))
    assert torch.equal(frames[-1], family.sample(Rng([3, 5]), cond, steps=3))
    one = family.sample(Rng([3, 5]), cond)
    said = family.average_velocity(cond)(frames[0], torch.zeros(2), torch.ones(2))
    assert torch.allclose(one, (frames[0] - said).clamp(-1, 1), atol=1e-6)
    with pytest.raises(UsageError, match="steps must be at least 1"):
        family.sample(Rng([1]), steps=0)
