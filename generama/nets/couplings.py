"""The invertible layers of RealNVP (Dinh, Sohl-Dickstein and Bengio 2017, "Density estimation using Real NVP").

Every layer is a pair: `forward` returns (y, log |det dy/dx|), `inverse` returns x. The paper's letters: b the mask,
s the log-scale, t the translation. Shapes: B images, C channels, D = C * H * W.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST_SCALE = 3.0  # of one coupling's s
FARTHEST = 1e6  # no data is there; noise that would go on from there ends as inf - inf

Mask = Literal["checkerboard", "channel"]


def mask(kind: Mask, channels: int, size: int, flip: bool) -> Tensor:
    """The binary mask b of the paper's figure 3, (1, C, H, W): 1 where a number is kept, 0 where it is changed."""
    if kind == "checkerboard":
        place = torch.arange(size)
        kept = ((place[:, None] + place[None, :]) % 2 == 0).expand(channels, size, size)
    else:
        kept = (torch.arange(channels) < channels // 2)[:, None, None].expand(channels, size, size)
    return (kept != flip)[None].float()


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), the residual block that the paper builds s and t from."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, kernel, padding=kernel // 2)
        self.second = nn.Conv2d(width, width, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x.relu()).relu())


class CouplingNet(nn.Module):
    """(s, t) from the kept half of an image and its class; zero at the start, so that a coupling is the identity.

    Large even images are folded 2x2 into channels for the inside of the net: four times cheaper at the same width,
    and each convolution sees twice as far.
    """

    def __init__(self, channels: int, size: int, width: int, blocks: int, classes: int) -> None:
        super().__init__()
        kernel = 3 if size > 1 else 1
        self.fold = 2 if size % 2 == 0 and size >= 14 else 1
        inside = channels * self.fold**2
        self.enter = nn.Conv2d(inside, width, kernel, padding=kernel // 2)
        self.label = nn.Embedding(classes, width) if classes else None
        self.blocks = nn.Sequential(*(ResidualBlock(width, kernel) for _ in range(blocks)))
        self.leave = nn.Conv2d(width, 2 * inside, kernel, padding=kernel // 2)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, kept: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> s and t, (B, C, H, W) each."""
        hidden = self.enter(F.pixel_unshuffle(kept, self.fold))
        if self.label is not None:
            hidden = hidden + self.label(label)[:, :, None, None]
        s, t = F.pixel_shuffle(self.leave(self.blocks(hidden).relu()), self.fold).chunk(2, dim=1)
        return s, t


class DenseNet(nn.Module):
    """(s, t) from two fully connected layers: it sees the whole image, so it is for the coarsest scale and points."""

    def __init__(self, channels: int, size: int, width: int, classes: int) -> None:
        super().__init__()
        dims = channels * size**2
        self.enter = nn.Linear(dims, width)
        self.label = nn.Embedding(classes, width) if classes else None
        self.middle = nn.Linear(width, width)
        self.leave = nn.Linear(width, 2 * dims)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, kept: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> s and t, (B, C, H, W) each."""
        hidden = self.enter(kept.flatten(1))
        if self.label is not None:
            hidden = hidden + self.label(label)
        out = self.leave(self.middle(hidden.relu()).relu())
        s, t = out.view(len(kept), -1, *kept.shape[2:]).chunk(2, dim=1)
        return s, t


class AffineCoupling(nn.Module):
    """y = b x + (1 - b) (x exp(s) + t), with s and t computed from b x (the paper's equation 9)."""

    b: Tensor

    def __init__(self, net: nn.Module, b: Tensor) -> None:
        super().__init__()
        self.net = net
        self.scale = nn.Parameter(torch.ones(1, b.shape[1], 1, 1))
        self.register_buffer("b", b, persistent=False)

    def s_and_t(self, x: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """s = scale tanh(.), so that no image can make exp(s) overflow; both are zero where b is one."""
        s, t = self.net(self.b * x, label)
        s = self.scale.clamp(-LARGEST_SCALE, LARGEST_SCALE) * s.tanh()
        return (1 - self.b) * s, (1 - self.b) * t

    def forward(self, x: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """x -> (y, log |det dy/dx| = the sum of s), both for B images."""
        s, t = self.s_and_t(x, label)
        return x * s.exp() + t, s.flatten(1).sum(1)

    def inverse(self, y: Tensor, label: Tensor | None) -> Tensor:
        """y -> x (equation 8): s and t come from the half that was kept, so no net is ever inverted."""
        s, t = self.s_and_t(y, label)
        return (y - t) * (-s).exp()


class Normalise(nn.Module):
    """y = (x - mean) exp(s): Glow's actnorm (Kingma and Dhariwal 2018), for the paper's batch norm.

    Mean and s are set from the first batch, while `starting`, and learned from then on.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(1, *shape))  # (1, C, 1, 1), or (1, C, H, W): one for each place
        self.s = nn.Parameter(torch.zeros(1, *shape))
        self.starting = False

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Set mean and s so that this batch comes out with mean 0 and variance 1."""
        over = [0, *(i for i in (1, 2, 3) if self.mean.shape[i] == 1)]
        self.mean.copy_(x.mean(over, keepdim=True))
        self.s.copy_(-(x.var(over, correction=0, keepdim=True) + 1e-6).log() / 2)

    def forward(self, x: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """x -> (y, log |det dy/dx|), both for B images."""
        if self.starting:
            self.start(x)
        return (x - self.mean) * self.s.exp(), self.s.expand_as(x).flatten(1).sum(1)

    def inverse(self, y: Tensor, label: Tensor | None) -> Tensor:
        """y -> x."""
        return y * (-self.s).exp() + self.mean


class Squeeze(nn.Module):
    """Each 2x2 block of pixels becomes four channels (the paper's section 3.6): (C, H, W) -> (4C, H/2, W/2)."""

    def forward(self, x: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """x -> (y, 0): moving numbers about changes no volume."""
        return F.pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def inverse(self, y: Tensor, label: Tensor | None) -> Tensor:
        """y -> x."""
        return F.pixel_shuffle(y, 2)


class Chain(nn.Module):
    """Invertible layers one after the other; their log-determinants add up."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """x -> (y, log |det dy/dx|), both for B images."""
        log_det = x.new_zeros(len(x))
        for layer in self.layers:
            x, change = layer(x, label)
            log_det = log_det + change
        return x, log_det

    def inverse(self, y: Tensor, label: Tensor | None) -> Tensor:
        """y -> x, for y within FARTHEST."""
        for layer in reversed(self.layers):
            y = layer.inverse(y.clamp(-FARTHEST, FARTHEST), label)  # type: ignore[operator]
        return y
