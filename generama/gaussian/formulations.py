"""How a network is fed, what it learns to say, and how that is read as a velocity in straight coordinates.

Letters: x0 image, eps noise, y = (1 - t) x0 + t eps, v = dy/dt = eps - x0, F the network's answer,
n = sqrt((1 - t)^2 + t^2): variance-preserving formulations see x = y / n = alpha x0 + sigma eps. A formulation is
these few lines; the functions at the end make a velocity and a loss of any of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from generama.core import Noise
from generama.gaussian.schedules import Schedule

Network = Callable[[Tensor, Tensor], Tensor]  # F(image (B, C, H, W), time label (B,) in 0..1000) -> (B, C, H, W)
Velocity = Callable[[Tensor, Tensor], Tensor]  # (y (B, C, H, W), t scalar or (B,)) -> dy/dt


@dataclass(frozen=True)
class RectifiedFlow:
    """F = v (Liu et al. 2022; Lipman et al. 2022), on all t alike, or mostly the middle (Esser et al. 2024).

    "one-step" is t = 1 alone, where one step of Euler's is all there is to learn: distillation (Liu et al.).
    """

    kind: Literal["rectified-flow"] = "rectified-flow"
    times: Literal["uniform", "logit-normal", "one-step"] = "uniform"
    first, last = 1.0, 0.002  # the noisiest time, and the least that a grid in log-sigma ends with before 0

    def draw(self, noise: Noise) -> Tensor:
        """A time to learn from for each image, (B,); logit-normal: the sigmoid of a standard normal number."""
        if self.times == "one-step":
            return torch.ones_like(noise.uniform())
        return noise.uniform() if self.times == "uniform" else noise.normal().sigmoid()

    def enter(self, y: Tensor, t: Tensor) -> Tensor:
        """What the network sees: y itself."""
        return y

    def label(self, t: Tensor) -> Tensor:
        """What the network is told of the time."""
        return 1000 * t

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What it should say: v = eps - x0."""
        return eps - x0

    def velocity(self, F: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """What it said, as a velocity."""
        return F

    def weight(self, t: Tensor) -> Tensor:
        """Of the squared error, (B,)."""
        return torch.ones_like(t)

    def at(self, share: Tensor) -> Tensor:
        """The time after that share of the way from the image (0) to the noise (1), float64."""
        return share


@dataclass(frozen=True)
class DDPM:
    """F predicts the noise, v or the image at one of T steps (Ho et al. 2020; Salimans & Ho 2022).

    `min_snr` weighs the error of the image by min(SNR, min_snr) (Hang et al. 2023, whose choice is 5); None: the plain
    error of F, L_simple of equation 14 where F is the noise.
    """

    kind: Literal["ddpm"] = "ddpm"
    predict: Literal["eps", "v", "x0"] = "eps"
    schedule: Schedule = field(default_factory=Schedule)
    min_snr: float | None = None

    @property
    def first(self) -> float:
        """The noisiest time: that of step T - 1."""
        return self.schedule.times()[-1].item()

    @property
    def last(self) -> float:
        """The time of step 0."""
        return self.schedule.times()[0].item()

    def draw(self, noise: Noise) -> Tensor:
        """The time of a step for each image, all alike, (B,)."""
        return self.schedule.times().float().to(noise.device)[noise.integers(self.schedule.T)]

    def enter(self, y: Tensor, t: Tensor) -> Tensor:
        """x = y / n, of variance about 1."""
        return y / torch.hypot(1 - t, t)

    def label(self, t: Tensor) -> Tensor:
        """The step, on a scale of 1000."""
        return self.schedule.step(t) * (1000 / self.schedule.T)

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """eps, v = alpha eps - sigma x0, or x0."""
        return PREDICTIONS[self.predict].target(x0, eps, t)

    def velocity(self, F: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """What it said, as a velocity."""
        return PREDICTIONS[self.predict].velocity(F, y, t)

    def weight(self, t: Tensor) -> Tensor:
        """1, or min(SNR, gamma) over how much larger the error of F is than that of the image."""
        if self.min_snr is None:
            return torch.ones_like(t)
        snr = ((1 - t) / t).square()
        return snr.clamp(max=self.min_snr) / PREDICTIONS[self.predict].error(snr)

    def at(self, share: Tensor) -> Tensor:
        """The time of step share * T - 1: each step has its time, and share 0 is the image; float64, linear between."""
        knots = torch.cat([torch.zeros(1, dtype=torch.float64), self.schedule.times()]).to(share.device)
        place = share.double() * self.schedule.T
        left = place.floor().long().clamp(max=self.schedule.T - 1)
        return torch.lerp(knots[left], knots[left + 1], place - left)


@dataclass(frozen=True)
class EDM:
    """D = skip x + out F is the image, F of unit size at every noise (Karras et al. 2022, table 1 and section 5).

    Their x = x0 + sigma eps is y / (1 - t) with sigma = t / (1 - t). With d = sigma_data and
    m = sqrt(t^2 + d^2 (1 - t)^2), all of it is finite from t = 0 to 1, and their weight makes the error of F count.
    """

    kind: Literal["edm"] = "edm"
    sigma_data: float = 0.5
    log_mean: float = -1.2  # of the ln sigma learned from, their P_mean
    log_std: float = 1.2  # their P_std
    first, last = 80 / 81, 0.002 / 1.002  # their sigma_max and sigma_min

    def draw(self, noise: Noise) -> Tensor:
        """Log-normal sigma, which is a logit-normal t, (B,)."""
        return (self.log_mean + self.log_std * noise.normal()).sigmoid()

    def enter(self, y: Tensor, t: Tensor) -> Tensor:
        """c_in x = y / m."""
        return y / self._m(t)

    def label(self, t: Tensor) -> Tensor:
        """ln sigma, from sigma_min at 0 to sigma_max at 1000: their c_noise on the scale of our networks."""
        low, high = (math.log(end / (1 - end)) for end in (self.last, self.first))
        return 1000 * ((t.logit() - low) / (high - low)).clamp(0, 1)

    def target(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """(x0 - skip x) / out = (t x0 - d^2 (1 - t) eps) / (d m)."""
        d = self.sigma_data
        return (t * x0 - d**2 * (1 - t) * eps) / (d * self._m(t))

    def velocity(self, F: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """(y - D) / t = ((t - d^2 (1 - t)) y / m - d F) / m."""
        d, m = self.sigma_data, self._m(t)
        return ((t - d**2 * (1 - t)) * y / m - d * F) / m

    def weight(self, t: Tensor) -> Tensor:
        """lambda out^2 = 1 of the error of F."""
        return torch.ones_like(t)

    def at(self, share: Tensor) -> Tensor:
        """Evenly up to sigma_max."""
        return share * self.first

    def _m(self, t: Tensor) -> Tensor:
        return torch.hypot(t, self.sigma_data * (1 - t))


@dataclass(frozen=True)
class Prediction:
    """What F stands for where x = alpha x0 + sigma eps, alpha = (1 - t) / n and sigma = t / n."""

    target: Callable[[Tensor, Tensor, Tensor], Tensor]  # x0, eps, t
    velocity: Callable[[Tensor, Tensor, Tensor], Tensor]  # F, y, t
    error: Callable[[Tensor], Tensor]  # SNR -> its squared error over that of the image


PREDICTIONS = {
    "eps": Prediction(lambda x0, eps, t: eps, lambda F, y, t: (F - y) / (1 - t), lambda snr: snr),
    "v": Prediction(
        lambda x0, eps, t: ((1 - t) * eps - t * x0) / torch.hypot(1 - t, t),
        lambda F, y, t: ((2 * t - 1) * y / torch.hypot(1 - t, t) + F) / torch.hypot(1 - t, t),
        lambda snr: snr + 1,
    ),
    "x0": Prediction(lambda x0, eps, t: x0, lambda F, y, t: (y - F) / t, torch.ones_like),
}

Formulation = RectifiedFlow | DDPM | EDM


def read(formulation: Formulation, network: Network) -> Velocity:
    """The network as a velocity."""

    def velocity(y: Tensor, t: Tensor) -> Tensor:
        t = t.expand(len(y)) if t.dim() == 0 else t
        F = network(formulation.enter(y, column(t)), formulation.label(t))
        return formulation.velocity(F, y, column(t))

    return velocity


def loss(formulation: Formulation, network: Network, x0: Tensor, noise: Noise, eps: Tensor | None = None) -> Tensor:
    """Weighted squared error of the network at a time of its own for each image, mean over pixels, (B,).

    `eps` is the noise that each image is coupled to (reflow); left out, it is drawn, whatever the image.
    """
    y, t, eps = noised(formulation, x0, noise, eps)
    return loss_at(formulation, network, x0, y, eps, t)


def loss_at(formulation: Formulation, network: Network, x0: Tensor, y: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    """The same of images y noised with eps to given times (B,)."""
    error = network(formulation.enter(y, column(t)), formulation.label(t)) - formulation.target(x0, eps, column(t))
    return formulation.weight(t) * error.square().mean((1, 2, 3))


def noised(
    formulation: Formulation, x0: Tensor, noise: Noise, eps: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """What is learned from: y, a time t (B,) of its own for each image, and the noise eps in it, drawn or given."""
    t = formulation.draw(noise).to(x0)
    eps = (noise.normal(*x0.shape[1:]) if eps is None else eps).to(x0)
    return torch.lerp(x0, eps, column(t)), t, eps


def column(t: Tensor) -> Tensor:
    """(B,) or scalar -> (B, 1, 1, 1) or scalar: to multiply images by."""
    return t.view(-1, 1, 1, 1) if t.dim() else t
