"""The U-Net with attention: the papers' parameter counts, what attention may and may not do, and what it starts as."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from generama.core import Condition, Spec
from generama.errors import UsageError
from generama.nets.attention_unet import Attention, AttentionUNet, AttentionUNetConfig, ResidualBlock, Stage

SMALL = AttentionUNetConfig(width=8, multiples=(1, 2, 2), blocks=1, attention=(), dropout=0.0)
ADM = AttentionUNetConfig(
    width=192, multiples=(1, 2, 3, 4), blocks=3, attention=(32, 16, 8), head=64, modulation=True, resampling="residual"
)


def moved(net: nn.Module) -> nn.Module:
    """Weights away from their zeros, so that every path through the network counts."""
    torch.manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net.double().eval()


def reach(net: nn.Module, size: int) -> Tensor:
    """Which input pixels the output pixel at (0, 0) depends on: (size, size) bool."""
    x = torch.randn(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    net(x, torch.tensor([500.0], dtype=torch.float64), Condition())[0, :, 0, 0].sum().backward()
    assert x.grad is not None
    return (x.grad != 0).any(1)[0]


@pytest.mark.parametrize(
    ("config", "spec", "count"),
    [
        (AttentionUNetConfig(), Spec(3, 32), 35_746_307),  # Ho et al., appendix B: 35.7 million
        (AttentionUNetConfig(multiples=(1, 2, 2, 2, 4)), Spec(3, 64), 78_700_803),  # Song et al. 2021a: 78.7 million
        # Dhariwal and Nichol, table 11: 296 million, less 5,187 that learn variances, more 768 for "no class"
        (ADM, Spec(3, 64, classes=1000), 295_900_035),
    ],
    ids=["ddpm-cifar10", "ddpm-celeba64", "adm-imagenet64"],
)
def test_the_papers_networks_to_the_parameter(config: AttentionUNetConfig, spec: Spec, count: int) -> None:
    with torch.device("meta"):
        net = AttentionUNet(config, spec)
    assert sum(p.numel() for p in net.parameters()) == count


def test_attention_stands_at_the_chosen_resolutions_and_in_the_middle() -> None:
    with torch.device("meta"):
        net = AttentionUNet(AttentionUNetConfig(), Spec(3, 32))
    sizes: list[int] = []
    for module in net.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.shape[-1]))
    with torch.device("meta"):
        net(torch.empty(1, 3, 32, 32), torch.empty(1), Condition())
    assert sizes == [16, 16, 4, 16, 16, 16]


def test_attention_does_not_know_where_its_pixels_are() -> None:
    attention = moved(Attention(12, head=3))
    x = torch.randn(2, 12, 5, 7, dtype=torch.float64)
    order = torch.randperm(35)
    shuffled = x.flatten(2)[:, :, order].unflatten(2, (5, 7))
    assert torch.allclose(attention(shuffled).flatten(2), attention(x).flatten(2)[:, :, order], atol=1e-10)


def test_attention_is_the_softmax_of_equation_1_in_each_head() -> None:
    attention = moved(Attention(6, head=3))
    assert isinstance(attention, Attention)
    x = torch.randn(1, 6, 2, 3, dtype=torch.float64)
    q, k, v = functional.conv2d(attention.norm(x), attention.read.weight, attention.read.bias).flatten(2)[0].split(6)
    heads = []
    for rows in (slice(0, 3), slice(3, 6)):
        weights = torch.softmax(q[rows].T @ k[rows] / 3**0.5, dim=1)  # (pixels that ask, pixels asked)
        assert torch.allclose(weights.sum(1), torch.ones(6, dtype=torch.float64))
        heads.append((weights @ v[rows].T).T)
    expected = x + attention.write(torch.cat(heads).reshape(1, 6, 2, 3))
    assert torch.allclose(attention(x), expected, atol=1e-10)


def test_one_attention_block_lets_every_pixel_see_every_other() -> None:
    far = replace(SMALL, multiples=(1,), blocks=1)
    spec = Spec(3, 32)
    net = moved(AttentionUNet(far, spec))
    assert isinstance(net, AttentionUNet)
    assert bool(reach(net, 32).all())
    for stage in net.modules():
        if isinstance(stage, Stage):  # without attention and without norms, only convolutions are left
            stage.attention = nn.Identity()
    for block in net.modules():
        if isinstance(block, ResidualBlock):
            block.norm1, block.norm2 = nn.Identity(), nn.Identity()
    net.leave[0] = nn.Identity()
    seen = reach(net, 32)
    convolutions = 2 + 2 * (1 + 2 + 2)  # first and last, and two a block: one down, two in the middle, two up
    assert bool(seen[: convolutions + 1, : convolutions + 1].all()) and int(seen.sum()) == (convolutions + 1) ** 2


@pytest.mark.parametrize("modulation", [False, True])
@pytest.mark.parametrize("resampling", ["convolution", "residual"])
def test_a_new_network_answers_nothing_and_its_blocks_pass_their_input_on(resampling, modulation) -> None:
    config = replace(SMALL, attention=(8,), resampling=resampling, modulation=modulation)
    net = AttentionUNet(config, Spec(3, 8, classes=5))
    x, time = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 700.0])
    assert torch.equal(net(x, time, Condition(torch.tensor([1, 4]))), torch.zeros(2, 3, 8, 8))
    h, embedding = torch.randn(2, 8, 5, 7), torch.randn(2, 32)
    assert torch.equal(Stage(config, 8, 8, attends=True)(h, embedding), h)


@pytest.mark.parametrize("modulation", [False, True])
def test_time_class_and_dropout_reach_the_output(modulation: bool) -> None:
    config = replace(SMALL, modulation=modulation, dropout=0.5)
    net = moved(AttentionUNet(config, Spec(3, 8, classes=5)))
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)

    def answer(time: float, label: int) -> Tensor:
        return net(x, torch.tensor([time], dtype=torch.float64), Condition(torch.tensor([label])))

    assert torch.equal(answer(3.0, 1), answer(3.0, 1))
    assert not torch.allclose(answer(3.0, 1), answer(700.0, 1))
    assert not torch.allclose(answer(3.0, 1), answer(3.0, 2))
    net.train()
    assert not torch.allclose(answer(3.0, 1), answer(3.0, 1))


def test_twenty_eight_pixels_attend_at_fourteen_and_are_refused_a_fourth_level() -> None:
    spec = Spec(1, 28)
    net = AttentionUNet(replace(SMALL, attention=(16,)), spec)
    attends = [isinstance(stage.attention, Attention) for stage in net.down if isinstance(stage, Stage)]
    assert attends == [False, True, False]
    assert net(torch.randn(2, 1, 28, 28), torch.zeros(2), Condition()).shape == (2, 1, 28, 28)
    with pytest.raises(UsageError, match=r"28 pixels halves evenly to 28, 14, 7: that is 1 to 3 levels, not 4"):
        AttentionUNet(replace(SMALL, multiples=(1, 2, 2, 2)), spec)


def test_settings_that_cannot_be_are_refused_with_what_can() -> None:
    with pytest.raises(UsageError, match=r"counts as 16 wide; choose --family.net.attention among 8, 4, 2"):
        AttentionUNet(replace(SMALL, attention=(16,)), Spec(3, 8))
    with pytest.raises(UsageError, match=r"16 channels do not divide into heads of 5"):
        AttentionUNet(replace(SMALL, head=5), Spec(3, 8))
