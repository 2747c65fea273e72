"""Mean flows: the average velocity over a span of time, which takes noise to an image in one step (Geng et al. 2025).

"Mean Flows for One-step Generative Modeling", arXiv:2505.13447. Letters: y = (1 - t) x0 + t eps and v = eps - x0 as
everywhere here; r <= t the earlier of two times; u(y, r, t) the mean of the velocity from r to t along the flow that is
at y at time t. So y_r = y_t - (t - r) u(y_t, r, t), and u(y, t, t) = v(y, t).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from generama.core import Noise
from generama.gaussian.formulations import column

AverageVelocity = Callable[[Tensor, Tensor, Tensor], Tensor]  # u(y (B, C, H, W), r (B,), t (B,)) -> (B, C, H, W)
Guide = Callable[[Tensor, Tensor, Tensor], Tensor]  # (y, t, v) -> the velocity to learn in place of v


@dataclass(frozen=True)
class Pairs:
    """Which pairs of times are learned from (the paper's section 4.3): logit-normal, sorted, most of them made equal.

    The defaults are the paper's for ImageNet.
    """

    apart: float = 0.25  # share of pairs with r < t; the others, r = t, are flow matching
    log_mean: float = -0.4  # of the times' logits
    log_std: float = 1.0

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """r and t for each image, (B,) each."""
        r, t = (self.log_mean + self.log_std * noise.normal(2)).sigmoid().sort(dim=1).values.unbind(1)
        return torch.where(noise.uniform() < self.apart, r, t), t


def target(u: AverageVelocity, y: Tensor, r: Tensor, t: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """What u says at y, and what it should: v - (t - r) du/dt without gradient (section 4.1), (B, C, H, W) each.

    du/dt = v d_y u + d_t u follows the flow: a Jacobian-vector product along (v, 0, 1), from the same pass as u itself,
    so that dropout drops the same. PyTorch's fused attention knows no such products, its plain one does.
    """
    with sdpa_kernel(SDPBackend.MATH):
        said, slope = jvp(u, (y, r, t), (v, torch.zeros_like(r), torch.ones_like(t)))[:2]
    return said, (v - column(t - r) * slope).detach()


def loss(
    pairs: Pairs, u: AverageVelocity, guide: Guide, x0: Tensor, noise: Noise, power: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Algorithm 1 at times of its own for each image: the adaptively weighted error, and the plain one, (B,) each.

    The plain error is a mean over pixels, without gradient.
    """
    r, t = (time.to(x0) for time in pairs.draw(noise))
    eps = noise.normal(*x0.shape[1:]).to(x0)
    y = torch.lerp(x0, eps, column(t))
    said, wanted = target(u, y, r, t, guide(y, t, eps - x0))
    error = (said - wanted).square()
    return adapted(error.sum((1, 2, 3)), power), error.detach().mean((1, 2, 3))


def adapted(error: Tensor, power: float) -> Tensor:
    """Squared errors (B,) times their own size to the power -p, as if that were a constant (section 4.3); p = 0: none.

    With p = 1 the value is nearly 1, whatever the error, and only the gradient says anything.
    """
    return error / (error.detach() + 1e-3) ** power


def jumps(u: AverageVelocity, y: Tensor, times: Tensor) -> Iterator[Tensor]:
    """Where y lands at each of the decreasing times but the first: y_r = y_t - (t - r) u(y_t, r, t) (algorithm 2)."""
    for t, r in pairwise(times):
        y = y - (t - r) * u(y, r.expand(len(y)), t.expand(len(y)))
        yield y
