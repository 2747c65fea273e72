"""Gaussian diffusion: learn to undo noise, one step of which is easy (Sohl-Dickstein et al. 2015; Ho et al. 2020).

One family for DDPM and rectified flow: they differ in the formulation alone, and share networks, samplers and guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from generama.core import Batch, Condition, Estimate, Noise, Player, Rng, Spec, wish
from generama.errors import NotDefined, UsageError, unknown
from generama.families.textbook import Claim, Textbook
from generama.gaussian.formulations import DDPM, Formulation
from generama.gaussian.guidance import guided
from generama.gaussian.likelihood import variational_bound
from generama.gaussian.samplers import SAMPLERS, calls, clipped, recorded
from generama.nets.attention_unet import AttentionUNet, AttentionUNetConfig
from generama.nets.unet import UNet, UNetConfig


@dataclass(frozen=True)
class DiffusionConfig:
    """A formulation, a network, and how often the label is dropped so that guidance can be used."""

    kind: Literal["diffusion"] = "diffusion"
    formulation: Formulation = field(default_factory=DDPM)
    net: UNetConfig | AttentionUNetConfig = field(default_factory=UNetConfig)
    conditional: bool = True
    drop: float = 0.1  # share of training labels replaced by "no class" (Ho & Salimans 2022, algorithm 1)


class Diffusion(nn.Module):
    """A denoising network, read as a velocity by its formulation."""

    likelihood: Estimate = "bound"
    dequantisation = "none"  # the last step has a mass on each level
    textbook = Textbook(
        stability=Claim("stable: regression onto noise", 3),
        sampling_speed=Claim("slow: many passes for an image", 1),
        quality=Claim("the best", 3),
        diversity=Claim("covers the data", 3),
        training_cost=Claim("high", 1),
        likelihood="bound",
        latent_space="as large as the image, without meaning of its own",
        difficulty="many steps to sample, and long training",
        ailments=("under-trained",),
    )

    def __init__(self, config: DiffusionConfig, spec: Spec) -> None:
        super().__init__()
        self.config = config
        self.spec = spec if config.conditional else replace(spec, classes=0)
        self.formulation = config.formulation
        if isinstance(config.net, AttentionUNetConfig):
            self.net: nn.Module = AttentionUNet(config.net, self.spec)
        else:
            self.net = UNet(config.net, self.spec)

    def players(self) -> Sequence[Player]:
        """The denoiser, alone."""
        return [Player("denoiser", self.net, self._loss)]

    def _loss(self, batch: Batch, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        x0, label = batch.images, batch.cond.label
        cond = Condition()
        if self.spec.classes and label is not None:
            cond = Condition(label, keep=noise.uniform() >= self.config.drop)
        return self.formulation.loss(lambda x, time: self.net(x, time, cond), x0, noise).mean(), {}

    @torch.no_grad()
    def sample(
        self,
        rng: Rng,
        cond: Condition | None = None,
        *,
        steps: int = 50,
        sampler: str = "ddim",
        guidance: float = 1.0,
        clip: bool = True,
    ) -> Tensor:
        """Images (B, C, H, W): noise at the first time, integrated to t = 0 in `steps` steps.

        `guidance` 1 is the plain conditional model (0: unconditional); `clip` keeps each image estimate in [-1, 1].
        """
        return self._integrate(rng, cond, [], steps, sampler, guidance, clip)

    @torch.no_grad()
    def trajectory(self, rng: Rng, cond: Condition | None = None, **options: Any) -> Tensor:
        """The noisy image at every network call, then the sample: (calls + 1, B, C, H, W)."""
        states: list[Tensor] = []
        settled = {"steps": 50, "sampler": "ddim", "guidance": 1.0, "clip": True} | options
        images = self._integrate(rng, cond, states, **settled)
        return torch.stack([*states, images])

    def evaluations(self, *, steps: int = 50, sampler: str = "ddim", guidance: float = 1.0, clip: bool = True) -> int:
        """Network evaluations per image; guidance costs a second one in each step."""
        return calls(sampler, steps) * (1 if guidance in (0, 1) or not self.spec.classes else 2)

    @torch.no_grad()
    def log_prob(self, images: Tensor, cond: Condition | None = None) -> Tensor:
        """An unbiased estimate of the variational bound, nats of the 8-bit images (B,); DDPM alone has one."""
        if not isinstance(self.formulation, DDPM):
            raise NotDefined("rectified flow has no variational bound; the likelihood of its ODE is not computed yet")
        if not self.spec.levels:
            raise NotDefined("the bound is that of images with levels, and points have none")
        cond = Condition() if cond is None or not self.spec.classes else cond
        return variational_bound(
            self.formulation, lambda x, time: self.net(x, time, cond), images, self.spec.levels
        ).float()

    def _integrate(
        self,
        rng: Rng,
        cond: Condition | None,
        states: list[Tensor],
        steps: int,
        sampler: str,
        guidance: float,
        clip: bool,
    ) -> Tensor:
        if sampler not in SAMPLERS:
            raise UsageError(unknown("sampler", sampler, SAMPLERS))
        if steps < 1:
            raise UsageError(f"steps must be at least 1, not {steps}")
        cond = wish(cond, rng, self.spec)
        velocity = guided(self._velocity, cond, guidance)
        if clip and self.spec.levels:
            velocity = clipped(velocity)
        times = self.formulation.grid(steps).to(rng.device, rng.dtype)
        noise = rng.normal(*self.spec.shape) * torch.hypot(1 - times[0], times[0])
        images = SAMPLERS[sampler](recorded(velocity, states), noise, times, rng)
        return images.clamp(-1, 1) if self.spec.levels else images

    def _velocity(self, y: Tensor, t: Tensor, cond: Condition) -> Tensor:
        return self.formulation.velocity(lambda x, time: self.net(x, time, cond), y, t)
