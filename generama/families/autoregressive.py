"""The gated PixelCNN: an image is drawn pixel by pixel (van den Oord et al. 2016, arXiv:1606.05328).

p(x) = prod_i p(x_i | x_1 ... x_{i-1}), each factor a distribution over all levels of a pixel, so the likelihood of an
8-bit image is exact: no bound, no dequantisation, no change of variables. The price is a sampler of N * N steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generama.core import Batch, Condition, Estimate, Noise, Player, Rng, Spec, wish
from generama.errors import UsageError
from generama.families.textbook import Claim, Textbook
from generama.nets.pixelcnn import PixelCNN, PixelCNNConfig, generate
from generama.pixels import from_levels, to_levels


@dataclass(frozen=True)
class AutoregressiveConfig:
    """A gated PixelCNN over the levels of every pixel."""

    kind: Literal["autoregressive"] = "autoregressive"
    net: PixelCNNConfig = field(default_factory=PixelCNNConfig)
    conditional: bool = True  # on the class, where the data has classes


class Autoregressive(nn.Module):
    """One player, one loss: the negative log-likelihood."""

    likelihood: Estimate = "exact"
    dequantisation = "none"  # levels are what it predicts
    textbook = Textbook(
        stability=Claim("stable: maximum likelihood", 3),
        sampling_speed=Claim("slow: one step a pixel", 1),
        quality=Claim("good detail, loose layout", 2),
        diversity=Claim("covers the data", 3),
        training_cost=Claim("moderate: all pixels at once", 2),
        likelihood="exact",
        latent_space="none",
        difficulty="pixels must be put in an order, and drawn in it one by one",
    )

    def __init__(self, config: AutoregressiveConfig, spec: Spec) -> None:
        super().__init__()
        if not spec.levels:
            raise UsageError("a PixelCNN predicts the levels of pixels, and points have none; try realnvp")
        self.spec = spec if config.conditional else replace(spec, classes=0)
        self.net = PixelCNN(config.net, self.spec)

    def players(self) -> Sequence[Player]:
        """The network alone."""
        return [Player("pixelcnn", self, self.loss)]

    def loss(self, batch: Batch, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Nats per number (the scale on which learning rates carry over between image sizes)."""
        nats = -self.log_likelihood(batch.images, batch.cond.label).mean() / self.spec.dims
        return nats, {"bits_per_dim": nats.detach() / math.log(2)}

    def log_likelihood(self, images: Tensor, label: Tensor | None) -> Tensor:
        """log p(image | label) in nats, (B,)."""
        level = to_levels(images, self.spec.levels)
        logits = self.net(level, label if self.spec.classes else None)
        return -F.cross_entropy(logits, level, reduction="none").flatten(1).sum(1)

    def log_prob(self, images: Tensor, cond: Condition | None = None) -> Tensor:
        """log P(image | label) in nats, (B,), exact; without a label, the mean over all classes of P, exact as well."""
        label = None if cond is None else cond.label
        if label is None and self.spec.classes:
            every = [torch.full((len(images),), k, device=images.device) for k in range(self.spec.classes)]
            given = torch.stack([self.log_likelihood(images, label) for label in every])
            return given.logsumexp(0) - math.log(self.spec.classes)
        return self.log_likelihood(images, label)

    @torch.no_grad()
    def sample(self, rng: Rng, cond: Condition | None = None, *, temperature: float = 1.0) -> Tensor:
        """Images (B, C, N, N) in [-1, 1]; a temperature below 1 sharpens the distribution of every pixel."""
        if not temperature > 0:
            raise UsageError(f"temperature must be above 0, got {temperature}; try 1.0")
        cond = wish(cond, rng, self.spec)
        uniform = rng.uniform(*self.spec.shape)
        return from_levels(generate(self.net, uniform, cond.label, temperature), self.spec.levels)

    def evaluations(self, **options: Any) -> int:
        """Steps one after the other: one for each pixel (the heads of the channels after the first are not counted)."""
        return self.spec.size**2
