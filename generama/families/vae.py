"""A variational autoencoder: an encoder, a decoder, and a bound on the likelihood that both climb.

Kingma and Welling (2014), "Auto-Encoding Variational Bayes"; conditional: Sohn, Lee and Yan (2015), "Learning
Structured Output Representation using Deep Conditional Generative Models". The discretised logistic likelihood of
8-bit images is that of Kingma et al. (2016), "Improved Variational Inference with Inverse Autoregressive Flow".

Letters: x an image, y its class, z its latent; q(z|x,y) = N(mean, exp(log_var)) the encoder, p(x|z,y) the decoder,
p(z|y) the prior: N(0, 1) without classes, and with them a Gaussian of its own for each class, learned (Sohn et al.,
section 4.1). The bound (equation 3 of the paper) is E_q[log p(x|z,y)] - KL(q(z|x,y) || p(z|y)), in nats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from generama.core import Batch, Condition, Estimate, Finding, Noise, Player, Rng, Spec, wish
from generama.errors import NotDefined, UsageError
from generama.families.textbook import Claim, Textbook
from generama.nets.convnet import ConvAutoencoderConfig, ConvDecoder, ConvEncoder
from generama.nets.embeddings import LabelEmbedding
from generama.nets.mlp import MLPAutoencoderConfig, MLPDecoder, MLPEncoder

ACTIVE = 0.01  # variance of the posterior's mean over pictures, above which a latent is in use (Burda et al. 2016, 5.2)
FEW = 0.5  # share of the latents in use, below which the others are worth a word
SILENT = 0.1  # nats that all latents together say of a picture: less is nothing
SMALLEST_LOG_SCALE = -7.0  # about a tenth of one level of 256: no density needs to be narrower


@dataclass(frozen=True)
class VAEConfig:
    """A VAE: its networks, its latent, and what its decoder believes of a pixel."""

    kind: Literal["vae"] = "vae"
    net: MLPAutoencoderConfig | ConvAutoencoderConfig = field(default_factory=ConvAutoencoderConfig)
    latent: int = 16
    likelihood: Literal["logistic", "bernoulli"] = "logistic"  # of images; points (no levels) are always Gaussian
    beta: float = 1.0  # weight of the KL in the loss (Higgins et al. 2017); log_prob is always the bound itself
    conditional: bool = True  # False: labels are ignored


class VAE(nn.Module):
    """The family; `VAE(config, spec)`."""

    likelihood: Estimate = "bound"
    dequantisation = "none"  # the logistic has a mass on each level
    ailments = ("posterior collapse, and latents that are not used",)
    textbook = Textbook(
        stability=Claim("stable: one loss, minimised", 3),
        sampling_speed=Claim("fast: one pass of the decoder", 3),
        quality=Claim("blurred", 1),
        diversity=Claim("covers the data", 3),
        training_cost=Claim("low", 3),
        likelihood="bound",
        latent_space="small and smooth, with an encoder",
        difficulty="posterior collapse: latents that the decoder ignores",
        ailments=("posterior-collapse", "unused-latents"),
    )

    def __init__(self, config: VAEConfig, spec: Spec) -> None:
        super().__init__()
        self.config = config
        self.spec = spec if config.conditional else replace(spec, classes=0)
        self.density = config.likelihood if spec.levels else "gaussian"
        maps = spec.channels if self.density == "bernoulli" else 2 * spec.channels  # logits; or mean and log-scale
        self.prior_of = LabelEmbedding(self.spec.classes, 2 * config.latent)  # zeros without classes: N(0, 1)
        if self.prior_of.table is not None:
            nn.init.zeros_(self.prior_of.table.weight)
        if isinstance(config.net, MLPAutoencoderConfig):
            self.encoder: nn.Module = MLPEncoder(config.net, self.spec, 2 * config.latent)
            self.decoder: nn.Module = MLPDecoder(config.net, self.spec, config.latent, maps)
        else:
            self.encoder = ConvEncoder(config.net, self.spec, 2 * config.latent)
            self.decoder = ConvDecoder(config.net, self.spec, config.latent, maps)

    def players(self) -> Sequence[Player]:
        """One player: encoder and decoder learn together."""
        return (Player("vae", self, self.loss),)

    def loss(self, batch: Batch, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """The negative bound, averaged over the batch, nats per image; the KL weighted by beta."""
        mean, log_var = self.encode(batch.images, batch.cond)
        z = reparameterise(mean, log_var, noise.normal(self.config.latent))
        log_likelihood = self.log_likelihood(batch.images, z, batch.cond).mean()
        divergence = kl(mean, log_var, *self.prior(batch.cond, mean)).mean()
        extras = {
            "reconstruction": -log_likelihood,
            "kl": divergence,
            "active_units": (mean.var(0, correction=0) > 0.01)
            .sum()
            .float(),  # Burda et al. (2016), section 5.2, on this batch
        }
        return self.config.beta * divergence - log_likelihood, {name: value.detach() for name, value in extras.items()}

    def encode(self, images: Tensor, cond: Condition) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x,y), each (B, latent)."""
        if self.spec.classes and cond.label is None:
            raise UsageError("this model was trained with labels, so it needs the label of each image")
        mean, log_var = self.encoder(images, cond).chunk(2, dim=1)
        return mean, log_var

    def prior(self, cond: Condition, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of p(z|y), each (B, latent) for the B rows of `like`."""
        mean, log_var = self.prior_of(cond, like).chunk(2, dim=1)
        return mean, log_var

    def log_likelihood(self, images: Tensor, z: Tensor, cond: Condition) -> Tensor:
        """log p(x|z,y), (B,) nats; with "bernoulli" on grey values minus the cross-entropy, which is no probability."""
        maps = self.decoder(z, cond)
        if self.density == "bernoulli":
            return log_bernoulli(images, maps)
        mean, log_scale = maps.chunk(2, dim=1)
        if self.density == "gaussian":
            return log_gaussian(images, mean, log_scale)
        return log_discretised_logistic(images, mean, log_scale, self.spec.levels)

    def log_prob(self, images: Tensor, cond: Condition | None = None) -> Tensor:
        """The bound with one draw of z, (B,) nats per image: a lower bound on log p(x|y) in expectation."""
        if self.density == "bernoulli" and self.spec.levels != 2:
            raise NotDefined(
                "a Bernoulli likelihood knows black and white only, so a grey image has no probability under it; "
                "train with --family.likelihood logistic (or the recipe vae)"
            )
        cond = cond or Condition()
        mean, log_var = self.encode(images, cond)
        z = reparameterise(mean, log_var, torch.randn_like(mean))
        return self.log_likelihood(images, z, cond) - kl(mean, log_var, *self.prior(cond, mean))

    @torch.no_grad()
    def sample(self, rng: Rng, cond: Condition | None = None, *, temperature: float = 1.0) -> Tensor:
        """The mean of p(x|z,y) at z ~ p(z|y), (len(rng), C, H, W); `temperature` scales the spread of z: 0 is typical.

        Of the logistic: the mean before its edges are cut, which is also its likeliest value, and sharper.
        """
        cond = wish(cond, rng, self.spec)
        noise = rng.normal(self.config.latent)
        mean, log_var = self.prior(cond, noise)
        maps = self.decoder(mean + temperature * (0.5 * log_var).exp() * noise, cond)
        if self.density == "bernoulli":
            return 2 * maps.sigmoid() - 1
        mean, _ = maps.chunk(2, dim=1)
        return mean if self.density == "gaussian" else mean.clamp(-1, 1)

    def evaluations(self, **options: Any) -> int:
        """Sequential network evaluations for one image: the decoder, once."""
        return 1

    def examine(self, batch: Batch, noise: Noise, log: Sequence[Mapping[str, float]]) -> Sequence[Finding]:
        """Latents that say nothing of the picture: measured against the prior of its class, which knows the class."""
        mean, log_var = self.encode(batch.images, batch.cond)
        prior_mean, prior_log_var = self.prior(batch.cond, mean)
        told = kl(mean, log_var, prior_mean, prior_log_var).mean().item()
        spread = ((mean - prior_mean) * (-0.5 * prior_log_var).exp()).var(0, correction=0)  # (latent,), prior's is 1
        used, count = int((spread > ACTIVE).sum()), len(spread)
        seen = f"{used} of {count} latents vary with the picture (variance above {ACTIVE:g}; the largest: "
        seen += f"{spread.max():.2g}), and tell {told:.2g} nats of it"
        if used == 0 or told < SILENT:
            title = "The latents say nothing of the picture (posterior collapse)"
            advice = (
                f"lower --family.beta (now {self.config.beta:g}); train longer; a weaker decoder has to ask the latents"
            )
            return [Finding("posterior-collapse", "problem", title, seen, advice)]
        if used <= FEW * count:
            advice = (
                "no harm in itself: a smaller --family.latent does the same; a lower --family.beta uses more of them"
            )
            return [Finding("unused-latents", "note", "Many latents are not used", seen, advice)]
        return []


def reparameterise(mean: Tensor, log_var: Tensor, eps: Tensor) -> Tensor:
    """z = mean + std * eps with eps ~ N(0, 1), all (B, latent): a draw through which gradients flow (section 2.4)."""
    return mean + (0.5 * log_var).exp() * eps


def kl(mean: Tensor, log_var: Tensor, prior_mean: Tensor, prior_log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(prior_mean, exp(prior_log_var))) of (B, latent), (B,) nats.

    With prior_mean = prior_log_var = 0 it is appendix B of the paper.
    """
    ratio = log_var - prior_log_var
    distance = (mean - prior_mean) ** 2 * (-prior_log_var).exp()
    return 0.5 * (distance + ratio.exp() - 1 - ratio).sum(1)


def log_bernoulli(images: Tensor, logits: Tensor) -> Tensor:
    """Minus the binary cross-entropy of images scaled from [-1, 1] to [0, 1], (B,) nats."""
    return -binary_cross_entropy_with_logits(logits, (images + 1) / 2, reduction="none").flatten(1).sum(1)


def log_gaussian(images: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log N(x; mean, exp(log_scale)^2), (B,) nats: a density."""
    log_scale = log_scale.clamp(min=SMALLEST_LOG_SCALE)
    error = (images - mean) * (-log_scale).exp()
    return -(0.5 * error**2 + log_scale + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def log_discretised_logistic(images: Tensor, mean: Tensor, log_scale: Tensor, levels: int = 256) -> Tensor:
    """log P of the integer level of each pixel, (B,) nats: the logistic's mass on the level's cell (2016, section 5).

    The cell of a level is half a level wide to both sides; the cells of the darkest and the brightest level reach to
    infinity, so the probabilities of all levels sum to one. With s the sigmoid and a > b the cell's standardised ends,
    s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)): exact, and free of the cancellation of the difference.
    """
    log_scale = log_scale.clamp(min=SMALLEST_LOG_SCALE)
    inverse = (-log_scale).exp()
    half = 1.0 / (levels - 1)
    below = logsigmoid((images - mean + half) * inverse)  # log of the mass below the cell's upper end
    above = logsigmoid((mean - images + half) * inverse)  # log of the mass above its lower end
    inside = below + above + torch.log(-torch.expm1(-2 * half * inverse))
    darkest, brightest = images < half - 1, images > 1 - half
    return torch.where(darkest, below, torch.where(brightest, above, inside)).flatten(1).sum(1)
