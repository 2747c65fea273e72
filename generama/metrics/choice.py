"""Which pictures are measured where there are more than needed: a random choice that is the same every time."""

from __future__ import annotations

import torch
from torch import Tensor

REFERENCE = 10_000  # most training pictures that distances are taken to


def choose(count: int, most: int) -> Tensor:
    """Positions (min(count, most),) of a choice among `count` pictures, in random order (files are sorted)."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most]
