"""A moving average of the weights: what a run is sampled from (Karras et al. 2022, appendix F.2)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from generama.core import Family, Player


class Average:
    """A copy of the family whose averaged players follow the live ones, with a half-life counted in images."""

    def __init__(self, family: Family, players: Sequence[Player], half_life: int) -> None:
        self.half_life = half_life
        self.family = copy.deepcopy(family).eval()
        followed = {id(value) for p in players if p.average for value in p.module.state_dict(keep_vars=True).values()}
        live = {name: value for name, value in family.state_dict(keep_vars=True).items() if id(value) in followed}
        copied = self.family.state_dict()
        self.entries = {name: copied[name] for name in live}
        pairs = [(self.entries[name], value.detach()) for name, value in live.items()]
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._others = [pair for pair in pairs if not pair[0].is_floating_point()]  # counters and flags: copied

    @torch.no_grad()
    def update(self, batch: int, images: int) -> None:
        """Move towards the live weights after a round of `batch` images, `images` having been seen in all.

        The half-life ramps up with the images seen (to a twentieth of them), so the random start is soon forgotten.
        """
        half_life = min(self.half_life, images / 20)
        decay = 0.5 ** (batch / half_life) if half_life else 0.0
        torch._foreach_lerp_([a for a, _ in self._floats], [b for _, b in self._floats], 1 - decay)
        for a, b in self._others:
            a.copy_(b)

    def gather(self) -> None:
        """Nothing to do."""
