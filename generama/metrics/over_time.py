"""Quality over training time: the pictures that a run kept at its previews, measured as its samples are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from generama.data import Data
from generama.errors import DataError, UsageError
from generama.metrics.choice import REFERENCE, choose
from generama.metrics.distances import frechet
from generama.metrics.features import Extractor, features_of, kept_features
from generama.metrics.kernel import kid
from generama.unsafe import load_arrays


def quality_over_time(run: Path, data: Data, extractor: Extractor, cache: Path) -> dict[str, Any]:
    """What metrics.json says under "progress": n, the floor, and a point a preview; {} where the run kept no pictures.

    A point has the training seconds, the pictures seen, the share of the budget, and both distances to the training
    pictures at this n. n is smaller than that of the samples, and a Fréchet distance grows as n falls, so it stands
    beside its own floor; the kernel distance has no such bias.
    """
    kept = sorted(path for path in (run / "previews").glob("*.npz") if path.stem.isdecimal())
    previews = [(int(path.stem), arrays) for path in kept if (arrays := _read(path))]
    if not previews:
        return {}
    n = min([len(data.held_out), *(len(arrays["images"]) for _, arrays in previews)])
    real = kept_features(extractor, data.train.pixels(choose(len(data.train), REFERENCE)), cache).values
    held_out = data.held_out.pixels(choose(len(data.held_out), n))
    points = []
    for seen, arrays in previews:
        images = torch.from_numpy(arrays["images"][:n])
        images = images[:, :, None, None] if images.ndim == 2 else images.permute(0, 3, 1, 2).contiguous()
        spent = {"seconds": float(arrays["seconds"]), "images": seen, "share": float(arrays["share"])}
        points.append(spent | _distances(real, features_of(extractor, images).values))
    floor = _distances(real, kept_features(extractor, held_out, cache).values)
    return {"progress": {"n": n, "floor": floor, "points": points}}


def seconds_to(points: Sequence[dict[str, Any]], level: float) -> float | None:
    """Training seconds at the first preview whose kernel distance is at most `level`; None where none is.

    An upper bound: the level may have been reached at any time since the preview before.
    """
    reached = (p["seconds"] for p in points if p["kid"] is not None and p["kid"] <= level)
    return next(reached, None)


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a preview; empty where the file is damaged: a point less, which is no reason to fail."""
    try:
        arrays = load_arrays(path)
    except DataError:
        return {}
    return arrays if {"images", "seconds", "share"} <= arrays.keys() else {}


def _distances(real: torch.Tensor, fake: torch.Tensor) -> dict[str, float | None]:
    """Both distances; None where there are too few pictures, or where they are not numbers."""
    try:
        return {"frechet": frechet(real, fake), "kid": kid(real, fake)}
    except UsageError:
        return {"frechet": None, "kid": None}
