"""The small U-Net: patches are a change of shape and nothing else, and a size that they do not fit is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from generama.core import Condition, Spec
from generama.errors import UsageError
from generama.nets.unet import UNet, UNetConfig


@pytest.mark.parametrize("patch", [2, 3])
def test_patches_are_the_same_network_on_fewer_pixels_with_more_channels(patch: int) -> None:
    torch.manual_seed(0)
    patched = UNet(UNetConfig(width=8, patch=patch), Spec(2, 8 * patch, 5))
    plain = UNet(UNetConfig(width=8), Spec(2 * patch**2, 8, 5))
    for weights in patched.parameters():  # so that no layer is all zeros
        torch.nn.init.normal_(weights, std=0.1)
    plain.load_state_dict(patched.state_dict())
    x, time, cond = torch.randn(7, 2, 8 * patch, 8 * patch), 1000 * torch.rand(7), Condition(torch.arange(7) % 5)
    folded = plain(pixel_unshuffle(x, patch), time, cond)
    assert folded.abs().mean() > 0.1
    assert torch.allclose(patched(x, time, cond), pixel_shuffle(folded, patch), atol=1e-5)


@pytest.mark.parametrize(("size", "patch"), [(1, 1), (8, 1), (16, 1), (27, 1), (28, 2), (29, 1), (64, 2)])
def test_large_pictures_come_in_patches_unless_told_otherwise(size: int, patch: int) -> None:
    net, x = UNet(UNetConfig(width=8), Spec(1, size)), torch.zeros(2, 1, size, size)
    assert net.patch == patch and net(x, torch.ones(2), Condition()).shape == x.shape
    assert UNet(UNetConfig(width=8, patch=1), Spec(1, size)).patch == 1


@pytest.mark.parametrize("patch", [3, 56, -2])
def test_a_size_that_patches_do_not_fit_is_refused(patch: int) -> None:
    with pytest.raises(UsageError, match=rf"patches of {patch} do not fit 28 pixels; .*--family\.net\.patch"):
        UNet(UNetConfig(patch=patch), Spec(1, 28))
