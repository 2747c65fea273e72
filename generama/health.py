"""Numbers that are not finite: steps that must not be applied, what caused them, and when to go back."""

from __future__ import annotations

import torch
from torch import Tensor

from generama.core import Batch, Noise, Player

PATIENCE = 3  # rounds in a row that are skipped before the run goes back to its last checkpoint
SETBACKS = 2  # times that it goes back, with half the learning rate each time, before it gives up
TOLD = 3  # rounds that were not applied whose cause is looked for and told
LOOK_EVERY = 50  # rounds between two looks on an accelerator, which has to stop for each


class Health:
    """Counts rounds that were not applied. The counting stays on the device, so that nothing waits for it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times = 0  # that a look found something
        self.in_a_row = torch.zeros((), dtype=torch.int64, device=device)
        self.last = torch.full((), -1, dtype=torch.int64, device=device)
        self._bad = torch.zeros((), dtype=torch.bool, device=device)

    def turn(self, finite: Tensor) -> None:
        """Take in whether a turn's loss and gradient were finite."""
        self._bad |= ~finite

    def round(self, step: int) -> None:
        """Close a round: the one that started at `step`."""
        self.in_a_row = (self.in_a_row + 1) * self._bad
        self.last = torch.where(self._bad, step, self.last)
        self._bad = torch.zeros_like(self._bad)

    def trouble(self, step: int) -> tuple[int, int] | None:
        """(rounds in a row that were not applied, the last one's step) if there was one since the last look."""
        if self.device.type != "cpu" and step % LOOK_EVERY:
            return None
        last = int(self.last)
        self.last.fill_(-1)
        return (int(self.in_a_row), last) if last >= 0 else None


def explain(player: Player, batch: Batch, noise: Noise, indices: list[int]) -> str | None:
    """What of a player's loss on a batch is not finite: the loss, which parameters, which pictures; None if all is.

    `indices` are the pictures' places in the training data.
    """
    player.module.zero_grad()
    loss, _ = player.loss(batch, noise)
    loss.backward()
    named = [name for name, p in player.module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    weights = [name for name, p in player.module.named_parameters() if not p.isfinite().all()]
    if bool(loss.isfinite()) and not named:
        return None
    parts = [f"the {player.name}'s loss is {loss.item():.3g}"]
    if weights:
        parts.append(f"the weights {listed(weights)} are not finite")
    elif named:
        parts.append(f"the gradient of {listed(named)} is not finite")
    guilty = [str(i) for i in culprits(player, batch, noise, indices)]
    parts.append(f"training pictures {listed(guilty)} give it alone" if guilty else "no single picture gives it alone")
    player.module.zero_grad()
    return "; ".join(parts)


@torch.no_grad()
def culprits(player: Player, batch: Batch, noise: Noise, indices: list[int]) -> list[int]:
    """The pictures whose own loss is not finite."""
    found = []
    for row, index in enumerate(indices):
        alone = Noise(noise.seed, noise.count, noise.device, slice(row, row + 1))
        loss, _ = player.loss(batch[row : row + 1], alone)
        if not bool(loss.isfinite()):
            found.append(index)
    return found if len(found) < len(indices) else []  # all of them: it is not the pictures


def listed(names: list[str]) -> str:
    """The first three of some names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory did not suffice, on whichever device."""
    words = (
        "out of memory",
        "allocate memory",
        "not enough memory",
        "could not create a primitive",
    )  # the last: oneDNN
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in words)
