"""Are samples copies of training pictures? Nearest neighbours in pixel space, judged as Gu et al. 2023 judge them.

A sample is memorised if its nearest training picture is less than a third as far away as its second nearest
("On Memorization in Diffusion Models", after Yoon et al. 2023), or if it is no distance away at all. A new picture is
about as far from both; a copy, even a noisy one, is not. It sees copies of pixels, not of shifted or recoloured ones.
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


def nearest(pictures: Tensor, bank: Tensor, block: int = 4_000) -> Nearest:
    """Nearest of bank (M, ...) to each of pictures (N, ...), M >= 1, both uint8 or both float; block by block.

    Uses |x|^2 - 2 x.y + |y|^2, which is exact in float64 for bytes, so copies are exactly 0 away.
    """
    x = pictures.flatten(1).double()  # (N, D)
    squares = x.square().sum(1, keepdim=True)
    values = torch.full((len(x), 2), torch.inf, dtype=torch.float64, device=x.device)
    index = torch.zeros(len(x), 2, dtype=torch.int64, device=x.device)
    for start in range(0, len(bank), block):
        y = bank[start : start + block].flatten(1).double()
        table = (squares - 2 * (x @ y.T) + y.square().sum(1)).clamp(min=0)  # (N, block)
        near = table.topk(min(2, len(y)), dim=1, largest=False)
        values, order = torch.cat([values, near.values], 1).topk(2, dim=1, largest=False)
        index = torch.cat([index, near.indices + start], 1).gather(1, order)
    distance = (values / x.shape[1]).sqrt()
    return Nearest(index[:, 0], distance[:, 0], distance[:, 1])


def memorised_share(found: Nearest) -> float:
    """Share of pictures whose nearest training picture is less than a third as far as the second nearest."""
    return (found.ratio < RATIO).double().mean().item()
