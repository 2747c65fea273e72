"""The extractors by name: a classifier trained on the data's own labels, or the pixels themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from generama.data.shards import Data
from generama.errors import UsageError, unknown
from generama.metrics.cache import cache_folder
from generama.metrics.classifier import classifier_features
from generama.metrics.features import Extractor, Features


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


def _pixels(data: Data, cache: Path) -> Extractor:
    if data.spec.levels == 0:
        return PixelFeatures(note="the coordinates of the points themselves", key="points-1")
    return PixelFeatures()


EXTRACTORS = {"classifier": classifier_features, "pixels": _pixels}


def extractor_for(data: Data, name: str | None = None, *, cache: Path | None = None) -> Extractor:
    """The extractor of that name; without one, the classifier where pictures have labels, pixels otherwise.

    Raises UsageError for an unknown name, or where the data cannot have that extractor.
    """
    if name is None:
        name = "classifier" if data.spec.classes > 1 and data.spec.levels else "pixels"
    if name not in EXTRACTORS:
        raise UsageError(unknown("extractor", name, EXTRACTORS))
    return EXTRACTORS[name](data, cache or cache_folder())
