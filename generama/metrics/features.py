"""Features: what an extractor sees in pictures, computed in batches and kept for the real ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from generama.metrics.cache import content_hash, fetch, store
from generama.pixels import to_float

BATCH = 1_000  # pictures turned into floats at once


@dataclass(frozen=True)
class Features:
    """What an extractor sees in N pictures."""

    values: Tensor  # (N, D) float
    probs: Tensor | None = None  # (N, K) class probabilities, where the extractor is a classifier of the data's classes


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
    """Features of stored pictures (N, C, H, W): uint8, or float32 points."""
    parts = [extractor(to_float(some)) for some in pixels.split(BATCH)]
    probs = [part.probs for part in parts if part.probs is not None]
    return Features(torch.cat([part.values for part in parts]), torch.cat(probs) if probs else None)


def kept_features(extractor: Extractor, pixels: Tensor, cache: Path) -> Features:
    """`features_of`, computed once for the same pictures and extractor: the real side of every comparison."""
    path = cache / "features" / f"{content_hash(pixels)[:24]}-{extractor.key[:24]}"
    kept = fetch(path)
    if kept is None:
        made = features_of(extractor, pixels)
        tensors = {"values": made.values} | ({} if made.probs is None else {"probs": made.probs})
        store(path, tensors, {"extractor": extractor.name, "note": extractor.note, "n": len(pixels)})
        return made
    return Features(kept[0]["values"], kept[0].get("probs"))
