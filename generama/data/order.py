"""In which order the pictures come: a pure function of (seed, step), so that resuming needs no saved state."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from generama.core import Batch
from generama.data.shards import Split
from generama.errors import UsageError


def order(count: int, seed: int, epoch: int) -> Tensor:
    """The permutation of 0..count-1 in which epoch `epoch` of a run with this seed goes through the data, (count,)."""
    return torch.from_numpy(np.random.default_rng([seed % 2**64, epoch]).permutation(count))


def batches(split: Split, batch: int, seed: int, start: int = 0, rows: slice = slice(None)) -> Iterator[Batch]:
    """The batch of every step from `start` on, without end; only its `rows`, where other processes take the rest."""
    for indices in positions(len(split), batch, seed, start):
        yield split.batch(indices[rows])


def positions(count: int, batch: int, seed: int, start: int = 0) -> Iterator[Tensor]:
    """Which of `count` pictures each step from `start` on learns from, (batch,), without end.

    Row i of step s is picture p = s * batch + i of an endless row of epochs, each shuffled anew: a batch may lie
    across two epochs (or several, where the split is smaller than a batch) and no picture is ever dropped.
    """
    if count == 0 or batch < 1:
        raise UsageError(f"cannot draw batches of {batch} from {count} pictures; both must be at least 1")
    epoch, shuffled = -1, torch.empty(0)
    position = start * batch
    while True:
        rows = []
        end = position + batch
        while position < end:
            if position // count != epoch:
                epoch = position // count
                shuffled = order(count, seed, epoch)
            first = position % count
            rows.append(shuffled[first : first + end - position])
            position += len(rows[-1])
        yield torch.cat(rows)
