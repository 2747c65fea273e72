"""The generator and discriminator of DCGAN (Radford, Metz and Chintala 2016), conditional on a class.

"Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks", section 3 and figure 1:
transposed 4x4 convolutions of stride two, batch norm, no bias, ReLU up and LeakyReLU(0.2) down, weights from
normal(0, 0.02). The class enters the generator beside z, and the discriminator by projection (Miyato and Koyama 2018,
"cGANs with Projection Discriminator"), so without labels exactly the paper's networks remain.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from generama.core import Condition, Spec
from generama.nets.convnet import halvings
from generama.nets.embeddings import LabelEmbedding


@dataclass(frozen=True)
class DCGANConfig:
    """Channels at half the image's resolution; they double with each further halving (the paper: 128 up to 1024)."""

    kind: Literal["dcgan"] = "dcgan"
    width: int = 32
    label_width: int = 16  # numbers that stand for the class, beside z


class DCGANGenerator(nn.Module):
    """z (B, latent) and a class -> images (B, C, H, W) in (-1, 1)."""

    def __init__(self, config: DCGANConfig, spec: Spec, latent: int) -> None:
        super().__init__()
        times, start = halvings(spec.size)
        channels = [*(config.width * 2**i for i in reversed(range(times))), spec.channels]
        self.shape = (channels[0], start, start)
        self.label = LabelEmbedding(spec.classes, config.label_width if spec.classes else 0)
        self.project = nn.Linear(latent + self.label.width, channels[0] * start**2, bias=False)
        layers: list[nn.Module] = []
        for into, out in pairwise(channels):
            layers += [nn.BatchNorm2d(into), nn.ReLU(), nn.ConvTranspose2d(into, out, 4, 2, 1, bias=False)]
        self.layers = nn.Sequential(*layers, nn.Tanh())
        self.apply(start_small)

    def forward(self, z: Tensor, cond: Condition) -> Tensor:
        """Images (B, C, H, W)."""
        start = self.project(torch.cat([z, self.label(cond, z)], dim=1)).unflatten(1, self.shape)
        return self.layers(start).contiguous()


class DCGANDiscriminator(nn.Module):
    """Images (B, C, H, W) and their classes -> logits (B,)."""

    def __init__(self, config: DCGANConfig, spec: Spec) -> None:
        super().__init__()
        times, start = halvings(spec.size)
        channels = [spec.channels, *(config.width * 2**i for i in range(times))]
        layers: list[nn.Module] = []
        for into, out in pairwise(channels):
            norm = [nn.BatchNorm2d(out)] if layers else []  # none after the first convolution: section 3
            layers += [nn.Conv2d(into, out, 4, 2, 1, bias=False), *norm, nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.features = channels[-1] * start**2
        self.real = nn.Linear(self.features, 1, bias=False)  # the paper's last convolution: it spans the whole map
        self.label = LabelEmbedding(spec.classes, self.features if spec.classes else 0)
        self.apply(start_small)
        if self.label.table is not None:
            nn.init.normal_(self.label.table.weight, 0.0, 0.02)

    def forward(self, images: Tensor, cond: Condition) -> Tensor:
        """Logits (B,): w . phi(x) + e(y) . phi(x), positive where the image looks real and of its class."""
        phi = self.layers(images).flatten(1)
        logits = self.real(phi).squeeze(1)
        return logits if self.label.table is None else logits + (self.label(cond, phi) * phi).sum(1)


def start_small(module: nn.Module) -> None:
    """Section 3: weights from normal(0, 0.02); batch norm starts at gain normal(1, 0.02), as in the authors' code."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    if isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
