"""What a classifier sees: extremes and hand-made cases."""

from __future__ import annotations

import math

import pytest
import torch

from generama.metrics import classes

ONE_HOT = torch.eye(7).repeat(11, 1)


def test_inception_score_runs_from_one_to_the_number_of_classes():
    assert classes.inception_score(ONE_HOT) == pytest.approx(7, rel=1e-12)
    assert classes.inception_score(torch.full((13, 7), 1 / 7)) == pytest.approx(1, abs=1e-7)
    assert classes.inception_score(torch.eye(7)[[3] * 13]) == pytest.approx(1, abs=1e-12)


def test_inception_score_of_two_half_sure_pictures():
    probs = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    expected = math.exp(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert classes.inception_score(probs) == pytest.approx(expected, rel=1e-12)


def test_entropy_and_histogram():
    counts = classes.histogram(ONE_HOT)
    assert counts.tolist() == [11] * 7
    assert classes.class_entropy(counts) == pytest.approx(math.log(7), rel=1e-12)
    assert classes.class_entropy(torch.tensor([0, 5, 0])) == 0


@pytest.mark.parametrize(
    ("counts", "expected", "missing"),
    [
        ([50, 50, 0], [1, 1, 1], 1),
        ([50, 47, 3], [1, 1, 1], 1),  # 3 < a tenth of 33.3
        ([50, 46, 4], [1, 1, 1], 0),
        ([97, 3, 0], [97, 3, 0], 0),  # rare or absent as in the data
        ([1, 0, 0], [0, 1, 1], 2),
    ],
)
def test_missing_classes(counts, expected, missing):
    assert classes.missing_classes(torch.tensor(counts), torch.tensor(expected)) == missing


def test_confidence_and_conditional_accuracy():
    probs = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]])
    assert classes.confidence(probs) == pytest.approx((0.9 + 0.6 + 0.7) / 3)
    assert classes.conditional_accuracy(probs, torch.tensor([0, 0, 0])) == pytest.approx(2 / 3)
