"""Features: what an extractor sees in pictures, computed in batches and kept for the real ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from generama.metrics.cache import content_hash, fetch, store
from generama.pixels import to_float
from generama.progress import track

BATCH = 200  # pictures turned into floats at once


@dataclass(frozen=True)
class Features:
    """What an extractor sees in N pictures."""

    values: Tensor  # (N, D) float
    probs: Tensor | None = None  # (N, K) class probabilities, where the extractor is a classifier of the data's classes
    scores: Tensor | None = None  # (N, K) probabilities of other classes (ImageNet's), for the Inception score alone


class Extractor(Protocol):
    """Pictures to features. Numbers in different extractors, or in other weights of one, are not comparable."""

    @property
    def name(self) -> str: ...
    @property
    def note(self) -> str: ...  # what it is, in words for a report
    @property
    def key(self) -> str: ...  # changes whenever its features would

    def __call__(self, images: Tensor) -> Features:
        """Features of images (B, C, H, W) in [-1, 1]."""
        ...


def features_of(extractor: Extractor, pixels: Tensor) -> Features:
    """Features of stored pictures (N, C, H, W): uint8, or float32 points. On the CPU, wherever they were computed."""
    some = pixels.split(BATCH)
    parts = [extractor(to_float(part)) for part in track(f"features ({extractor.name})", some, len(some))]
    found = {name: [getattr(part, name) for part in parts] for name in ("values", "probs", "scores")}
    return Features(**{name: torch.cat(made).cpu() for name, made in found.items() if made[0] is not None})


def kept_features(extractor: Extractor, pixels: Tensor, cache: Path) -> Features:
    """`features_of`, computed once for the same pictures and extractor: the real side of every comparison."""
    path = cache / "features" / f"{content_hash(pixels)[:24]}-{extractor.key[:24]}"
    kept = fetch(path)
    if kept is not None:
        return Features(**kept[0])
    made = features_of(extractor, pixels)
    tensors = {name: tensor for name, tensor in vars(made).items() if tensor is not None}
    store(path, tensors, {"extractor": extractor.name, "note": extractor.note, "n": len(pixels)})
    return made
