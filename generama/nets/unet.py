"""A small U-Net (Ronneberger et al. 2015) as diffusion uses it (Ho et al. 2020, appendix B).

Residual blocks with the time and class embedding added, max-pool down, nearest up, concatenated skips. The last layer
is not normalised and sees the input itself: where there is nearly only noise the answer is almost the input, and a norm
would take away its mean, which is the brightness of the picture.

With a patch of P pixels, each P x P square enters and leaves as one pixel of P^2 times the channels (Luhman and Luhman
2022, "Improving Diffusion Model Efficiency Through Patching", arXiv:2207.04316). Nothing is lost, and the dearest maps,
those at full resolution with few channels each, are never made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from generama.core import Condition, Spec
from generama.errors import UsageError
from generama.nets.embeddings import LabelEmbedding, sinusoids
from generama.nets.norm import GroupNorm

LARGE = 28  # pixels a side from which patches pay, as far as was measured (docs/diffusion.md)


@dataclass(frozen=True)
class UNetConfig:
    """Channels at the resolution of the patches, and the multiple of them at each halving of it."""

    kind: Literal["unet"] = "unet"
    width: int = 24
    multiples: tuple[int, ...] = (1, 2, 4)  # fewer are used where the size cannot be halved so often
    patch: int = 0  # pixels a side that enter and leave as one; 0: 2 where the picture has LARGE pixels a side, else 1


class ResidualBlock(nn.Module):
    """x + conv(conv(x) + embedding), each after normalisation and SiLU."""

    def __init__(self, inner: int, outer: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(_groups(inner), inner)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.embed = nn.Linear(embedding, outer)
        self.norm2 = GroupNorm(_groups(outer), outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        self.skip = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()
        nn.init.zeros_(self.conv2.weight)  # each block starts as the identity

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, inner, H, W), (B, embedding) -> (B, outer, H, W)."""
        h = self.conv1(functional.silu(self.norm1(x)))
        h = h + self.embed(embedding)[:, :, None, None]
        h = self.conv2(functional.silu(self.norm2(h)))
        return self.skip(x) + h


class UNet(nn.Module):
    """F(x, time, cond): images and times, `times` of them each, to images of the same shape."""

    def __init__(self, config: UNetConfig, spec: Spec, times: int = 1) -> None:
        super().__init__()
        patch = config.patch or (2 if spec.size >= LARGE and spec.size % 2 == 0 else 1)
        if patch < 1 or spec.size % patch:
            raise UsageError(f"patches of {patch} do not fit {spec.size} pixels; change --family.net.patch")
        widths = [config.width * m for m in config.multiples[: 1 + halvings(spec.size // patch)]]
        channels = spec.channels * patch**2
        self.patch = patch
        embedding = 4 * config.width
        self.width = config.width
        self.time = nn.Sequential(
            nn.Linear(times * config.width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.label = LabelEmbedding(spec.classes, embedding)
        self.enter = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            ResidualBlock(inner, outer, embedding) for inner, outer in zip([widths[0], *widths], widths, strict=False)
        )
        self.middle = ResidualBlock(widths[-1], widths[-1], embedding)
        self.up = nn.ModuleList(
            ResidualBlock(below + skip, skip, embedding)
            for below, skip in zip([widths[-1], *widths[:0:-1]], widths[::-1], strict=True)
        )
        self.leave = nn.Conv2d(widths[0] + channels, channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor, time: Tensor, cond: Condition) -> Tensor:
        """(B, C, H, W) images, (B,) or (B, times) times in 0..1000, conditions -> (B, C, H, W)."""
        embedding = functional.silu(self.time(sinusoids(time, self.width)) + self.label(cond, like=x))
        x = functional.pixel_unshuffle(x, self.patch)
        h = self.enter(x)
        skips = []
        for level, block in enumerate(self.down):
            h = block(functional.max_pool2d(h, 2) if level else h, embedding)
            skips.append(h)
        h = self.middle(h, embedding)
        for level, block in enumerate(self.up):
            h = functional.interpolate(h, scale_factor=2.0, mode="nearest") if level else h
            h = block(torch.cat([h, skips.pop()], dim=1), embedding)
        h = self.leave(torch.cat([functional.silu(h), x.to(h.dtype)], dim=1))  # else all of it became float32
        return functional.pixel_shuffle(h, self.patch)


def halvings(size: int) -> int:
    """How often a size can be halved evenly down to 4 pixels or more: 28 -> 2 (7), 32 -> 3 (4), 8 -> 1 (4)."""
    count = 0
    while size % 2 == 0 and size >= 8:
        size, count = size // 2, count + 1
    return count


def _groups(channels: int) -> int:
    """The largest divisor of the channels up to 8. (Alone in its group, a channel would not hear the embedding.)"""
    return next(groups for groups in range(8, 0, -1) if channels % groups == 0)
