"""Images measured beside data, as rows of a sheet: what the benchmarks of diffusion share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from benchmarks.page import REAL
from benchmarks.rows import Sheet, versions
from generama.data import Data
from generama.evaluation import evaluate_images
from generama.pixels import to_bytes
from generama.run import labels_of

PLAIN: dict[str, Any] = {"guidance": 1.0}  # guidance changes what is drawn, so samplers are compared without it
WORDS = {
    "frechet": "Fréchet distance",
    "conditional_accuracy": "conditional accuracy",
    "precision": "precision",
    "recall": "recall",
}


def measured(
    sheet: Sheet,
    whom: str,
    images: Tensor,
    data: Data,
    names: Sequence[str] = ("frechet",),
    real: str = REAL,
    targets: Mapping[str, str] = {},
) -> float:
    """Add a row for each of the measures, the first time also that of real pictures; the Fréchet distance.

    `images` (N, C, H, W) in [-1, 1] are of the seeds from 0. The target "2 floors" is twice what real pictures have.
    """
    found = evaluate_images(to_bytes(images), labels_of(data.spec, range(len(images))).label, data)
    for name in names:
        measure, what = found.measures[name], f"{WORDS[name]}, n = {found.n:,}"
        assert measure.value is not None and measure.floor is not None
        if not any((row.what, row.whom) == (what, real) for row in sheet.rows):
            sheet.add(what, real, [measure.floor], "", versions())
        target = targets.get(name, "").replace("2 floors", f"{2 * measure.floor:.4g}")
        sheet.add(what, whom, [measure.value], "", versions(), target=target)
    sheet.save()  # an hour's figures are not lost by what comes after
    distance = found.measures["frechet"].value
    assert distance is not None
    return distance
