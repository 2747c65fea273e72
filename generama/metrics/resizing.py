"""How pretrained networks are shown pictures of another size: each in the way of its papers, to the byte."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from generama.pixels import to_bytes


def coloured(images: Tensor) -> Tensor:
    """Images (B, 1 or 3, H, W) in [-1, 1] -> bytes (B, 3, H, W); grey is repeated."""
    return to_bytes(images).expand(-1, 3, -1, -1)


def bicubic(pixels: Tensor, side: int) -> Tensor:
    """Bytes (B, 3, H, W) -> bytes (B, 3, side, side): bicubic and antialiased, as PIL does (within two grey levels)."""
    return functional.interpolate(pixels, size=(side, side), mode="bicubic", antialias=True)


def bilinear_2015(pixels: Tensor, side: int) -> Tensor:
    """Bytes (B, 3, H, W) -> floats in 0..255 (B, 3, side, side), as TensorFlow's ResizeBilinear did it in 2015.

    Pixel i of the new picture lies at i * H / side of the old one: corners are not centres, and nothing is smoothed
    when it gets smaller. FID is defined with it, whatever better ways there are (Parmar et al. 2022, arXiv 2104.11222).
    """
    rows, columns = (_weights(length, side).to(pixels.device) for length in pixels.shape[2:])  # (side, H), (side, W)
    return rows @ pixels.float() @ columns.T


def _weights(length: int, side: int) -> Tensor:
    """What each of `length` pixels of a line gives to each of `side` pixels: (side, length), rows summing to 1."""
    place = torch.arange(side, dtype=torch.float32) * (length / side)
    lower = place.floor().long().clamp(max=length - 1)
    upper = (lower + 1).clamp(max=length - 1)
    share = (place - lower)[:, None]
    return functional.one_hot(lower, length) * (1 - share) + functional.one_hot(upper, length) * share
