"""What all pairs of feature vectors say, tile by tile: each pair is multiplied once, for kernels and neighbours alike.

A tile is one matrix product, -|x - y|^2 / 2 for its pairs, from which the kernel follows as well. Large sets are
multiplied in float32, twice as fast; whatever rounding could decide (a pair at the very edge of a ball, the length of
a radius) is computed again from the differences in float64, where a copy is exactly 0 away.

Letters: x, y features less the mean c of the real ones; s = -|x - y|^2 / 2; h = (x + c).(y + c) / D + 1, the kernel
its cube.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

TILE = 1_000  # rows and columns multiplied at once
EXACT = 3e10  # multiplications up to which everything is in float64: a second
MARGIN = 32  # roundings by which s may be wrong, in units of the largest square
FEW = 50  # rows whose neighbours are looked at once more together: what a processor's cache likes
SPARE = 2  # neighbours looked at beyond the k-th, in case rounding swapped them


@dataclass(frozen=True)
class Side:
    """One set of features, ready to be multiplied."""

    features: Tensor  # (n, D) as they came
    left: Tensor  # (n, D + 2): x, 1, -|x|^2 / 2
    half: Tensor  # (n,) float64, this side's part of h: h = s / D + half_x + half_y
    square: float  # the largest |x|^2

    def right(self, rows: slice) -> Tensor:
        """(r, D + 2): x, -|x|^2 / 2, 1, so that left @ right.T is s."""
        x = self.left[rows]
        return torch.cat([x[:, :-2], x[:, -1:], x[:, -2:-1]], 1)

    def __len__(self) -> int:
        return len(self.left)


@dataclass(frozen=True)
class Within:
    """A set against itself, own pairs left out."""

    radius: Tensor  # (n,) float64, squared distance to the k-th nearest other; 0 for k = 0, and nobody is inside
    kernel: Tensor  # (n,) float64, sum of the kernel with all others
    square: float  # sum of its square over all ordered pairs
    own: float  # mean of the kernel of each with itself


@dataclass(frozen=True)
class Between:
    """Samples (n) against real pictures (N)."""

    kernel: Tensor  # (n,) float64, sum of the kernel with all real ones
    balls: Tensor  # (n,) int64, real balls around each sample
    covered: Tensor  # (N,) bool, whether a sample is in the real ball
    recalled: Tensor  # (N,) bool, whether the real one is in a sample's ball


def sides(real: Tensor, *others: Tensor) -> list[Side]:
    """Sets of features (N, D), (n, D), ..., centred alike; in float64 where that takes no longer than a second."""
    most = max(len(features) for features in (real, *others))
    centre = real.double().mean(0)
    dtype = torch.float64 if most * most * real.shape[1] <= EXACT else torch.float32
    return [_side(features, centre, dtype) for features in (real, *others)]


def _side(features: Tensor, centre: Tensor, dtype: torch.dtype) -> Side:
    n, dims = features.shape
    left = torch.empty(n, dims + 2, dtype=dtype, device=features.device)
    half = torch.empty(n, dtype=torch.float64, device=features.device)
    for rows in blocks(n):
        x = features[rows].double() - centre
        square = x.square().sum(1)
        left[rows] = torch.cat([x, torch.ones_like(x[:, :1]), -square[:, None] / 2], 1).to(dtype)
        half[rows] = (square / 2 + x @ centre + centre.square().sum() / 2) / dims + 0.5
    return Side(features, left, half, -2 * left[:, -1].amin().item())


def within(side: Side, k: int) -> Within:
    """Radii to the k-th nearest other (k = 0: none), and kernel sums; every pair is multiplied once for both orders."""
    n, device = len(side), side.left.device
    kernel, square = torch.zeros(n, dtype=torch.float64, device=device), 0.0
    near = torch.full((n, k + SPARE), -torch.inf, dtype=side.left.dtype, device=device)
    who = torch.zeros(n, k + SPARE, dtype=torch.int64, device=device)
    for a in blocks(n):
        for b in blocks(n, a.start):
            s = product(side.left[a], side.right(b))
            cube = _cube(s, side, a, side, b)
            if a == b:
                cube.fill_diagonal_(0)
                s.fill_diagonal_(-torch.inf)
            kernel[a] += cube.sum(1)
            square += torch.linalg.vector_norm(cube).item() ** 2 * (1 if a == b else 2)
            if a != b:
                kernel[b] += cube.sum(0)
            for rows, columns, table in ((a, b, s), (b, a, s.T))[: 1 if a == b else 2]:
                _merge(near, who, rows, columns, table, k)
    return Within(_radius(side, near, who, k), kernel, square, (2 * side.half).pow(3).mean().item())


def between(real: Side, fake: Side, real_radius: Tensor, fake_radius: Tensor) -> Between:
    """Kernel sums, and who is in whose ball; squared radii (N,) and (n,)."""
    device = fake.left.device
    kernel = torch.zeros(len(fake), dtype=torch.float64, device=device)
    balls = torch.zeros(len(fake), dtype=torch.int64, device=device)
    covered, recalled = torch.zeros(2, len(real), dtype=torch.bool, device=device)
    for b in blocks(len(real)):
        right = real.right(b)
        for a in blocks(len(fake)):
            s = product(fake.left[a], right)
            kernel[a] += _cube(s, fake, a, real, b).sum(1)
            row, column = _inside(s, fake, a, real, b, real_radius[None, b])
            balls[a] += row.bincount(minlength=len(s))
            covered[b.start + column] = True
            _, column = _inside(s, fake, a, real, b, fake_radius[a, None])
            recalled[b.start + column] = True
    return Between(kernel, balls, covered, recalled)


def product(left: Tensor, right: Tensor) -> Tensor:
    """left (n, D) @ right (m, D).T; by oneDNN in float32 on a CPU, which on AMD takes half the time of MKL's."""
    if left.dtype != torch.float32 or left.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return left @ right.T
    return functional.linear(left.to_mkldnn(), right.to_mkldnn()).to_dense()


def blocks(n: int, start: int = 0) -> Iterator[slice]:
    """Slices of at most TILE rows."""
    return (slice(first, min(first + TILE, n)) for first in range(start, n, TILE))


def exact(x: Tensor, y: Tensor) -> Tensor:
    """Squared distances of rows of x and y (..., D), from their differences in float64."""
    return (x.double() - y.double()).square().sum(-1)


def _cube(s: Tensor, x: Side, a: slice, y: Side, b: slice) -> Tensor:
    h = torch.add(y.half[None, b].to(s.dtype), s, alpha=1 / (x.left.shape[1] - 2))
    return h.add_(x.half[a, None].to(s.dtype)).pow_(3)


def _merge(near: Tensor, who: Tensor, rows: slice, columns: slice, s: Tensor, k: int) -> None:
    """Keep the k + SPARE nearest of those known and those in the tile."""
    if not k:
        return
    found = s.topk(min(k + SPARE, s.shape[1]), dim=1)
    values, order = torch.cat([near[rows], found.values], 1).topk(k + SPARE, dim=1)
    who[rows] = torch.cat([who[rows], found.indices + columns.start], 1).gather(1, order)
    near[rows] = values


def _radius(side: Side, near: Tensor, who: Tensor, k: int) -> Tensor:
    """Squared distance to the k-th nearest other, (n,), in float64 from the differences to the nearest ones."""
    if not k:
        return torch.zeros(len(side), dtype=torch.float64, device=near.device)
    found = [
        exact(side.features[rows][:, None], side.features[some])
        .masked_fill(values.isinf(), torch.inf)
        .sort(1)
        .values[:, k - 1]
        for rows, some, values in zip(torch.arange(len(side)).split(FEW), who.split(FEW), near.split(FEW), strict=True)
    ]
    return torch.cat(found)


def _inside(s: Tensor, x: Side, a: slice, y: Side, b: slice, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the pairs of a tile that are strictly nearer than the squared radius, which broadcasts."""
    edge = (-radius / 2).to(s.dtype)
    margin = MARGIN * torch.finfo(s.dtype).eps * max(x.square, y.square)
    row, column = (s > edge - margin).nonzero(as_tuple=True)
    doubt = s[row, column] <= (edge + margin).expand_as(s)[row, column]
    if not bool(doubt.any()):
        return row, column
    i, j = row[doubt], column[doubt]
    sure = [
        exact(x.features[a.start + some], y.features[b.start + other]) < radius.expand_as(s)[some, other]
        for some, other in zip(i.split(TILE), j.split(TILE), strict=True)
    ]
    keep = ~doubt
    keep[doubt] = torch.cat(sure)
    return row[keep], column[keep]
