"""The gated PixelCNN against what must hold exactly: causality, no blind spot, probabilities that sum to one."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.stats import chisquare

from generama.core import Batch, Condition, Noise, Rng, Spec
from generama.errors import UsageError
from generama.families.autoregressive import Autoregressive, AutoregressiveConfig
from generama.nets.pixelcnn import PixelCNN, PixelCNNConfig, draw, generate
from generama.pixels import from_levels, to_levels

TINY = PixelCNNConfig(width=7, layers=2, kernel=3, first=5, head=11)


def net_of(spec: Spec) -> PixelCNN:
    torch.manual_seed(2)
    return PixelCNN(TINY, spec).double().eval()


def family_of(spec: Spec, net: PixelCNNConfig = TINY) -> Autoregressive:
    torch.manual_seed(2)
    return Autoregressive(AutoregressiveConfig(net=net), spec).eval()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_change_moves_no_logit_at_or_before_it(channels):
    """NU-14, every sub-pixel of a 5x5 picture, in the order row, column, channel."""
    spec = Spec(channels, 5, levels=13)
    net = net_of(spec)
    level = torch.randint(13, (1, *spec.shape), generator=torch.Generator().manual_seed(3))
    before = net(level).movedim(2, -1).reshape(13, -1)  # (K, N * N * C) in reading order
    for j in range(spec.dims):
        flat = level.movedim(1, -1).reshape(-1).clone()
        flat[j] = (flat[j] + 5) % 13
        changed = flat.view(1, 5, 5, channels).movedim(-1, 1)
        moved = (net(changed).movedim(2, -1).reshape(13, -1) != before).any(dim=0)
        assert not moved[: j + 1].any()
        assert j == spec.dims - 1 or moved[j + 1]  # the next one does hear of it, be it a channel or a pixel


def test_every_earlier_pixel_within_reach_is_heard():
    """No blind spot: a logit in the middle of a 7x7 picture moves with the 31 pixels before it, and no other."""
    net = net_of(Spec(1, 7, levels=5))
    level = torch.zeros(49, 1, 7, 7, dtype=torch.long)
    level.view(49, 49)[torch.arange(48), torch.arange(48)] = 4
    middle = net(level)[:, :, 0, 4, 3]
    moved = ((middle[:48] - middle[48]).abs() > 1e-12).any(dim=1)  # rounding depends on the place in the batch
    assert moved.tolist() == [j < 4 * 7 + 3 for j in range(48)]


@pytest.mark.parametrize("classes", [0, 3])
def test_probabilities_of_all_binary_images_sum_to_one(classes):
    family = family_of(Spec(1, 3, classes, levels=2)).double()
    images = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=9)), dtype=torch.float64).view(512, 1, 3, 3)
    with torch.no_grad():
        assert family.log_prob(images).exp().sum().item() == pytest.approx(1, abs=1e-10)
        if classes:
            given = family.log_prob(images, Condition(torch.full((512,), 2)))
            assert given.exp().sum().item() == pytest.approx(1, abs=1e-10)


def test_colour_probabilities_sum_to_one():
    family = family_of(Spec(3, 1, levels=4)).double()
    images = from_levels(torch.tensor(list(itertools.product(range(4), repeat=3))), 4).double().view(64, 3, 1, 1)
    with torch.no_grad():
        assert family.log_prob(images).exp().sum().item() == pytest.approx(1, abs=1e-10)


def test_samples_have_the_frequencies_that_log_prob_says():
    """All 16 binary 2x2 images, 4,000 draws; logits are enlarged so that the 16 probabilities differ."""
    family = family_of(Spec(1, 2, levels=2))
    with torch.no_grad():
        family.net.heads[0].logits.weight.mul_(8)
        images = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4))).view(16, 1, 2, 2)
        expected = family.log_prob(images).double().softmax(0)  # they sum to one but for rounding
    assert expected.max() / expected.min() > 2
    code = (family.sample(Rng(range(4000))).flatten(1) > 0).long() @ torch.tensor([8, 4, 2, 1])
    counts = code.bincount(minlength=16).double()
    assert chisquare(counts.numpy(), (expected * 4000).numpy()).pvalue > 1e-4


@pytest.mark.parametrize("spec", [Spec(1, 8, 3, 17), Spec(3, 5, 0, 256)])
def test_incremental_sampling_is_naive_sampling(spec):
    """The whole network run anew for every sub-pixel gives the same levels from the same numbers."""
    net, rng = net_of(spec), Rng([5, 6], dtype=torch.float64)
    label = torch.tensor([0, 2]) if spec.classes else None
    uniform = rng.uniform(*spec.shape)
    naive = torch.zeros(2, *spec.shape, dtype=torch.long)
    with torch.no_grad():
        for r, c, channel in itertools.product(range(spec.size), range(spec.size), range(spec.channels)):
            logits = net(naive, label)[:, :, channel, r, c]
            naive[:, channel, r, c] = draw(logits, uniform[:, channel, r, c], 0.9)
    assert torch.equal(generate(net, uniform, label, 0.9), naive)


def test_an_image_depends_on_its_own_seed_and_label_alone():
    family = family_of(Spec(1, 8, 3))
    label = torch.tensor([0, 1, 2, 0])
    four = family.sample(Rng([11, 12, 13, 14]), Condition(label))
    for i in range(4):
        assert torch.equal(family.sample(Rng([11 + i]), Condition(label[i : i + 1])), four[i : i + 1])
    assert not torch.equal(four[0], four[3])


def test_draw_inverts_the_cumulative_distribution():
    logits = torch.tensor([0.25, 0.5, 0.25]).log().expand(5, 3)
    assert draw(logits, torch.tensor([0.0, 0.2, 0.3, 0.7, 0.999]), 1.0).tolist() == [0, 0, 1, 1, 2]
    assert draw(logits, torch.full((5,), 0.1), 0.01).tolist() == [1] * 5  # cold: the mode


@pytest.mark.parametrize("spec", [Spec(1, 8, 10, 17), Spec(3, 28, 2), Spec(3, 32), Spec(1, 64)])
def test_a_uniform_model_costs_the_bits_of_its_levels(spec):
    """NU-15: with all logits equal, exactly 8 bits a number (log2 of 17 for the digits)."""
    family = family_of(spec)
    for head in family.net.heads:
        torch.nn.init.zeros_(head.logits.weight)
        torch.nn.init.zeros_(head.logits.bias)
    images = torch.rand(2, *spec.shape) * 2 - 1
    bits = -family.log_prob(images) / spec.dims / math.log(2)
    assert bits.tolist() == pytest.approx([math.log2(spec.levels)] * 2, abs=1e-5)


def test_it_learns_what_its_labels_mean():
    """Class 0 is black and class 1 is white: after a few steps the samples are, too."""
    spec = Spec(1, 5, 2, levels=4)
    family = family_of(spec, PixelCNNConfig(width=16, layers=1, head=16)).train()
    optimiser = torch.optim.Adam(family.parameters(), 1e-2)
    label = torch.arange(16) % 2
    batch = Batch((label * 2.0 - 1).view(16, 1, 1, 1).expand(16, *spec.shape), Condition(label))
    for step in range(40):
        loss, _ = family.loss(batch, Noise(step, 16))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert all(p.grad is not None for p in family.parameters())
    images = family.eval().sample(Rng(range(2)), Condition(torch.tensor([0, 1])))
    assert (images[0] == -1).float().mean() > 0.9
    assert (images[1] == 1).float().mean() > 0.9


def test_what_it_refuses():
    with pytest.raises(UsageError, match="realnvp"):
        Autoregressive(AutoregressiveConfig(), Spec(2, 1, levels=0))
    with pytest.raises(UsageError, match="even"):
        family_of(Spec(1, 8), PixelCNNConfig(kernel=4))
    with pytest.raises(UsageError, match="temperature"):
        family_of(Spec(1, 8)).sample(Rng([0]), temperature=0.0)


def test_levels_survive_the_way_there_and_back():
    level = torch.arange(17)
    assert torch.equal(to_levels(from_levels(level, 17), 17), level)
