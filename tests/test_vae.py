"""The VAE against known answers: closed forms, sums to one, and a linear Gaussian model whose likelihood is exact."""

from __future__ import annotations

import math
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from generama.core import Batch, Condition, Noise, Rng, Spec
from generama.errors import NotDefined, UsageError
from generama.families.vae import (
    VAE,
    VAEConfig,
    kl,
    log_bernoulli,
    log_discretised_logistic,
    log_gaussian,
    reparameterise,
)
from generama.nets.convnet import ConvAutoencoderConfig, halvings
from generama.nets.mlp import MLPAutoencoderConfig
from generama.pixels import from_levels

EXAMPLE = Path(__file__).parent.parent / "examples" / "minimal_vae.py"
CONV = VAEConfig(net=ConvAutoencoderConfig(width=4, hidden=11, label_width=3), latent=5)
MLP = VAEConfig(net=MLPAutoencoderConfig(hidden=(13,), label_width=3), latent=5)


def batch(spec: Spec, n: int = 7) -> Batch:
    pixels = from_levels(torch.randint(256, (n, *spec.shape))) if spec.levels else torch.randn(n, *spec.shape)
    return Batch(pixels, Condition(label=torch.arange(n) % spec.classes) if spec.classes else Condition())


def zeroed(config: VAEConfig, spec: Spec) -> VAE:
    """A VAE whose every weight is zero: its posterior is its prior and its decoder is constant."""
    model = VAE(config, spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def test_kl_is_that_of_torch_and_of_monte_carlo():
    torch.manual_seed(0)
    mean, log_var, prior_mean, prior_log_var = torch.randn(4, 3, 5, dtype=torch.float64)
    q = Independent(Normal(mean, (0.5 * log_var).exp()), 1)
    p = Independent(Normal(prior_mean, (0.5 * prior_log_var).exp()), 1)
    ours = kl(mean, log_var, prior_mean, prior_log_var)
    torch.testing.assert_close(ours, kl_divergence(q, p), rtol=1e-12, atol=1e-12)
    z = reparameterise(mean.expand(10_000, 3, 5), log_var.expand(10_000, 3, 5), torch.randn(10_000, 3, 5))
    draws = q.log_prob(z) - p.log_prob(z)
    assert ((draws.mean(0) - ours).abs() < 4 * draws.std(0) / math.sqrt(10_000)).all()


def test_kl_to_the_prior_itself_is_zero():
    mean, log_var = torch.randn(2, 3, 5)
    assert kl(mean, log_var, mean, log_var).abs().max() == 0


@pytest.mark.parametrize("levels", [2, 5, 256])
@pytest.mark.parametrize("scale", [1e-3, 0.02, 0.3, 40.0])
@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.013, 0.5, 1.2])
def test_discretised_logistic_sums_to_one_over_all_levels(levels: int, scale: float, mean: float):
    every = torch.linspace(-1, 1, levels, dtype=torch.float64).view(levels, 1, 1, 1)
    at, log_scale = torch.full_like(every, mean), torch.full_like(every, math.log(scale))
    total = log_discretised_logistic(every, at, log_scale, levels).exp().sum()
    assert abs(total - 1) < 1e-10


def test_discretised_logistic_is_the_mass_of_the_cell():
    ends = (torch.arange(257, dtype=torch.float64) - 0.5) / 127.5 - 1
    cdf = torch.sigmoid((ends - 0.1) / 0.07)
    cdf[0], cdf[-1] = 0.0, 1.0
    every = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).view(256, 1, 1, 1)
    ours = log_discretised_logistic(every, torch.full_like(every, 0.1), torch.full_like(every, math.log(0.07)))
    torch.testing.assert_close(ours.exp(), cdf.diff(), rtol=1e-8, atol=1e-14)


def test_discretised_logistic_is_finite_where_the_difference_of_sigmoids_is_not():
    images = torch.tensor([[[[-0.5]]], [[[1.0]]], [[[-1.0]]]])
    maps = torch.tensor([[[[50.0]]], [[[-80.0]]], [[[90.0]]]], requires_grad=True)
    scales = torch.full((3, 1, 1, 1), -20.0, requires_grad=True)
    total = log_discretised_logistic(images, maps, scales).sum()
    total.backward()
    assert maps.grad is not None and scales.grad is not None
    assert total.isfinite() and maps.grad.isfinite().all() and scales.grad.isfinite().all()


def test_bernoulli_is_the_binary_cross_entropy():
    torch.manual_seed(0)
    images, logits = torch.rand(3, 1, 5, 7) * 2 - 1, torch.randn(3, 1, 5, 7)
    expected = F.binary_cross_entropy(logits.sigmoid(), (images + 1) / 2, reduction="sum")
    torch.testing.assert_close(-log_bernoulli(images, logits).sum(), expected)


def test_gaussian_is_that_of_torch():
    images, mean, log_scale = torch.randn(3, 11, 2, 1, 1, dtype=torch.float64)
    expected = Normal(mean, log_scale.exp()).log_prob(images).flatten(1).sum(1)
    torch.testing.assert_close(log_gaussian(images, mean, log_scale), expected)


def test_bound_of_a_linear_gaussian_model_lies_below_and_meets_the_likelihood():
    """NU-16: x = W z + s eps; the bound is log p(x) exactly where q is the posterior, and lower anywhere else."""
    torch.manual_seed(0)
    w, s = torch.randn(3, 2, dtype=torch.float64), 0.7
    x = torch.randn(3, dtype=torch.float64)
    exact = MultivariateNormal(torch.zeros(3, dtype=torch.float64), w @ w.T + s**2 * torch.eye(3)).log_prob(x)
    covariance = torch.linalg.inv(torch.eye(2, dtype=torch.float64) + w.T @ w / s**2)
    posterior = MultivariateNormal(covariance @ w.T @ x / s**2, covariance)
    # Turn z so that the posterior's covariance is diagonal, as q's is; the prior N(0, 1) does not notice.
    variance, turn = torch.linalg.eigh(covariance)
    mean, w = turn.T @ posterior.mean, w @ turn

    def bound(mean: torch.Tensor, log_var: torch.Tensor, n: int = 200_000) -> tuple[float, float]:
        z = reparameterise(mean.expand(n, 2), log_var.expand(n, 2), torch.randn(n, 2))
        images, maps = x.expand(n, 3)[..., None, None], (z @ w.T)[..., None, None]
        values = log_gaussian(images, maps, torch.full_like(maps, math.log(s)))
        zero = torch.zeros(1, 2, dtype=torch.float64)
        divergence = kl(mean[None], log_var[None], zero, zero).item()
        return values.mean().item() - divergence, values.std().item() / math.sqrt(n)

    value, error = bound(mean, variance.log())
    assert abs(value - exact) < 4 * error
    value, error = bound(mean + 0.3, variance.log())
    assert value < exact - 4 * error
    value, error = bound(mean, variance.log() - 1)
    assert value < exact - 4 * error


def test_bound_of_a_uniform_decoder_on_two_levels_is_one_bit_a_pixel():
    spec = Spec(channels=1, size=8, classes=3, levels=2)
    model = zeroed(replace(CONV, likelihood="bernoulli"), spec)
    images = from_levels(torch.randint(2, (7, 1, 8, 8)), 2)
    bits = -model.log_prob(images, Condition(label=torch.zeros(7).long())) / (64 * math.log(2))
    torch.testing.assert_close(bits, torch.ones(7))


def test_bound_of_a_constant_decoder_is_the_logistic_itself():
    spec = Spec(channels=3, size=8)
    images = batch(spec, 5).images
    ends = (torch.arange(257, dtype=torch.float64) - 0.5) / 127.5 - 1
    mass = ends.sigmoid()
    mass[0], mass[-1] = 0, 1
    level = ((images + 1) * 127.5).round().long()
    expected = mass.diff().log()[level].flatten(1).sum(1).float()
    torch.testing.assert_close(zeroed(CONV, spec).log_prob(images), expected)


def test_bernoulli_on_grey_values_has_no_likelihood():
    spec = Spec(channels=1, size=8)
    with pytest.raises(NotDefined, match="logistic"):
        VAE(replace(MLP, likelihood="bernoulli"), spec).log_prob(batch(spec).images)


SHAPES = [(CONV, size, channels) for size in (8, 28, 32, 64) for channels in (1, 3)]
SHAPES += [(MLP, 8, 3), (replace(MLP, likelihood="bernoulli"), 28, 1)]


@pytest.mark.parametrize(("config", "size", "channels"), SHAPES)
def test_shapes_gradients_and_range(config: VAEConfig, size: int, channels: int):
    spec = Spec(channels, size, classes=3)
    model = VAE(config, spec)
    loss, extras = model.loss(batch(spec), Noise(0, 7))
    loss.backward()
    assert loss.isfinite() and set(extras) == {"reconstruction", "kl", "active_units"}
    assert all(p.grad is not None for p in model.parameters())
    images = model.sample(Rng(range(5)))
    assert images.shape == (5, *spec.shape) and images.abs().max() <= 1


def test_points_have_a_gaussian_density():
    spec = Spec(channels=2, size=1, levels=0)
    model = zeroed(MLP, spec)
    points = torch.randn(7, 2, 1, 1)
    expected = Normal(0.0, 1.0).log_prob(points).flatten(1).sum(1)
    torch.testing.assert_close(model.log_prob(points), expected)
    assert VAE(MLP, spec).sample(Rng(range(5))).shape == (5, 2, 1, 1)


def test_loss_is_minus_the_bound_and_beta_weighs_the_kl():
    spec = Spec(channels=1, size=8, classes=3)
    model = VAE(CONV, spec)
    data = batch(spec)
    loss, extras = model.loss(data, Noise(1, len(data)))
    torch.manual_seed(1)
    torch.testing.assert_close(loss, -model.log_prob(data.images, data.cond).mean())
    heavy = VAE(replace(CONV, beta=3.0), spec)
    heavy.load_state_dict(model.state_dict())
    torch.testing.assert_close(heavy.loss(data, Noise(1, len(data)))[0], loss + 2 * extras["kl"])


def test_labels_change_the_picture_and_a_neighbour_does_not():
    spec = Spec(channels=1, size=8, classes=3)
    model = VAE(CONV, spec).eval()
    together = model.sample(Rng([3, 5, 7, 11]), Condition(label=torch.tensor([0, 1, 2, 0])))
    alone = torch.cat([model.sample(Rng([s]), Condition(label=torch.tensor([y]))) for s, y in ((3, 0), (5, 1))])
    torch.testing.assert_close(together[:2], alone)
    other = model.sample(Rng([3]), Condition(label=torch.tensor([1])))
    assert (other - alone[:1]).abs().max() > 1e-4


def test_each_class_has_its_own_prior_once_learned():
    spec = Spec(channels=1, size=8, classes=3)
    model = VAE(CONV, spec)
    assert torch.stack(model.prior(Condition(label=torch.arange(3)), torch.zeros(3))).abs().max() == 0  # starts N(0, 1)
    data = batch(spec)
    model.loss(data, Noise(0, len(data)))[0].backward()
    assert model.prior_of.table is not None and model.prior_of.table.weight.grad is not None
    assert model.prior_of.table.weight.grad[:3].abs().min(1).values.gt(0).all()


def test_temperature_zero_forgets_the_seed():
    model = VAE(CONV, Spec(channels=1, size=8))
    one, two = model.sample(Rng([1, 2]), temperature=0.0)
    torch.testing.assert_close(one, two)
    assert (model.sample(Rng([1])) - model.sample(Rng([2]))).abs().max() > 1e-4


def test_unconditional_ignores_labels_and_conditional_asks_for_them():
    spec = Spec(channels=1, size=8, classes=3)
    assert VAE(replace(CONV, conditional=False), spec).spec.classes == 0
    with pytest.raises(UsageError, match="label"):
        VAE(CONV, spec).log_prob(batch(spec).images)


@pytest.mark.parametrize(("size", "plan"), [(8, (1, 4)), (28, (2, 7)), (32, (3, 4)), (64, (4, 4)), (24, (3, 3))])
def test_halvings(size: int, plan: tuple[int, int]):
    assert halvings(size) == plan


@pytest.mark.parametrize("size", [4, 27, 30, 36])
def test_sizes_that_cannot_be_halved_are_refused_with_one_that_can(size: int):
    with pytest.raises(UsageError, match=r"--size \d+"):
        VAE(CONV, Spec(channels=1, size=size))


def test_points_are_refused_by_a_convolutional_net():
    with pytest.raises(UsageError, match="vae-mlp"):
        VAE(CONV, Spec(channels=2, size=1, levels=0))


def test_minimal_example_draws_a_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "digits.png"
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(path), "--steps", "3"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    with Image.open(path) as picture:
        assert picture.size == (480, 480) and len(picture.histogram()) - picture.histogram().count(0) > 10
