"""Which pictures are kept back from training: the source's own test split, or a fair share of every class."""

from __future__ import annotations

import numpy as np

SHARE = 0.2
MOST = 10_000


def choose_held_out(count: int, labels: np.ndarray | None, seed: int = 0) -> np.ndarray:
    """A random 20 % (at most about 10,000) of every class, as a mask (count,) bool; the same for the same seed.

    A class of one or two pictures stays in training whole. Without labels all pictures are one class.
    """
    share = min(SHARE, MOST / count)
    label = np.zeros(count, np.int64) if labels is None else labels
    shuffled = np.random.default_rng(seed).permutation(count)
    by_class = shuffled[np.argsort(label[shuffled], kind="stable")]  # class by class, in random order within
    _, start, size = np.unique(label[by_class], return_index=True, return_counts=True)
    rank = np.arange(count) - np.repeat(start, size)  # 0, 1, 2 ... within each class
    mask = np.zeros(count, bool)
    mask[by_class] = (rank + 0.5) / np.repeat(size, size) < share
    return mask if mask.any() or labels is None else choose_held_out(count, None, seed)
