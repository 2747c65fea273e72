"""The one place where bytes become floats and floats become bytes."""

from __future__ import annotations

import torch
from torch import Tensor


def to_float(pixels: Tensor) -> Tensor:
    """uint8 in 0..255 -> float32 in [-1, 1]; float values (2-D points) pass unchanged."""
    return pixels.float().div_(127.5).sub_(1.0) if pixels.dtype == torch.uint8 else pixels.float()


def to_bytes(images: Tensor) -> Tensor:
    """float in [-1, 1] -> the nearest uint8 in 0..255; values outside are clipped."""
    return images.clamp(-1, 1).add(1.0).mul(127.5).round().to(torch.uint8)


def to_levels(images: Tensor, levels: int = 256) -> Tensor:
    """float in [-1, 1] -> the integer level 0..levels-1 it stands for, (B, C, H, W) int64."""
    return images.clamp(-1, 1).add(1.0).mul((levels - 1) / 2).round().long()


def from_levels(level: Tensor, levels: int = 256) -> Tensor:
    """Integer level 0..levels-1 -> float32 in [-1, 1]: the inverse of `to_levels`."""
    return level.float().mul(2.0 / (levels - 1)).sub(1.0)
