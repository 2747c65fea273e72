"""MeanFlow: a network that knows the average velocity between two times, and so draws in one step (Geng et al. 2025).

"Mean Flows for One-step Generative Modeling", arXiv:2505.13447. It is trained from scratch, without a teacher. The
mathematics is in `gaussian/meanflow.py`; networks are those of diffusion, told t and t - r in place of one time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from generama.core import Batch, Condition, Noise, Player, Rng, Spec, wish
from generama.errors import UsageError
from generama.families.diffusion import NETWORKS
from generama.families.textbook import Claim, Textbook
from generama.gaussian.meanflow import AverageVelocity, Guide, Pairs, jumps, loss
from generama.nets.attention_unet import AttentionUNetConfig
from generama.nets.dit import DiTConfig
from generama.nets.unet import UNetConfig

CLOCK = 10.0  # times run from 0 to 10 in the network: on a scale of 1000 its fastest sine would make du/dt all noise


@dataclass(frozen=True)
class MeanFlowConfig:
    """A network, the pairs of times it learns from, and the guidance that is built in."""

    kind: Literal["meanflow"] = "meanflow"
    net: UNetConfig | AttentionUNetConfig | DiTConfig = field(default_factory=UNetConfig)
    conditional: bool = True
    drop: float = 0.1  # share of training labels replaced by "no class"
    omega: float = 2.0  # guidance that is learned, so that it costs nothing when drawing; 1: none (section 4.2)
    pairs: Pairs = field(default_factory=Pairs)
    power: float = 1.0  # p of the adaptive weight; 0: the plain squared error


class MeanFlow(nn.Module):
    """An average velocity, learned by the identity that ties it to the velocity itself."""

    textbook = Textbook(
        stability=Claim("fairly stable: regression, onto targets that the network itself is part of", 2),
        sampling_speed=Claim("fast: one pass of the network", 3),
        quality=Claim("close to that of many steps", 2),
        diversity=Claim("covers the data", 3),
        training_cost=Claim("high: a derivative in time beside every pass", 1),
        likelihood="none",
        latent_space="as large as the image, without meaning of its own",
        difficulty="long training, for the target is only as good as the network",
        ailments=("under-trained",),
    )

    def __init__(self, config: MeanFlowConfig, spec: Spec) -> None:
        super().__init__()
        self.config = config
        self.spec = spec if config.conditional else replace(spec, classes=0)
        self.net = NETWORKS[type(config.net)](config.net, self.spec, times=2)

    def players(self) -> Sequence[Player]:
        """The network, alone."""
        return [Player("meanflow", self.net, self._loss)]

    def _loss(self, batch: Batch, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        cond = Condition()
        if self.spec.classes and batch.cond.label is not None:
            cond = Condition(batch.cond.label, keep=noise.uniform() >= self.config.drop)
        u, x0 = self.average_velocity(cond), batch.images
        weighted, error = loss(self.config.pairs, u, self.guide(cond), x0, noise, self.config.power)
        return weighted.mean(), {"error": error.mean()}

    def guide(self, cond: Condition) -> Guide:
        """The guided velocity v~ = omega v + (1 - omega) u(y, t, t | no class) (section 4.2).

        Where the class is dropped it is v itself, which v~ would be in the mean, and which strays less.
        """
        label, keep = cond.label, cond.keep
        if label is None or keep is None or self.config.omega == 1:
            return lambda y, t, v: v
        free = self.average_velocity(Condition(label, keep=torch.zeros_like(keep)))

        def guided(y: Tensor, t: Tensor, v: Tensor) -> Tensor:
            with torch.no_grad():
                strong = torch.lerp(free(y, t, t), v, self.config.omega)
            return torch.where(keep.view(-1, 1, 1, 1), strong, v)

        return guided

    def average_velocity(self, cond: Condition) -> AverageVelocity:
        """The network under a condition, as u(y, r, t).

        `forward` is called past `torch.compile`, whose code cannot be differentiated forward in time.
        """

        def u(y: Tensor, r: Tensor, t: Tensor) -> Tensor:
            return self.net.forward(y, CLOCK * torch.stack([t, t - r], 1), cond).to(y.dtype)

        return u

    @torch.no_grad()
    def sample(self, rng: Rng, cond: Condition | None = None, *, steps: int = 1) -> Tensor:
        """Images (B, C, H, W) from noise in one step, or in several equal ones."""
        return self.trajectory(rng, cond, steps=steps)[-1]

    @torch.no_grad()
    def trajectory(self, rng: Rng, cond: Condition | None = None, **options: Any) -> Tensor:
        """The noise, then where each step lands, the sample last: (steps + 1, B, C, H, W)."""
        steps = self.evaluations(**options)
        cond, noise = wish(cond, rng, self.spec), rng.normal(*self.spec.shape)
        times = torch.linspace(1, 0, steps + 1, device=rng.device, dtype=rng.dtype)
        *states, images = noise, *jumps(self.average_velocity(cond), noise, times)
        return torch.stack([*states, images.clamp(-1, 1) if self.spec.levels else images])

    def evaluations(self, *, steps: int = 1) -> int:
        """One a step; guidance costs none."""
        if steps < 1:
            raise UsageError(f"steps must be at least 1, not {steps}")
        return steps
