"""The extractors by name: what is made of the data itself, and networks that others trained."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from generama.data.shards import Data
from generama.errors import UsageError, unknown
from generama.machine import pick_device
from generama.metrics import inception
from generama.metrics.cache import cache_folder
from generama.metrics.classifier import classifier_features
from generama.metrics.efficientnet import efficientnet_features
from generama.metrics.features import Extractor, Features, features_of
from generama.metrics.vision_transformers import clip_features, dinov2_features
from generama.metrics.weights import found


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


OF_THE_DATA = {"classifier": classifier_features, "pixels": _pixels}
PRETRAINED = {
    "efficientnet": efficientnet_features,
    "inception": inception.inception_features,
    "dinov2": dinov2_features,
    "clip": clip_features,
}
EXTRACTORS = (*OF_THE_DATA, *PRETRAINED)


def extractor_for(
    data: Data, name: str | None = None, *, cache: Path | None = None, device: str | torch.device | None = None
) -> Extractor:
    """The extractor of that name; without one, the classifier where pictures have labels, pixels otherwise.

    'NAME:PATH' takes a pretrained one's weights from a file or folder. `device` is where pretrained networks run, by
    default the GPU where there is one. Raises UsageError for an unknown name, or where the data cannot have that
    extractor; DataError or UnsafeFile where weights are not to be had.
    """
    cache = cache or cache_folder()
    if name is None:
        name = "classifier" if data.spec.classes > 1 and data.spec.levels else "pixels"
    name, _, path = name.partition(":")
    if name not in EXTRACTORS:
        raise UsageError(unknown("extractor", name, EXTRACTORS))
    if name in OF_THE_DATA:
        if path:
            raise UsageError(f"the extractor '{name}' is made of the data and takes no path; write '{name}'")
        return OF_THE_DATA[name](data, cache)
    if data.spec.levels == 0:
        raise UsageError(f"'{data.meta.name}' holds points, not pictures; use the extractor 'pixels'")
    where = pick_device(None if device is None else str(device))
    return PRETRAINED[name](Path(path).expanduser() if path else None, cache, where)


def class_extractor(data: Data, cache: Path | None = None) -> Extractor | None:
    """The extractor whose `probs` are of the data's own classes, whatever the distances are taken in.

    None where the data has no labels, or no pictures.
    """
    if data.spec.classes < 2 or data.spec.levels == 0:
        return None
    return classifier_features(data, cache or cache_folder())


def with_classes(found: Features, pixels: Tensor, data: Data, cache: Path) -> Features:
    """Features with probabilities of the data's classes: the same where they have them, else the classifier's.

    `pixels` (N, C, H, W) are the pictures in which `found` was seen. Without labels they are what they were.
    """
    judge = class_extractor(data, cache) if found.probs is None else None
    return found if judge is None else features_of(judge, pixels)


def available(cache: Path | None = None) -> list[tuple[str, str]]:
    """Each extractor, and whether it works on this machine or what it needs first: (name, finding)."""
    here = "works here"
    file = found(inception.PUBLISHED, cache or cache_folder())
    fetch = f"fetches {inception.PUBLISHED.size / 1e6:.0f} MB on first use"
    extras = {
        "features": importlib.util.find_spec("efficientnet_lite_pytorch"),
        "transformers": importlib.util.find_spec("transformers"),
    }
    needs = {extra: f"needs pip install 'generama[{extra}]'" for extra in extras}
    hub = "works here; fetches 1.2 to 1.7 GB on first use" if extras["transformers"] else needs["transformers"]
    return [
        ("classifier", f"{here}, for pictures with labels"),
        ("pixels", here),
        ("efficientnet", here if extras["features"] else needs["features"]),
        ("inception", f"{here}: {file}" if file else fetch),
        ("dinov2", hub),
        ("clip", hub),
    ]
