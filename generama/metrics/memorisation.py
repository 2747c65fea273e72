"""Are samples copies of training pictures, or of each other? Nearest neighbours in pixel space.

Memorised, as Gu et al. 2023 judge it: a sample is if its nearest training picture is less than a third as far away as
its second nearest ("On Memorization in Diffusion Models", after Yoon et al. 2023), or if it is no distance away at
all. A new picture is about as far from both; a copy, even a noisy one, is not.

Authentic, as Alaa et al. 2022 judge it ("How Faithful is your Synthetic Data?", section 4.3; AuthPct is the share): a
sample is if it is farther from its nearest training picture than that one is from its own nearest other.

Duplicate: a sample whose nearest other sample is less than a third as far away as the nearest of as many held-out
pictures, or no distance away.

All see copies of pixels, not of shifted or recoloured ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RATIO = 1 / 3


@dataclass(frozen=True)
class Nearest:
    """For N pictures: their nearest neighbour in a bank, and the two smallest distances."""

    index: Tensor  # (N,) int64, row of the bank
    first: Tensor  # (N,) float64, root mean square difference per number: grey levels for bytes, units for points
    second: Tensor  # (N,) float64; infinite where the bank holds one picture

    @property
    def ratio(self) -> Tensor:
        """first / second, (N,) in [0, 1]; 0 for an exact copy, even where the bank holds the picture twice."""
        return torch.where(self.first == 0, 0.0, self.first / self.second)


def nearest(pictures: Tensor, bank: Tensor, block: int = 4_000, *, others: bool = False) -> Nearest:
    """Nearest of bank (M, ...) to each of pictures (N, ...), M >= 1, both uint8 or both float; block by block.

    With `others` picture i is not compared with row i of the bank, which is itself. Uses |x|^2 - 2 x.y + |y|^2, which
    is exact in float64 for bytes, so copies are exactly 0 away.
    """
    x = pictures.flatten(1).double()  # (N, D)
    squares = x.square().sum(1, keepdim=True)
    values = torch.full((len(x), 2), torch.inf, dtype=torch.float64, device=x.device)
    index = torch.zeros(len(x), 2, dtype=torch.int64, device=x.device)
    for start in range(0, len(bank), block):
        y = bank[start : start + block].flatten(1).double()
        table = torch.addmm(squares, x, y.T, alpha=-2).add_(y.square().sum(1)).clamp_(min=0)  # (N, block)
        if others:
            table.diagonal(-start).fill_(torch.inf)
        near = table.topk(min(2, len(y)), dim=1, largest=False)
        values, order = torch.cat([values, near.values], 1).topk(2, dim=1, largest=False)
        index = torch.cat([index, near.indices + start], 1).gather(1, order)
    distance = (values / x.shape[1]).sqrt()
    return Nearest(index[:, 0], distance[:, 0], distance[:, 1])


def memorised(found: Nearest) -> Tensor:
    """Whose nearest training picture is less than a third as far as the second nearest, (N,) bool."""
    return found.ratio < RATIO


def authentic(found: Nearest, bank: Tensor) -> Tensor:
    """Who is farther from its nearest training picture than that one from its nearest other in the bank, (N,) bool."""
    originals, row = found.index.unique(return_inverse=True)
    spacing = nearest(bank[originals], bank).second  # the first is the picture itself
    return found.first > spacing[row]


def duplicate(among: Nearest, held_out: Nearest) -> Tensor:
    """Whose nearest other sample is less than a third as far as the nearest held-out picture, (N,) bool."""
    return (among.first == 0) | (among.first < RATIO * held_out.first)


def alike(among: Nearest, most: int) -> list[dict[str, float]]:
    """The most alike pairs of samples, nearest first, each once."""
    found: dict[tuple[int, int], float] = {}
    for i in among.first.argsort(stable=True).tolist():
        pair = (min(i, int(among.index[i])), max(i, int(among.index[i])))
        found.setdefault(pair, among.first[i].item())
        if len(found) == most:
            break
    return [{"a": a, "b": b, "distance": distance} for (a, b), distance in found.items()]
