"""A plain convolutional encoder and its mirror image: 4x4 kernels that halve, then double, the resolution.

The layout is that of Radford et al. (2016), "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", section 3 (strided convolutions in the place of pooling), without its batch norm: a latent must
not depend on the other images of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from generama.core import Condition, Spec
from generama.errors import UsageError
from generama.nets.embeddings import LabelEmbedding


@dataclass(frozen=True)
class ConvAutoencoderConfig:
    """Channels double with each halving of the resolution: width, 2*width, 4*width ..."""

    kind: Literal["conv"] = "conv"
    width: int = 32
    hidden: int = 128  # of the dense layer between the last map and the latent
    label_width: int = 16  # numbers that stand for the class


def halvings(size: int) -> tuple[int, int]:
    """How often an image of this size is halved until its map is 3 to 7 wide, and that width: (times, start).

    28 -> (2, 7); 32 -> (3, 4); 64 -> (4, 4); 8 -> (1, 4). Raises UsageError where no power of two leads there.
    """
    if size == 1:
        raise UsageError("2-D points are no images; use a fully connected net (recipes vae-mlp and gan-mlp)")
    times, start = 0, size
    while start > 4 and start % 2 == 0:
        times, start = times + 1, start // 2
    if times == 0 or start > 7:
        near = next(s for s in (8, 16, 28, 32, 48, 64, 96, 128, 256, 512, 1024) if s >= min(size, 1024))
        raise UsageError(
            f"a convolutional network halves its images down to a map of 3 to 7 pixels, and {size} pixels cannot be "
            f"halved so; resize with --size {near}, or use a fully connected net (recipes vae-mlp and gan-mlp)"
        )
    return times, start


class ConvEncoder(nn.Module):
    """An image (B, C, H, W) and its class -> `outputs` numbers, (B, outputs)."""

    def __init__(self, config: ConvAutoencoderConfig, spec: Spec, outputs: int) -> None:
        super().__init__()
        times, start = halvings(spec.size)
        channels = [spec.channels, *(config.width * 2**i for i in range(times))]
        maps: list[nn.Module] = []
        for into, out in pairwise(channels):
            maps += [nn.Conv2d(into, out, 4, stride=2, padding=1), nn.SiLU()]
        self.maps = nn.Sequential(*maps)
        self.label = LabelEmbedding(spec.classes, config.label_width if spec.classes else 0)
        features = channels[-1] * start**2 + self.label.width
        self.dense = nn.Sequential(nn.Linear(features, config.hidden), nn.SiLU(), nn.Linear(config.hidden, outputs))

    def forward(self, images: Tensor, cond: Condition) -> Tensor:
        """(B, outputs)."""
        maps = self.maps(images)
        return self.dense(torch.cat([maps.flatten(1), self.label(cond, images)], dim=1))


class ConvDecoder(nn.Module):
    """A latent (B, latent) and a class -> `channels` maps of the image's size, (B, channels, H, W)."""

    def __init__(self, config: ConvAutoencoderConfig, spec: Spec, latent: int, channels: int) -> None:
        super().__init__()
        times, start = halvings(spec.size)
        widths = [*(config.width * 2**i for i in reversed(range(times))), channels]
        self.shape = (widths[0], start, start)
        self.label = LabelEmbedding(spec.classes, config.label_width if spec.classes else 0)
        self.dense = nn.Sequential(
            nn.Linear(latent + self.label.width, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, widths[0] * start**2),
            nn.SiLU(),
        )
        maps: list[nn.Module] = []
        for into, out in pairwise(widths):
            maps += [nn.ConvTranspose2d(into, out, 4, stride=2, padding=1), nn.SiLU()]
        self.maps = nn.Sequential(*maps[:-1])

    def forward(self, z: Tensor, cond: Condition) -> Tensor:
        """(B, channels, H, W), any real number."""
        start = self.dense(torch.cat([z, self.label(cond, z)], dim=1)).unflatten(1, self.shape)
        return self.maps(start).contiguous()
