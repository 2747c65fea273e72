"""Gaussian diffusion: learn to undo noise, one step of which is easy (Sohl-Dickstein et al. 2015; Ho et al. 2020).

One family for DDPM, EDM and rectified flow: they differ in the formulation alone, and share networks, samplers and
guidance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from generama.core import Batch, Condition, Estimate, Noise, Player, Rng, Spec, wish
from generama.errors import NotDefined, UsageError, unknown
from generama.families.textbook import Claim, Textbook
from generama.gaussian.formulations import DDPM, Formulation, Velocity, loss, read
from generama.gaussian.grids import GRIDS
from generama.gaussian.guidance import ALWAYS, guided
from generama.gaussian.likelihood import variational_bound
from generama.gaussian.samplers import SAMPLERS, Sampler, asked, clipped, ddim, recorded
from generama.gaussian.schedules import Schedule
from generama.nets.attention_unet import AttentionUNet, AttentionUNetConfig
from generama.nets.dit import DiT, DiTConfig
from generama.nets.unet import UNet, UNetConfig

NETWORKS: dict[type, Callable[..., nn.Module]] = {UNetConfig: UNet, AttentionUNetConfig: AttentionUNet, DiTConfig: DiT}


@dataclass(frozen=True)
class DiffusionConfig:
    """A formulation, a network, and how often the label is dropped so that guidance can be used."""

    kind: Literal["diffusion"] = "diffusion"
    formulation: Formulation = field(default_factory=DDPM)
    net: UNetConfig | AttentionUNetConfig | DiTConfig = field(default_factory=UNetConfig)
    conditional: bool = True
    drop: float = 0.1  # share of training labels replaced by "no class" (Ho & Salimans 2022, algorithm 1)
    coupled: bool = False  # learn from noise and the image that a teacher made of it: reflow (Liu et al. 2022)


@dataclass(frozen=True)
class Sampling:
    """The options of `Diffusion.sample`, checked."""

    steps: int = 50
    sampler: str = "ddim"
    grid: str = "uniform"
    eta: float = 0.0
    guidance: float = 1.0
    interval: tuple[float, float] = ALWAYS
    clip: bool = True

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UsageError(unknown("sampler", self.sampler, SAMPLERS))
        if self.grid not in GRIDS:
            raise UsageError(unknown("grid", self.grid, GRIDS))
        if self.steps < 1:
            raise UsageError(f"steps must be at least 1, not {self.steps}")
        if self.eta and self.sampler != "ddim":
            raise UsageError(f"eta is an option of the sampler ddim; {self.sampler} has none")

    def times(self, formulation: Formulation) -> Tensor:
        """The grid, (steps + 1,) float64."""
        return GRIDS[self.grid](formulation, self.steps)

    def integrator(self) -> Sampler:
        """The sampler, its eta settled."""
        return partial(ddim, eta=self.eta) if self.eta else SAMPLERS[self.sampler]


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
        self.net = NETWORKS[type(config.net)](config.net, self.spec)

    def players(self) -> Sequence[Player]:
        """The denoiser, alone."""
        return [Player("denoiser", self.net, self._loss)]

    def _loss(self, batch: Batch, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        x0, label = batch.images, batch.cond.label
        cond = Condition()
        if self.spec.classes and label is not None:
            cond = Condition(label, keep=noise.uniform() >= self.config.drop)
        eps = coupled_noise(batch) if self.config.coupled else None
        return loss(self.formulation, lambda x, time: self.net(x, time, cond), x0, noise, eps).mean(), {}

    @torch.no_grad()
    def sample(
        self,
        rng: Rng,
        cond: Condition | None = None,
        *,
        steps: int = Sampling.steps,
        sampler: str = Sampling.sampler,
        grid: str = Sampling.grid,
        eta: float = Sampling.eta,
        guidance: float = Sampling.guidance,
        interval: tuple[float, float] = Sampling.interval,
        clip: bool = Sampling.clip,
    ) -> Tensor:
        """Images (B, C, H, W): noise at the first time, integrated to t = 0 in `steps` steps of a time grid.

        `eta` is the share of fresh noise of the sampler ddim. `guidance` 1 is the plain conditional model (0:
        unconditional), and applies to the times t in `interval`; `clip` keeps each image estimate in [-1, 1].
        """
        options = Sampling(steps, sampler, grid, eta, guidance, (interval[0], interval[1]), clip)
        return self._integrate(rng, cond, options, [])

    @torch.no_grad()
    def trajectory(self, rng: Rng, cond: Condition | None = None, **options: Any) -> Tensor:
        """The noisy image at every network call, then the sample: (calls + 1, B, C, H, W)."""
        states: list[Tensor] = []
        images = self._integrate(rng, cond, Sampling(**options), states)
        return torch.stack([*states, images])

    def evaluations(self, **options: Any) -> int | None:
        """Network evaluations per image; guidance costs a second one of each that it touches. None: adaptive."""
        o = Sampling(**options)
        times = asked(o.sampler, o.times(self.formulation))
        if times is None:
            return None
        if o.guidance == 1 or not self.spec.classes or (o.guidance == 0 and tuple(o.interval) == ALWAYS):
            return len(times)
        return len(times) + int(((o.interval[0] <= times) & (times <= o.interval[1])).sum())

    @torch.no_grad()
    def log_prob(self, images: Tensor, cond: Condition | None = None) -> Tensor:
        """An unbiased estimate of the variational bound, nats of the 8-bit images (B,): of a DDPM on its own schedule.

        The others, which have none of their own, are read on the linear one.
        """
        if not self.spec.levels:
            raise NotDefined("the bound is that of images with levels, and points have none")
        cond = Condition() if cond is None or not self.spec.classes else cond
        schedule = self.formulation.schedule if isinstance(self.formulation, DDPM) else Schedule()
        return variational_bound(schedule, self.velocity(cond), images, self.spec.levels).float()

    def velocity(self, cond: Condition) -> Velocity:
        """The network under a condition, as a velocity in straight coordinates."""
        return read(self.formulation, lambda x, time: self.net(x, time, cond))

    def _integrate(self, rng: Rng, cond: Condition | None, options: Sampling, states: list[Tensor]) -> Tensor:
        cond = wish(cond, rng, self.spec)
        times = options.times(self.formulation).to(rng.device, rng.dtype)
        velocity = guided(lambda y, t, c: self.velocity(c)(y, t), cond, options.guidance, options.interval)
        if options.clip and self.spec.levels:
            velocity = clipped(velocity)
        noise = rng.normal(*self.spec.shape) * torch.hypot(1 - times[0], times[0])
        images = options.integrator()(recorded(velocity, states), noise, times, rng)
        return images.clamp(-1, 1) if self.spec.levels else images


def coupled_noise(batch: Batch) -> Tensor:
    """The noise that the images were drawn from, (B, C, H, W): seeds give it again, so that it need not be kept."""
    if batch.seeds is None:
        raise UsageError("these data have no couplings of noise and image; generama reflow RUN makes some and trains")
    return Rng(batch.seeds.tolist(), batch.images.device).normal(*batch.images.shape[1:])
