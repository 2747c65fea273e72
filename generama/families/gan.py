"""A generative adversarial network: a generator and a discriminator, two players in the one training loop.

Goodfellow et al. (2014), "Generative Adversarial Nets", algorithm 1 with k = 1; conditional: Mirza and Osindero
(2014), "Conditional Generative Adversarial Nets". The networks are MLPs or those of DCGAN (Radford et al. 2016).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from generama.adversarial import losses
from generama.adversarial.balance import told_apart, unbalanced
from generama.core import Batch, Condition, Finding, Noise, Player, Rng, Spec, wish
from generama.errors import UsageError
from generama.families.textbook import Claim, Textbook
from generama.nets.dcgan import DCGANConfig, DCGANDiscriminator, DCGANGenerator
from generama.nets.mlp import MLPDiscriminator, MLPGANConfig, MLPGenerator


@dataclass(frozen=True)
class GANConfig:
    """A GAN: its networks, its game."""

    kind: Literal["gan"] = "gan"
    net: MLPGANConfig | DCGANConfig = field(default_factory=DCGANConfig)
    latent: int = 100
    loss: Literal["cross-entropy", "hinge"] = "cross-entropy"
    smoothing: float = 0.1  # real labels are 1 - smoothing; cross-entropy only
    generator_turns: int = 1  # generator steps per discriminator step
    conditional: bool = True  # False: labels are ignored


class GAN(nn.Module):
    """The family; `GAN(config, spec)`. Has no likelihood: a GAN is defined by its samples alone."""

    ailments = ("a discriminator too strong or too weak",)
    textbook = Textbook(
        stability=Claim("unstable: two players, no common minimum", 1),
        sampling_speed=Claim("fast: one pass of the generator", 3),
        quality=Claim("sharp", 3),
        diversity=Claim("drops modes", 1),
        training_cost=Claim("moderate", 2),
        likelihood="none",
        latent_space="small and smooth, without an encoder",
        difficulty="balance of the players, and mode collapse",
        ailments=(
            "discriminator-too-strong",
            "discriminator-too-weak",
            "oscillation",
            "mode-collapse",
            "repeated-samples",
            "class-collapse",
            "dropped-classes",
        ),
    )

    def __init__(self, config: GANConfig, spec: Spec) -> None:
        super().__init__()
        self.config = config
        self.spec = spec if config.conditional else replace(spec, classes=0)
        if isinstance(config.net, MLPGANConfig):
            self.generator: nn.Module = MLPGenerator(config.net, self.spec, config.latent)
            self.discriminator: nn.Module = MLPDiscriminator(config.net, self.spec)
        else:
            self.generator = DCGANGenerator(config.net, self.spec, config.latent)
            self.discriminator = DCGANDiscriminator(config.net, self.spec)

    def players(self) -> Sequence[Player]:
        """The discriminator plays first, as in algorithm 1; its weights are never sampled from, so never averaged."""
        return (
            Player("discriminator", self.discriminator, self.discriminator_loss, average=False),
            Player("generator", self.generator, self.generator_loss, turns=self.config.generator_turns),
        )

    def discriminator_loss(self, batch: Batch, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Tell the batch from as many fakes of the same classes."""
        with torch.no_grad():
            images = self.generator(noise.normal(self.config.latent), batch.cond)
        real = self.discriminator(batch.images, batch.cond)
        fake = self.discriminator(images, batch.cond)
        if self.config.loss == "hinge":
            loss = losses.hinge_discriminator(real, fake)
        else:
            loss = losses.cross_entropy_discriminator(real, fake, self.config.smoothing)
        extras = {
            "real_logit": real.mean(),
            "fake_logit": fake.mean(),
            "real_accuracy": (real > 0).float().mean(),
            "fake_accuracy": (fake < 0).float().mean(),
        }
        return loss, {name: value.detach() for name, value in extras.items()}

    def generator_loss(self, batch: Batch, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Make fakes of the batch's classes that the discriminator takes for real; its weights stand still."""
        images = self.generator(noise.normal(self.config.latent), batch.cond)
        fake = self.discriminator(images, batch.cond)
        hinge = self.config.loss == "hinge"
        return (losses.hinge_generator(fake) if hinge else losses.cross_entropy_generator(fake)), {}

    @torch.no_grad()
    def sample(self, rng: Rng, cond: Condition | None = None, *, truncation: float | None = None) -> Tensor:
        """Images (len(rng), C, H, W). `truncation` keeps every |z| below it: less variety for more typical images."""
        cond = wish(cond, rng, self.spec)
        z = rng.normal(self.config.latent)
        return self.generator(z if truncation is None else truncate(z, truncation), cond)

    def evaluations(self, **options: Any) -> int:
        """Sequential network evaluations for one image: the generator, once."""
        return 1

    def examine(self, batch: Batch, noise: Noise, log: Sequence[Mapping[str, float]]) -> Sequence[Finding]:
        """Who was ahead at the end of the training, by the log, and whether the samples can be told from pictures."""
        return unbalanced(log, told_apart(batch.images, self.generator(noise.normal(self.config.latent), batch.cond)))


def truncate(z: Tensor, limit: float) -> Tensor:
    """Standard normal z -> the truncated normal on [-limit, limit] (Brock et al. 2019), of the same shape.

    Each number keeps its quantile in place of being drawn again, F(z) -> F_truncated^-1(F(z)), so a seed remains
    recognisably the same picture at every truncation. In float64, where erf of a real normal draw stays below one.
    """
    if limit <= 0:
        raise UsageError(f"truncation must be positive, got {limit}; try 1.0, or leave it out")
    root = math.sqrt(2.0)
    quantile = torch.erf(z.double() / root) * math.erf(limit / root)  # 2 F - 1
    return (torch.erfinv(quantile) * root).clamp(-limit, limit).to(z.dtype)
