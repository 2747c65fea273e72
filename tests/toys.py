"""Toy features of which the truth is known: a mixture of Gaussians, and models that miss it a little or by a mode."""

from __future__ import annotations

import torch
from torch import Tensor

DIMS, MODES = 13, 5


def mixture(seed: int, n: int, *, shift: float = 0.0, scale: float = 1.0, modes: int = MODES) -> Tensor:
    """n draws of a mixture of Gaussians in 13 dimensions of unequal spread; a model may shift, widen or drop modes."""
    centre = 2 * torch.randn(MODES, DIMS, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    stream = torch.Generator().manual_seed(seed)
    which = torch.randint(modes, (n,), generator=stream)
    spread = torch.linspace(0.3, 1.5, DIMS, dtype=torch.float64) * scale
    return centre[which] + shift + spread * torch.randn(n, DIMS, generator=stream, dtype=torch.float64)
