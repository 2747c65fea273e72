"""Fully connected networks: the encoder and decoder of a teaching VAE, the two players of the classic GAN.

Both see an image as a vector of C*H*W numbers, so they fit any size and 2-D points too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from generama.core import Condition, Spec
from generama.nets.embeddings import LabelEmbedding


@dataclass(frozen=True)
class MLPAutoencoderConfig:
    """Widths of the hidden layers of the encoder; the decoder has the same, reversed."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[int, ...] = (400,)
    label_width: int = 16  # numbers that stand for the class


@dataclass(frozen=True)
class MLPGANConfig:
    """Widths of the hidden layers of both players; the defaults are the classic recipe."""

    kind: Literal["mlp"] = "mlp"
    generator: tuple[int, ...] = (256, 512, 1024)
    discriminator: tuple[int, ...] = (1024, 512, 256)
    label_width: int = 16  # numbers that stand for the class


def mlp(widths: Sequence[int], slope: float = 0.0) -> nn.Sequential:
    """Linear layers from widths[0] to widths[-1] with (leaky) rectifiers of the given slope between them."""
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.LeakyReLU(slope) if slope else nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class MLPEncoder(nn.Module):
    """An image (B, C, H, W) and its class -> `outputs` numbers, (B, outputs)."""

    def __init__(self, config: MLPAutoencoderConfig, spec: Spec, outputs: int) -> None:
        super().__init__()
        self.label = LabelEmbedding(spec.classes, config.label_width if spec.classes else 0)
        self.layers = mlp([spec.dims + self.label.width, *config.hidden, outputs])

    def forward(self, images: Tensor, cond: Condition) -> Tensor:
        """(B, outputs)."""
        return self.layers(torch.cat([images.flatten(1), self.label(cond, images)], dim=1))


class MLPDecoder(nn.Module):
    """A latent (B, latent) and a class -> `channels` maps of the image's size, (B, channels, H, W)."""

    def __init__(self, config: MLPAutoencoderConfig, spec: Spec, latent: int, channels: int) -> None:
        super().__init__()
        self.label = LabelEmbedding(spec.classes, config.label_width if spec.classes else 0)
        self.shape = (channels, spec.size, spec.size)
        self.layers = mlp([latent + self.label.width, *reversed(config.hidden), channels * spec.size**2])

    def forward(self, z: Tensor, cond: Condition) -> Tensor:
        """(B, channels, H, W), any real number."""
        return self.layers(torch.cat([z, self.label(cond, z)], dim=1)).unflatten(1, self.shape)


class MLPGenerator(nn.Module):
    """The classic generator: z (B, latent) -> 256 -> 512 -> 1024 -> C*H*W, with ReLU, and Tanh at the end.

    2-D points are not bounded, so for them the last layer stays linear.
    """

    def __init__(self, config: MLPGANConfig, spec: Spec, latent: int) -> None:
        super().__init__()
        self.label = LabelEmbedding(spec.classes, config.label_width if spec.classes else 0)
        self.shape = spec.shape
        self.layers = mlp([latent + self.label.width, *config.generator, spec.dims])
        self.last = nn.Tanh() if spec.levels else nn.Identity()

    def forward(self, z: Tensor, cond: Condition) -> Tensor:
        """Images (B, C, H, W)."""
        return self.last(self.layers(torch.cat([z, self.label(cond, z)], dim=1))).unflatten(1, self.shape)


class MLPDiscriminator(nn.Module):
    """The classic discriminator: C*H*W -> 1024 -> 512 -> 256 -> 1 with LeakyReLU(0.2).

    It returns the logit; the sigmoid is part of the loss, where it is numerically safe.
    """

    def __init__(self, config: MLPGANConfig, spec: Spec) -> None:
        super().__init__()
        self.label = LabelEmbedding(spec.classes, config.label_width if spec.classes else 0)
        self.layers = mlp([spec.dims + self.label.width, *config.discriminator, 1], slope=0.2)

    def forward(self, images: Tensor, cond: Condition) -> Tensor:
        """Logits (B,): positive where the image looks real."""
        return self.layers(torch.cat([images.flatten(1), self.label(cond, images)], dim=1)).squeeze(1)
