"""The U-Net of the diffusion papers: residual blocks on several levels, and self-attention at chosen resolutions.

Ho et al. (2020), "Denoising Diffusion Probabilistic Models", arXiv:2006.11239, appendix B, is the default to the
parameter. Two changes of Dhariwal and Nichol (2021), "Diffusion Models Beat GANs on Image Synthesis", arXiv:2105.05233,
section 3, are settings: the embedding as scale and shift of a norm, and resampling inside residual blocks.
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


@dataclass(frozen=True)
class AttentionUNetConfig:
    """The network; its defaults are those of Ho et al. for CIFAR-10 (35.7 million parameters)."""

    kind: Literal["attention-unet"] = "attention-unet"
    width: int = 128  # channels at full resolution
    multiples: tuple[int, ...] = (1, 2, 2, 2)  # of the width, a level each; every level but the first halves the size
    blocks: int = 2  # residual blocks a level on the way down; one more on the way up
    attention: tuple[int, ...] = (16,)  # resolutions with self-attention; a map of 14 pixels counts as 16
    head: int = 0  # channels of an attention head (Dhariwal & Nichol: 64); 0: one head
    dropout: float = 0.1
    modulation: bool = False  # the embedding scales and shifts the second norm ("adaptive group norm"), not only shifts
    resampling: Literal["convolution", "residual"] = "convolution"  # residual: inside a residual block, as in BigGAN


class ResidualBlock(nn.Module):
    """skip(x) + conv(conv(x), embedding), each after normalisation and SiLU; `scale` 2 or 1/2 resamples on the way."""

    def __init__(self, config: AttentionUNetConfig, inner: int, outer: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.norm1 = norm(inner)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.embed = nn.Linear(4 * config.width, 2 * outer if config.modulation else outer)
        self.norm2 = norm(outer)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = silent(nn.Conv2d(outer, outer, 3, padding=1))  # the block starts as its skip
        self.skip = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()
        self.modulation = config.modulation

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, inner, H, W), (B, 4 * width) -> (B, outer, H * scale, W * scale)."""
        h = self.conv1(resampled(functional.silu(self.norm1(x)), self.scale))
        told = self.embed(embedding)[:, :, None, None]  # (B, outer or 2 * outer, 1, 1)
        if self.modulation:
            gain, bias = told.chunk(2, dim=1)
            h = self.norm2(h) * (1 + gain) + bias
        else:
            h = self.norm2(h + told)
        h = self.conv2(self.dropout(functional.silu(h)))
        return self.skip(resampled(x, self.scale)) + h


class Attention(nn.Module):
    """x + self-attention over its pixels (Vaswani et al. 2017, equation 1), after normalisation."""

    def __init__(self, channels: int, head: int) -> None:
        super().__init__()
        if head and channels % head:
            raise UsageError(f"{channels} channels do not divide into heads of {head}; change --family.net.head")
        self.heads = channels // head if head else 1
        self.norm = norm(channels)
        self.read = nn.Conv2d(channels, 3 * channels, 1)  # queries, keys and values
        self.write = silent(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        parts = self.read(self.norm(x)).chunk(3, dim=1)
        q, k, v = (
            part.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3) for part in parts
        )  # (B, heads, HW, D)
        seen = functional.scaled_dot_product_attention(q, k, v)
        return x + self.write(seen.transpose(2, 3).reshape(x.shape))


class Stage(nn.Module):
    """A residual block, and self-attention where the level has it."""

    def __init__(self, config: AttentionUNetConfig, inner: int, outer: int, attends: bool) -> None:
        super().__init__()
        self.block = ResidualBlock(config, inner, outer)
        self.attention = Attention(outer, config.head) if attends else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, inner, H, W) -> (B, outer, H, W)."""
        return self.attention(self.block(x, embedding))


class Resample(nn.Module):
    """Half (`scale` 1/2) or double (2) the resolution, by a convolution."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(channels, channels, 3, stride=2 if scale < 1 else 1, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H * scale, W * scale)."""
        return self.conv(x if self.scale < 1 else resampled(x, self.scale))


class AttentionUNet(nn.Module):
    """F(x, time, cond): images and times, `times` of them each, to images of the same shape.

    Every map made on the way down is kept, and joined to the input of a stage on the way up.
    """

    def __init__(self, config: AttentionUNetConfig, spec: Spec, times: int = 1) -> None:
        super().__init__()
        widths = [config.width * multiple for multiple in config.multiples]
        levels = list(zip(widths, levels_of(config, spec), strict=True))
        embedding = 4 * config.width
        self.width = config.width
        self.time = nn.Sequential(
            nn.Linear(times * config.width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.label = LabelEmbedding(spec.classes, embedding)
        self.enter = nn.Conv2d(spec.channels, config.width, 3, padding=1)

        channels, kept = config.width, [config.width]
        self.down = nn.ModuleList()
        for level, (width, attends) in enumerate(levels):
            if level:
                self.down.append(resample(config, channels, 1 / 2))
                kept.append(channels)
            for _ in range(config.blocks):
                self.down.append(Stage(config, channels, width, attends))
                channels = width
                kept.append(channels)

        self.middle = nn.ModuleList(Stage(config, channels, channels, attends) for attends in (True, False))

        self.up = nn.ModuleList()
        for level, (width, attends) in reversed(list(enumerate(levels))):
            for _ in range(config.blocks + 1):
                self.up.append(Stage(config, channels + kept.pop(), width, attends))
                channels = width
            if level:
                self.up.append(resample(config, channels, 2))

        self.leave = nn.Sequential(norm(channels), nn.SiLU(), silent(nn.Conv2d(channels, spec.channels, 3, padding=1)))

    def forward(self, x: Tensor, time: Tensor, cond: Condition) -> Tensor:
        """(B, C, H, W) images, (B,) or (B, times) times in 0..1000, conditions -> (B, C, H, W)."""
        embedding = functional.silu(self.time(sinusoids(time, self.width)) + self.label(cond, like=x))
        h = self.enter(x)
        kept = [h]
        for stage in self.down:
            h = stage(h, embedding)
            kept.append(h)
        for stage in self.middle:
            h = stage(h, embedding)
        for stage in self.up:
            h = stage(torch.cat([h, kept.pop()], dim=1) if isinstance(stage, Stage) else h, embedding)
        return self.leave(h)


def levels_of(config: AttentionUNetConfig, spec: Spec) -> list[bool]:
    """Which levels attend. Raises UsageError where the image cannot be halved so often, or no map has a resolution."""
    sizes = [spec.size]
    while sizes[-1] % 2 == 0:
        sizes.append(sizes[-1] // 2)
    if not 1 <= len(config.multiples) <= len(sizes):
        raise UsageError(
            f"an image of {spec.size} pixels halves evenly to {', '.join(map(str, sizes))}: that is 1 to {len(sizes)} "
            f"levels, not {len(config.multiples)}; shorten --family.net.multiples or choose another --size"
        )
    counted = [1 << (size - 1).bit_length() for size in sizes[: len(config.multiples)]]  # 14 -> 16, 7 -> 8
    for resolution in config.attention:
        if resolution not in counted:
            raise UsageError(
                f"no map of an image of {spec.size} pixels counts as {resolution} wide; choose --family.net.attention "
                f"among {', '.join(map(str, counted))}"
            )
    return [size in config.attention for size in counted]


def resample(config: AttentionUNetConfig, channels: int, scale: float) -> nn.Module:
    """The step between two levels."""
    if config.resampling == "residual":
        return ResidualBlock(config, channels, channels, scale)
    return Resample(channels, scale)


def resampled(x: Tensor, scale: float) -> Tensor:
    """Half the resolution by the mean of 2x2 pixels, double by repeating each, or (`scale` 1) as it is."""
    if scale < 1:
        return functional.avg_pool2d(x, 2)
    return functional.interpolate(x, scale_factor=2.0, mode="nearest") if scale > 1 else x


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation (Wu and He 2018) in at most 32 groups of at least 4 channels.

    A group of a single channel would take away the embedding, which is one number a channel.
    """
    fewest = min(4, channels)
    groups = next(n for n in range(32, 0, -1) if channels % n == 0 and channels // n >= fewest)
    return GroupNorm(groups, channels)


def silent(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with weights and bias zero, so that what it feeds starts without it."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
