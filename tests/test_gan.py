"""The GAN against hand-computed losses, the exact layers of the classic recipe, and the papers' initialisation."""

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
from torch import nn

from generama.adversarial.losses import (
    cross_entropy_discriminator,
    cross_entropy_generator,
    hinge_discriminator,
    hinge_generator,
)
from generama.core import Batch, Condition, Noise, Rng, Spec
from generama.errors import UsageError
from generama.families.gan import GAN, GANConfig, truncate
from generama.nets.dcgan import DCGANConfig
from generama.nets.mlp import MLPGANConfig
from generama.recipes.gan import gan_mlp

EXAMPLE = Path(__file__).parent.parent / "examples" / "minimal_gan.py"
CONV = GANConfig(net=DCGANConfig(width=4, label_width=3), latent=11)
MLP = GANConfig(net=MLPGANConfig(generator=(13, 17), discriminator=(17, 13), label_width=3), latent=11)


def batch(spec: Spec, n: int = 7) -> Batch:
    label = torch.arange(n) % spec.classes if spec.classes else None
    return Batch(torch.rand(n, *spec.shape) * 2 - 1, Condition(label=label))


def settled(config: GANConfig, spec: Spec) -> GAN:
    """A GAN whose batch norms have seen a few batches, ready to sample."""
    model = GAN(config, spec)
    for _ in range(3):
        model.generator_loss(batch(spec), Noise(0, 7))
    return model.eval()


def test_losses_by_hand():
    real, fake = torch.tensor([0.0, math.log(3.0)]), torch.tensor([0.0, -math.log(3.0)])  # D = 1/2, 3/4; 1/2, 1/4
    half, three_quarters = math.log(2), math.log(4 / 3)
    both = cross_entropy_discriminator(real, fake)
    assert both.item() == pytest.approx((half + three_quarters) / 2 + (half + three_quarters) / 2)
    smoothed = cross_entropy_discriminator(real, fake, smoothing=0.1)
    on_real = 0.9 * (half + three_quarters) / 2 + 0.1 * (half + math.log(4)) / 2
    assert smoothed.item() == pytest.approx(on_real + (half + three_quarters) / 2)
    assert cross_entropy_generator(fake).item() == pytest.approx((half + math.log(4)) / 2)
    assert hinge_discriminator(torch.tensor([3.0, 0.5]), torch.tensor([-3.0, 0.5])).item() == pytest.approx(0.25 + 0.75)
    assert hinge_generator(torch.tensor([3.0, 0.5])).item() == pytest.approx(-1.75)


def test_cross_entropy_is_that_of_sigmoids_and_smoothed_labels():
    torch.manual_seed(0)
    real, fake = torch.randn(2, 7)
    expected = F.binary_cross_entropy(real.sigmoid(), torch.full((7,), 0.9))
    expected = expected + F.binary_cross_entropy(fake.sigmoid(), torch.zeros(7))
    torch.testing.assert_close(cross_entropy_discriminator(real, fake, smoothing=0.1), expected)
    torch.testing.assert_close(cross_entropy_generator(fake), F.binary_cross_entropy(fake.sigmoid(), torch.ones(7)))


def test_generator_loss_does_not_saturate():
    logit = torch.tensor([-30.0], requires_grad=True)
    cross_entropy_generator(logit).backward()
    assert logit.grad is not None and logit.grad.item() == pytest.approx(-1.0)


def test_classic_recipe_to_the_letter():
    recipe = gan_mlp()
    assert isinstance(recipe.family, GANConfig)
    model = GAN(recipe.family, Spec(channels=1, size=28, classes=10))
    widths = lambda net: [tuple(m.weight.shape) for m in net.modules() if isinstance(m, nn.Linear)]  # noqa: E731
    assert widths(model.generator) == [(256, 100), (512, 256), (1024, 512), (784, 1024)]
    assert widths(model.discriminator) == [(1024, 784), (512, 1024), (256, 512), (1, 256)]
    count = lambda net: sum(p.numel() for p in net.parameters())  # noqa: E731
    assert count(model.generator) == 1_486_352
    assert count(model.discriminator) == 1_460_225
    slopes = [m.negative_slope for m in model.discriminator.modules() if isinstance(m, nn.LeakyReLU)]
    assert slopes == [0.2, 0.2, 0.2]
    kinds = [type(m) for m in model.generator.modules() if not list(m.children())]
    assert kinds.count(nn.ReLU) == 3 and kinds[-1] is nn.Tanh
    discriminator, generator = model.players()
    assert (discriminator.name, generator.name) == ("discriminator", "generator")
    assert (discriminator.turns, generator.turns, generator.every) == (1, 2, 1)
    train = recipe.train
    assert (train.batch, train.rate, train.betas, train.schedule) == (64, 2e-4, (0.5, 0.999), "constant")
    assert (train.clip, train.average, train.warmup) == (0, 0, 0)
    assert recipe.family.smoothing == pytest.approx(0.1) and model.spec.classes == 0


def test_dcgan_follows_section_three():
    torch.manual_seed(0)
    model = GAN(GANConfig(net=DCGANConfig(width=64), conditional=False), Spec(channels=3, size=64))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            assert module.bias is None
            error = 5 * 0.02 / math.sqrt(module.weight.numel())
            assert abs(module.weight.std().item() - 0.02) < error and abs(module.weight.mean().item()) < error
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert module.kernel_size == (4, 4) and module.stride == (2, 2)
        if isinstance(module, nn.BatchNorm2d):
            assert abs(module.weight.mean().item() - 1) < 0.02 and 0.01 < module.weight.std().item() < 0.03
            assert module.bias.abs().max() == 0
    up = [m.in_channels for m in model.generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    down = [m.out_channels for m in model.discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert up == [512, 256, 128, 64] and down == [64, 128, 256, 512]
    norms = [
        sum(isinstance(m, nn.BatchNorm2d) for m in net.modules()) for net in (model.generator, model.discriminator)
    ]
    assert norms == [4, 3]  # everywhere but at the generator's output and the discriminator's input


SHAPES = [(CONV, size, channels) for size in (8, 28, 32, 64) for channels in (1, 3)]
SHAPES += [(MLP, 8, 3), (MLP, 28, 1), (replace(CONV, loss="hinge"), 8, 1)]


@pytest.mark.parametrize(("config", "size", "channels"), SHAPES)
def test_each_player_gets_gradients_and_the_other_none(config: GANConfig, size: int, channels: int):
    spec = Spec(channels, size, classes=3)
    model = GAN(config, spec)
    for player in model.players():
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(player.name))
            parameter.grad = None
        loss, extras = player.loss(batch(spec), Noise(0, 7))
        loss.backward()
        assert loss.isfinite() and not any(value.requires_grad for value in extras.values())
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == name.startswith(player.name), name
    images = model.eval().sample(Rng(range(5)))
    assert images.shape == (5, *spec.shape) and images.abs().max() <= 1


def test_discriminator_loss_builds_no_graph_of_the_generator():
    model = GAN(CONV, Spec(channels=1, size=8, classes=3))
    model.discriminator_loss(batch(model.spec), Noise(0, 7))[0].backward()
    assert all(parameter.grad is None for parameter in model.generator.parameters())


def test_extras_count_what_the_discriminator_gets_right():
    spec = Spec(channels=1, size=8)
    model = GAN(MLP, spec)
    last = [m for m in model.discriminator.modules() if isinstance(m, nn.Linear)][-1]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, 2.0)  # everything is taken for real
    loss, extras = model.discriminator_loss(batch(spec), Noise(0, 7))
    assert {name: value.item() for name, value in extras.items()} == {
        "real_logit": 2.0,
        "fake_logit": 2.0,
        "real_accuracy": 1.0,
        "fake_accuracy": 0.0,
    }
    expected = 0.9 * math.log1p(math.exp(-2)) + 0.1 * math.log1p(math.exp(2)) + math.log1p(math.exp(2))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("config", [CONV, MLP])
def test_labels_change_picture_and_verdict_and_a_neighbour_neither(config: GANConfig):
    torch.manual_seed(0)
    spec = Spec(channels=1, size=8, classes=3)
    model = settled(config, spec)
    together = model.sample(Rng([3, 5, 7, 11]), Condition(label=torch.tensor([0, 1, 2, 0])))
    alone = torch.cat([model.sample(Rng([s]), Condition(label=torch.tensor([y]))) for s, y in ((3, 0), (5, 1))])
    torch.testing.assert_close(together[:2], alone)
    other = model.sample(Rng([3]), Condition(label=torch.tensor([1])))
    assert (other - alone[:1]).abs().max() > 1e-4
    images = batch(spec, 3).images
    verdicts = [model.discriminator(images, Condition(label=torch.full((3,), y))) for y in (0, 1)]
    assert (verdicts[0] - verdicts[1]).abs().max() > 1e-6


def test_points_are_not_bounded():
    spec = Spec(channels=2, size=1, levels=0)
    model = GAN(MLP, spec).eval()
    points = model.sample(Rng(range(5)))
    assert points.shape == (5, 2, 1, 1)
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.mul_(20)
    assert model.sample(Rng(range(5))).abs().max() > 1


def test_truncation_is_the_truncated_normal_and_keeps_the_order():
    z = torch.randn(50_000, generator=torch.Generator().manual_seed(0))
    short = truncate(z, 0.7)
    assert short.abs().max() <= 0.7
    assert (short[z.argsort()].diff() >= 0).all()
    density = math.exp(-0.5 * 0.7**2) / math.sqrt(2 * math.pi)
    variance = 1 - 2 * 0.7 * density / math.erf(0.7 / math.sqrt(2))
    assert short.var().item() == pytest.approx(variance, rel=0.02)
    torch.testing.assert_close(truncate(z, 40.0), z, rtol=1e-5, atol=1e-5)


def test_truncation_changes_samples_and_refuses_nonsense():
    model = settled(CONV, Spec(channels=1, size=8))
    assert (model.sample(Rng([1])) - model.sample(Rng([1]), truncation=0.3)).abs().max() > 1e-4
    with pytest.raises(UsageError, match="truncation"):
        model.sample(Rng([1]), truncation=0.0)


@pytest.mark.parametrize("size", [27, 30])
def test_sizes_that_dcgan_cannot_do_are_refused_with_one_that_it_can(size: int):
    with pytest.raises(UsageError, match=r"--size \d+"):
        GAN(CONV, Spec(channels=1, size=size))


def test_unconditional_ignores_labels():
    spec = Spec(channels=1, size=8, classes=3)
    model = GAN(replace(CONV, conditional=False), spec)
    assert model.spec.classes == 0
    with pytest.raises(UsageError, match="label"):
        model.sample(Rng([1]), Condition(label=torch.tensor([1])))


def test_two_pictures_of_two_classes_are_learnt():
    """An end-to-end check: the samples of each class approach the one picture of that class."""
    torch.manual_seed(0)
    spec = Spec(channels=1, size=8, classes=2)
    pictures = torch.full((2, 1, 8, 8), -1.0)
    pictures[0, :, :, 2:4] = 1.0  # a vertical bar
    pictures[1, :, 5:7, :] = 1.0  # a horizontal bar
    model = GAN(GANConfig(net=DCGANConfig(width=8, label_width=3), latent=3), spec)
    players = model.players()
    optimisers = [torch.optim.Adam(p.module.parameters(), lr=5e-3, betas=(0.5, 0.999)) for p in players]
    label = torch.arange(32) % 2
    data = Batch(pictures[label], Condition(label=label))
    for step in range(200):
        for player, optimiser in zip(players, optimisers, strict=True):
            optimiser.zero_grad()
            player.loss(data, Noise(step, len(data)))[0].backward()
            optimiser.step()
    drawn = model.eval().sample(Rng(range(32)), Condition(label=label))
    assert (drawn - pictures[label]).abs().mean() < 0.3
    assert (drawn - pictures[1 - label]).abs().mean() > 0.6


def test_minimal_example_draws_a_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "digits.png"
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(path), "--steps", "3"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    with Image.open(path) as picture:
        assert picture.size == (480, 480) and len(picture.histogram()) - picture.histogram().count(0) > 10
