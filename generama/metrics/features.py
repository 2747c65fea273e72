"""From pictures to features: an extractor is a name, a note and a function of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from generama.errors import UsageError, unknown
from generama.metrics.cache import cache_folder, content_hash, fetch, store
from generama.pixels import to_float

if TYPE_CHECKING:
    from generama.data.shards import Data

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


@dataclass(frozen=True)
class PixelFeatures:
    """Extractor: the pixels themselves, averaged to at most 8x8 so that D stays below n; points as they are."""

    name: str = "pixels"
    note: str = "pixels averaged to at most 8x8; sees layout and colour, not texture or meaning"
    key: str = "pixels-1"
    side: int = 8

    def __call__(self, images: Tensor) -> Features:
        """Images (B, C, H, W) in [-1, 1] -> features (B, C * min(H, 8) * min(W, 8))."""
        height, width = images.shape[2:]
        small = nn.functional.adaptive_avg_pool2d(images, (min(height, self.side), min(width, self.side)))
        return Features(small.flatten(1))


def _classifier(data: Data, cache: Path) -> Extractor:
    from generama.metrics.classifier import classifier_features

    return classifier_features(data, cache)


def _pixels(data: Data, cache: Path) -> Extractor:
    if data.spec.levels == 0:
        return PixelFeatures(note="the coordinates of the points themselves", key="points-1")
    return PixelFeatures()


EXTRACTORS = {"classifier": _classifier, "pixels": _pixels}


def extractor_for(data: Data, name: str | None = None, *, cache: Path | None = None) -> Extractor:
    """The extractor of that name; without one, the classifier where pictures have labels, pixels otherwise.

    Raises UsageError for an unknown name, or where the data cannot have that extractor.
    """
    if name is None:
        name = "classifier" if data.spec.classes > 1 and data.spec.levels else "pixels"
    if name not in EXTRACTORS:
        raise UsageError(unknown("extractor", name, EXTRACTORS))
    return EXTRACTORS[name](data, cache or cache_folder())


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
