"""Vectors that tell a network what it is asked for: the class, and the time (Vaswani et al. 2017, section 3.5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from generama.core import Condition


class LabelEmbedding(nn.Module):
    """A learned vector per class, and one more for "no class": where the label is missing or was dropped."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.classes = classes
        self.width = width
        self.table = nn.Embedding(classes + 1, width) if classes else None

    def forward(self, cond: Condition, like: Tensor) -> Tensor:
        """(B, width) for the B rows of `like`; zeros where the data has no classes at all."""
        if self.table is None:
            return like.new_zeros(len(like), self.width)
        if cond.label is None:
            label = torch.full((len(like),), self.classes, device=like.device)
        else:
            label = cond.label if cond.keep is None else torch.where(cond.keep, cond.label, self.classes)
        return self.table(label)


def sinusoids(value: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """Sines and cosines at `width / 2` wavelengths from 2 pi to 2 pi * longest: (B,) -> (B, width).

    Of several values a row, (B, K), all are told side by side: (B, K * width).
    """
    half = width // 2
    frequency = torch.exp(-math.log(longest) * torch.arange(half, device=value.device, dtype=value.dtype) / half)
    angle = value[..., None] * frequency  # (B, half) or (B, K, half)
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(1)
