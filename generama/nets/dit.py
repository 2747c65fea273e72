"""The diffusion transformer: patches as tokens, N blocks, and back; four ways in which the blocks are told the wish.

Peebles and Xie (2023), "Scalable Diffusion Models with Transformers", arXiv:2212.09748, section 3: adaLN-Zero,
cross-attention, in-context; joint attention: Esser et al. (2024), "Scaling Rectified Flow Transformers",
arXiv:2403.03206, section 4. Letters: N tokens of the image, M of the wish (time and class), D their width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from generama.core import Condition, Spec
from generama.errors import UsageError
from generama.nets.embeddings import LabelEmbedding, sinusoids

Way = Literal["adaln-zero", "cross-attention", "in-context", "joint"]
FREQUENCIES = 256  # of the time, as in the paper


@dataclass(frozen=True)
class DiTConfig:
    """A small one for 28 to 32 pixels; DiT-S of the paper has width 384, depth 12, 6 heads."""

    kind: Literal["dit"] = "dit"
    patch: int = 4  # pixels a side of a token
    width: int = 128
    depth: int = 6
    heads: int = 4
    told: Way = "adaln-zero"  # how the blocks are told time and class


class DiT(nn.Module):
    """F(x, time, cond): images and times, `times` of them each, to images of the same shape."""

    def __init__(self, config: DiTConfig, spec: Spec, times: int = 1) -> None:
        super().__init__()
        if spec.size % config.patch or config.width % (4 * config.heads):
            raise UsageError(
                f"a DiT of width {config.width} with {config.heads} heads and patches of {config.patch} does not fit "
                f"{spec.size} pixels: --family.net.patch divides the size, 4 times the heads the width"
            )
        side, pixels = spec.size // config.patch, spec.channels * config.patch**2
        self.patch, self.spec = config.patch, spec
        self.time = nn.Sequential(
            nn.Linear(times * FREQUENCIES, config.width), nn.SiLU(), nn.Linear(config.width, config.width)
        )
        self.label = LabelEmbedding(spec.classes, config.width)
        self.enter = nn.Linear(pixels, config.width)
        self.register_buffer("place", places(side, config.width), persistent=False)
        self.blocks = nn.ModuleList(BLOCKS[config.told](config.width, config.heads) for _ in range(config.depth))
        self.modulate = silent(nn.Linear(config.width, 2 * config.width))
        self.leave = silent(nn.Linear(config.width, pixels))

    def forward(self, x: Tensor, time: Tensor, cond: Condition) -> Tensor:
        """(B, C, H, W) images, (B,) or (B, times) times in 0..1000, conditions -> (B, C, H, W)."""
        wish = torch.stack([self.time(sinusoids(time, FREQUENCIES)), self.label(cond, like=x)], 1)  # (B, M, D)
        summary = functional.silu(wish.sum(1))
        tokens = self.enter(patches(x, self.patch)) + self.place
        for block in self.blocks:
            tokens, wish = block(tokens, wish, summary)
        shift, scale = self.modulate(functional.silu(wish.sum(1)))[:, None].chunk(2, dim=2)
        return pixels(self.leave(normed(tokens) * (1 + scale) + shift), self.spec, self.patch)


class AdaLNZero(nn.Module):
    """The wish scales, shifts and gates what the block adds; the gates start at zero, so the block as the identity."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(width, heads), mlp(width)
        self.modulate = silent(nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, wish: Tensor, summary: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, D), (B, M, D), (B, D) -> tokens and wish."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulate(summary)[:, None].chunk(6, dim=2)
        x = x + gate1 * self.attention(normed(x) * (1 + scale1) + shift1)
        return x + gate2 * self.mlp(normed(x) * (1 + scale2) + shift2), wish


class CrossAttention(nn.Module):
    """The tokens look at the wish, between looking at each other and thinking."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention, self.cross, self.mlp = Attention(width, heads), Attention(width, heads), mlp(width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, wish: Tensor, summary: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, D), (B, M, D), (B, D) -> tokens and wish."""
        x = x + self.attention(self.norms[0](x))
        x = x + self.cross(self.norms[1](x), wish)
        return x + self.mlp(self.norms[2](x)), wish


class InContext(nn.Module):
    """The wish is more tokens, and a plain transformer block treats all alike."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(width, heads), mlp(width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor, wish: Tensor, summary: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, D), (B, M, D), (B, D) -> tokens and wish."""
        both = torch.cat([wish, x], 1)
        both = both + self.attention(self.norms[0](both))
        both = both + self.mlp(self.norms[1](both))
        return both[:, wish.shape[1] :], both[:, : wish.shape[1]]


class Joint(nn.Module):
    """Image and wish have weights of their own, and meet in one attention; both are modulated as in adaLN-Zero."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.wish, self.image = Stream(width, heads), Stream(width, heads)

    def forward(self, x: Tensor, wish: Tensor, summary: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, D), (B, M, D), (B, D) -> tokens and wish."""
        of_wish, of_image = self.wish.read(wish, summary), self.image.read(x, summary)
        q, k, v = (torch.cat(pair, 2) for pair in zip(of_wish, of_image, strict=True))  # (B, heads, M + N, D / heads)
        seen = functional.scaled_dot_product_attention(q, k, v).split([wish.shape[1], x.shape[1]], dim=2)
        return self.image.think(x, seen[1], summary), self.wish.think(wish, seen[0], summary)


class Stream(nn.Module):
    """One side of a joint block: what it asks the attention, and what it makes of the answer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(width, heads), mlp(width)
        self.modulate = silent(nn.Linear(width, 6 * width))

    def read(self, x: Tensor, summary: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, N, D) -> queries, keys and values."""
        shift, scale, *_ = self.modulate(summary)[:, None].chunk(6, dim=2)
        return self.attention.read(normed(x) * (1 + scale) + shift)

    def think(self, x: Tensor, seen: Tensor, summary: Tensor) -> Tensor:
        """Tokens (B, N, D) and what they saw (B, heads, N, D / heads) -> tokens."""
        _, _, gate1, shift, scale, gate2 = self.modulate(summary)[:, None].chunk(6, dim=2)
        x = x + gate1 * self.attention.write(seen)
        return x + gate2 * self.mlp(normed(x) * (1 + scale) + shift)


BLOCKS: dict[Way, Callable[[int, int], nn.Module]] = {
    "adaln-zero": AdaLNZero,
    "cross-attention": CrossAttention,
    "in-context": InContext,
    "joint": Joint,
}


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) of tokens over themselves, or over others."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, others: Tensor | None = None) -> Tensor:
        """(B, N, D), and (B, M, D) -> (B, N, D)."""
        return self.write(functional.scaled_dot_product_attention(*self.read(x, others)))

    def read(self, x: Tensor, others: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of x, keys and values of the others or of x itself, each (B, heads, N, D / heads)."""
        keys, values = self.key_value(x if others is None else others).chunk(2, dim=2)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query(x), keys, values))
        return q, k, v

    def write(self, seen: Tensor) -> Tensor:
        """(B, heads, N, D / heads) -> (B, N, D)."""
        return self.out(seen.transpose(1, 2).flatten(2))


def mlp(width: int) -> nn.Sequential:
    """Two layers, four times as wide between them."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))


def normed(x: Tensor) -> Tensor:
    """Layer normalisation without weights, which the modulation brings."""
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6)


def patches(x: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> (B, N, C patch patch), row by row."""
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * patch**2)


def pixels(tokens: Tensor, spec: Spec, patch: int) -> Tensor:
    """The inverse of `patches`."""
    side = spec.size // patch
    x = tokens.reshape(-1, side, side, spec.channels, patch, patch)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(-1, *spec.shape)


def places(side: int, width: int) -> Tensor:
    """Where a token lies: half of it the sines and cosines of its row, half of its column, (N, D)."""
    along = sinusoids(torch.arange(side, dtype=torch.float32), width // 2)  # (side, D / 2)
    rows, columns = along.repeat_interleave(side, 0), along.repeat(side, 1)
    return torch.cat([rows, columns], 1)


def silent(layer: nn.Linear) -> nn.Linear:
    """The layer with weights and bias zero, so that what it feeds starts without it."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
