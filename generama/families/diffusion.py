"""Gaussian diffusion: learn to undo noise, one step of which is easy (Sohl-Dickstein et al. 2015; Ho et al. 2020).

One family for DDPM, EDM and rectified flow: they differ in the formulation alone, and share networks, samplers and
guidance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from generama.core import Batch, Condition, Estimate, Noise, Player, Process, Rng, Spec, wish
from generama.errors import Diverged, NotDefined, UsageError
from generama.families.textbook import Claim, Textbook
from generama.gaussian.formulations import (
    DDPM,
    Formulation,
    Velocity,
    column,
    loss,
    loss_at,
    noised,
    read,
)
from generama.gaussian.guidance import guided, guided_by_classifier, guided_by_worse
from generama.gaussian.likelihood import Terms, bound_by_terms, variational_bound
from generama.gaussian.ode_likelihood import log_probability
from generama.gaussian.options import Sampling
from generama.gaussian.samplers import clipped, foreseen, recorded, start
from generama.gaussian.schedules import Schedule
from generama.nets.attention_unet import AttentionUNet, AttentionUNetConfig
from generama.nets.dit import DiT, DiTConfig
from generama.nets.noisy_classifier import NoisyClassifier
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
    classifier: int | None = None  # width of a classifier of noisy images to guide by, where the data has classes
    likelihood: Literal["bound", "ode"] = "bound"  # variational, or by the probability-flow ODE, as always of points


class Diffusion(nn.Module):
    """A denoising network, read as a velocity by its formulation."""

    # Guidance and clipping pull many noises to one image.
    traceable: Mapping[str, Any] = {
        "sampler": "heun",
        "steps": 50,
        "eta": 0.0,
        "guidance": 1.0,
        "clip": False,
        "classifier_guidance": 0.0,
        "autoguidance": 1.0,
    }
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
        width = config.classifier if self.spec.classes else None
        self.classifier = None if width is None else NoisyClassifier(width, self.spec)
        self.worse: Callable[[Condition], Velocity] | None = None
        ode = config.likelihood == "ode" or not spec.levels
        self.likelihood: Estimate = "probability-flow ODE" if ode else "bound"
        # The last step of the bound has a mass on each level.
        self.dequantisation: Literal["none", "uniform"] = "uniform" if ode and spec.levels else "none"

    def players(self) -> Sequence[Player]:
        """The denoiser, and the classifier where there is one: each learns alone."""
        denoiser = Player("denoiser", self.net, self._loss)
        if self.classifier is None:
            return [denoiser]
        return [denoiser, Player("classifier", self.classifier, self._classifier_loss)]

    def _loss(self, batch: Batch, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        x0, label = batch.images, batch.cond.label
        cond = Condition()
        if self.spec.classes and label is not None:
            cond = Condition(label, keep=noise.uniform() >= self.config.drop)
        eps = coupled_noise(batch) if self.config.coupled else None
        return loss(self.formulation, lambda x, time: self.net(x, time, cond), x0, noise, eps).mean(), {}

    def _classifier_loss(self, batch: Batch, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        assert batch.cond.label is not None
        y, t, _ = noised(self.formulation, batch.images, noise)
        return -self._log_probability(y, t, batch.cond.label).mean(), {}

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
        classifier_guidance: float = Sampling.classifier_guidance,
        autoguidance: float = Sampling.autoguidance,
    ) -> Tensor:
        """Images (B, C, H, W): noise at the first time, integrated to t = 0 in `steps` steps of a time grid.

        `eta` is the share of fresh noise of the sampler ddim. `guidance` 1 is the plain conditional model (0:
        unconditional), and applies to the times t in `interval`; `clip` keeps each image estimate in [-1, 1].
        `classifier_guidance` is the scale of the gradient of the run's own classifier, 0: none, which with `guidance`
        0 leads an unconditional model; `autoguidance` 1 is the plain model, and more leads away from an earlier one.
        """
        bounds = (interval[0], interval[1])
        options = Sampling(steps, sampler, grid, eta, guidance, bounds, clip, classifier_guidance, autoguidance)
        return self._integrate(rng, cond, options, lambda velocity: velocity)

    @torch.no_grad()
    def trajectory(self, rng: Rng, cond: Condition | None = None, **options: Any) -> Tensor:
        """The noisy image at every network call, then the sample: (calls + 1, B, C, H, W)."""
        states: list[Tensor] = []
        images = self._integrate(rng, cond, Sampling(**options), partial(recorded, states=states))
        return torch.stack([*states, images])

    @torch.no_grad()
    def estimates(self, rng: Rng, cond: Condition | None = None, **options: Any) -> Tensor:
        """The image x0 = y - t v that each network call (guided, clipped) points to: (calls, B, C, H, W)."""
        estimates: list[Tensor] = []
        self._integrate(rng, cond, Sampling(**options), partial(foreseen, estimates=estimates))
        return torch.stack(estimates)

    @torch.no_grad()
    def errors(self, batch: Batch, noise: Noise, t: float) -> tuple[Tensor, Tensor]:
        """Mean squared error of x0 = y - t v, and the loss, of pictures noised to time t, (B,) each."""
        x0, eps = batch.images, noise.normal(*self.spec.shape)
        cond = batch.cond if self.spec.classes else Condition()
        at = torch.full((len(x0),), t, device=x0.device)
        y = torch.lerp(x0, eps, column(at))
        guess = y - column(at) * self.velocity(cond)(y, at)
        learned = loss_at(self.formulation, lambda x, time: self.net(x, time, cond), x0, y, eps, at)
        return (guess - x0).square().mean((1, 2, 3)), learned

    def evaluations(self, **options: Any) -> int | None:
        """Network evaluations per image; guidance by the class or by a worse network costs a second one of each.

        None: adaptive. Only denoisers count: a classifier that guides is called, and differentiated, as often again.
        """
        return Sampling(**options).calls(self.formulation, self.spec.classes > 0)

    @torch.no_grad()
    def log_prob(self, images: Tensor, cond: Condition | None = None) -> Tensor:
        """Nats per image (B,), as `likelihood` says: an unbiased estimate of the variational bound, or of the ODE's.

        The bound is that of a DDPM on its own schedule; the others, which have none, are read on the linear one.
        """
        velocity = self.velocity(self._told(cond))
        if self.likelihood == "bound":
            return variational_bound(self._schedule(), velocity, images, self.spec.levels).float()
        try:
            return log_probability(velocity, images, self.spec.levels, self.formulation.first).float()
        except Diverged as error:
            raise NotDefined("the probability-flow ODE is not integrated after 1,000 steps; train longer") from error

    @torch.no_grad()
    def bound_by_terms(
        self, images: Tensor, cond: Condition | None = None, steps: Sequence[int] | None = None
    ) -> Terms:
        """What each step of the variational bound costs of these images, bits per dimension; steps None: all of them.

        Raises NotDefined for points, which have no bound.
        """
        if not self.spec.levels:
            raise NotDefined("the bound is that of images with levels, and points have none")
        velocity = self.velocity(self._told(cond))
        return bound_by_terms(self._schedule(), velocity, images, self.spec.levels, steps)

    def velocity(self, cond: Condition) -> Velocity:
        """The network under a condition, as a velocity in straight coordinates."""
        return read(self.formulation, lambda x, time: self.net(x, time, cond))

    def process(self, rng: Rng, cond: Condition, **options: Any) -> Process:
        """The way from noise to image as `sample` goes it under these options; without a label, of no class."""
        o = Sampling(**options)
        cond = cond if cond.label is None else wish(cond, rng, self.spec)
        times = o.times(self.formulation).to(rng.device, rng.dtype)
        velocity = self._guided(cond, o)
        return Process(o.integrator(), velocity, times, self.formulation.last, o.sampler == "ancestral" or o.eta > 0)

    def guide_by(self, worse: Diffusion) -> None:
        """Let another state of this model be what `autoguidance` leads away from."""
        self.worse = worse.velocity  # not the module itself, whose weights would become this one's

    def _told(self, cond: Condition | None) -> Condition:
        """What of a condition the denoiser is told."""
        return cond if cond is not None and self.spec.classes else Condition()

    def _schedule(self) -> Schedule:
        return self.formulation.schedule if isinstance(self.formulation, DDPM) else Schedule()

    def _log_probability(self, y: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """log p(label | y) by the classifier, (B,)."""
        assert self.classifier is not None
        t = t.expand(len(y))
        seen = self.formulation.enter(y, column(t))
        return self.classifier.log_probability(seen, self.formulation.label(t), label)

    def _guided(self, cond: Condition, options: Sampling) -> Velocity:
        """The velocity with all guidance that is asked for."""
        velocity = guided(lambda y, t, c: self.velocity(c)(y, t), cond, options.guidance, options.interval)
        if options.autoguidance != 1:
            if self.worse is None:
                raise UsageError("autoguidance needs an earlier state of the run: add --earlier 0.25, a share of it")
            velocity = guided_by_worse(velocity, self.worse(cond), options.autoguidance)
        if options.classifier_guidance:
            if self.classifier is None or cond.label is None:
                raise UsageError(
                    "no classifier learned beside this model to guide it; train one: --family.classifier 16"
                )
            velocity = guided_by_classifier(velocity, self._log_probability, cond.label, options.classifier_guidance)
        return clipped(velocity) if options.clip and self.spec.levels else velocity

    def _integrate(
        self, rng: Rng, cond: Condition | None, options: Sampling, watched: Callable[[Velocity], Velocity]
    ) -> Tensor:
        way = self.process(rng, wish(cond, rng, self.spec), **vars(options))
        noise = start(way.times, rng, self.spec.shape)
        images = way.sampler(watched(way.velocity), noise, way.times, rng)
        return images.clamp(-1, 1) if self.spec.levels else images


def coupled_noise(batch: Batch) -> Tensor:
    """The noise that the images were drawn from, (B, C, H, W): seeds give it again, so that it need not be kept."""
    if batch.seeds is None:
        raise UsageError("these data have no couplings of noise and image; generama reflow RUN makes some and trains")
    return Rng(batch.seeds.tolist(), batch.images.device).normal(*batch.images.shape[1:])
