"""Copies are found, new pictures are not called copies."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

from generama.metrics.memorisation import memorised, nearest

DIGITS = (torch.from_numpy(load_digits().images) * (255 / 16)).round().to(torch.uint8)[:, None]  # (1797, 1, 8, 8)
TRAIN, HELD_OUT = DIGITS[::2], DIGITS[1::2]


def memorised_share(found):
    return memorised(found).double().mean().item()


def noisy(pictures, spread):
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0)) * spread
    return (pictures + noise).round().clamp(0, 255).to(torch.uint8)


def test_copies_are_flagged_and_held_out_pictures_are_not():
    assert memorised_share(nearest(TRAIN[:101], TRAIN)) == 1
    assert memorised_share(nearest(noisy(TRAIN[:101], 4), TRAIN)) > 0.95
    assert memorised_share(nearest(HELD_OUT, TRAIN)) < 0.01
    half = torch.cat([TRAIN[:53], HELD_OUT[:53]])
    assert memorised_share(nearest(half, TRAIN)) == pytest.approx(0.5, abs=0.01)


def test_a_copy_of_a_picture_that_the_data_holds_twice_is_flagged():
    assert memorised_share(nearest(TRAIN[:5], torch.cat([TRAIN, TRAIN]))) == 1


def test_a_copy_points_to_its_original():
    found = nearest(TRAIN[100:203], TRAIN)
    assert found.index.tolist() == list(range(100, 203))
    assert bool((found.first == 0).all()) and bool((found.second > 0).all())


@pytest.mark.parametrize("block", [1, 97, 4_000])
def test_nearest_agrees_with_all_pairs_at_any_block_size(block):
    found = nearest(HELD_OUT[:31], TRAIN[:307], block)
    table = torch.cdist(HELD_OUT[:31].flatten(1).double(), TRAIN[:307].flatten(1).double()) / 8  # sqrt(64) numbers
    assert torch.allclose(found.first, table.amin(1), atol=1e-9)
    assert torch.allclose(found.second, table.sort(1).values[:, 1], atol=1e-9)
    assert torch.allclose(table.gather(1, found.index[:, None])[:, 0], found.first, atol=1e-9)
