"""The order of the pictures is a function of (seed, step) alone, and drops nothing."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from generama.data import Split, batches, order
from generama.errors import UsageError

COUNT = 23


def numbered() -> Split:
    """A split whose picture i has the value i and the class i: rows are recognised after any shuffling."""
    images = np.arange(COUNT + 6, dtype=np.uint8)[:, None, None, None]
    return Split(images, np.arange(6, COUNT + 6), np.arange(COUNT + 6))


def rows(batch):
    return ((batch.images.flatten() + 1) * 127.5).round().long()


@pytest.mark.parametrize("batch", [1, 7, 23, 61])
def test_every_epoch_is_a_permutation_and_labels_stay_with_their_pictures(batch):  # RS-05
    seen = []
    for step in islice(batches(numbered(), batch, seed=5), 3 * COUNT):
        assert step.images.shape == (batch, 1, 1, 1) and step.images.dtype == torch.float32
        assert torch.equal(rows(step), step.cond.label)
        seen.append(step.cond.label)
    seen = torch.cat(seen)
    for epoch in range(3):
        part = seen[epoch * COUNT : (epoch + 1) * COUNT]
        assert sorted(part.tolist()) == list(range(6, COUNT + 6))


@pytest.mark.parametrize("start", [1, 3, 11])
def test_starting_later_continues_exactly(start):
    whole = list(islice(batches(numbered(), 7, seed=2), 20))
    later = list(islice(batches(numbered(), 7, seed=2, start=start), 20 - start))
    for one, other in zip(whole[start:], later, strict=True):
        assert torch.equal(one.images, other.images)


def test_order_differs_between_seeds_and_epochs_and_repeats_otherwise():
    first = order(101, seed=0, epoch=0)
    assert torch.equal(first, order(101, seed=0, epoch=0))
    assert not torch.equal(first, order(101, seed=0, epoch=1))
    assert not torch.equal(first, order(101, seed=1, epoch=0))
    assert sorted(order(101, seed=-3, epoch=4).tolist()) == list(range(101))


def test_an_empty_split_is_refused():
    empty = Split(np.zeros((3, 1, 2, 2), np.uint8), np.arange(0), None)
    with pytest.raises(UsageError, match="0 pictures"):
        next(batches(empty, 4, seed=0))


def test_the_rows_of_several_processes_are_those_of_one():
    whole = list(islice(batches(numbered(), 10, seed=3), 9))
    shares = [list(islice(batches(numbered(), 10, seed=3, rows=slice(a, a + 5)), 9)) for a in (0, 5)]
    for one, first, second in zip(whole, *shares, strict=True):
        assert torch.equal(one.images, torch.cat([first.images, second.images]))
