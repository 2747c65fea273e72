"""Measure samples against the data: distances, classes, memorisation, likelihood and cost, each beside its floor.

Everything is measured at one n, the smaller of the number of samples and of held-out pictures, against the same
training pictures; the floor is the same number for n held-out pictures, which is what a perfect generator would get.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generama.core import Generator
from generama.data import Data
from generama.errors import DataError, UsageError
from generama.files import write_json
from generama.metrics import classes
from generama.metrics.cache import cache_folder
from generama.metrics.checking import checked
from generama.metrics.choice import REFERENCE, choose
from generama.metrics.copies import copies
from generama.metrics.extractors import extractor_for, with_classes
from generama.metrics.features import Extractor, features_of, kept_features
from generama.metrics.likelihood import held_out_bits
from generama.metrics.measure import Measure
from generama.metrics.over_time import quality_over_time
from generama.metrics.protocol import protocol
from generama.metrics.quality import distance_measures
from generama.metrics.recognised import accuracy_by_class, by_class, class_measures, published_score
from generama.run import Run, load
from generama.unsafe import load_arrays


@dataclass(frozen=True)
class Evaluation:
    """What metrics.json says."""

    n: int
    extractor: str
    extractor_note: str
    reference: str
    protocol: dict[str, Any]  # rows of other protocols must not be ranked together: metrics/protocol.py
    measures: dict[str, Measure]
    per_class: dict[str, list[float | None]] = field(default_factory=dict)
    histogram: list[int] | None = None  # samples per predicted class
    nearest: list[dict[str, float]] = field(default_factory=list)  # the most suspicious samples first
    duplicates: list[dict[str, float]] = field(default_factory=list)  # the most alike pairs of samples first


def evaluate_images(
    images: Tensor | np.ndarray,
    labels: Tensor | np.ndarray | None,
    data: Data,
    extractor: Extractor | None = None,
    *,
    k: int = 5,
    cache: Path | None = None,
) -> Evaluation:
    """Measure images (N, C, H, W), uint8 (float points), against the data; labels (N,) are the classes asked for.

    Distances are those of the extractor's features; what is seen of classes is always seen by the data's classifier.
    Raises UsageError for arrays that are not what the data holds: floats, channels last, another size, fewer than two.
    """
    cache = cache or cache_folder()
    images = checked(images, data.spec)
    extractor = extractor or extractor_for(data, cache=cache)
    n = min(len(images), len(data.held_out))
    if n < 2:
        raise UsageError(
            f"a comparison needs 2 samples and 2 held-out pictures; got {len(images)}, {len(data.held_out)}"
        )
    images, asked = images[:n], None if labels is None else torch.as_tensor(labels).long()[:n]
    chosen, held_out = choose(len(data.train), REFERENCE), choose(len(data.held_out), n)
    hidden = data.held_out.pixels(held_out)
    real = kept_features(extractor, data.train.pixels(chosen), cache)
    floor, fake = kept_features(extractor, hidden, cache), features_of(extractor, images)
    seen = with_classes(fake, images, data, cache).probs
    seen_floor = with_classes(floor, hidden, data, cache).probs
    train = data.train.labels(chosen)
    measures = distance_measures(real.values, fake.values, floor.values, k)
    measures |= class_measures(seen, seen_floor, asked, data.held_out.labels(held_out), train)
    measures |= published_score(fake.scores, floor.scores)
    found = copies(images, hidden, data.train)
    return Evaluation(
        n,
        extractor.name,
        extractor.note,
        f"{len(chosen):,} of {len(data.train):,} training pictures of {data.meta.name}; floor: {n:,} held-out",
        protocol(data, extractor.key, n, len(chosen)),
        measures | found.measures,
        per_class(real.values, fake.values, train, asked, seen, data.spec.classes, k),
        None if seen is None else classes.histogram(seen).tolist(),
        found.nearest,
        found.duplicates,
    )


def per_class(
    real: Tensor,
    fake: Tensor,
    train: Tensor | None,
    asked: Tensor | None,
    seen: Tensor | None,
    count: int,
    k: int,
) -> dict[str, list[float | None]]:
    """The measures of each class: samples count as what was asked for, else as what the classifier sees in them."""
    label = asked if asked is not None else None if seen is None else seen.argmax(1)
    if train is None or label is None or count < 2:
        return {}
    found = by_class(real, fake, train, label, count, k)
    if asked is not None and seen is not None:
        found["conditional_accuracy"] = accuracy_by_class(seen, asked)
    return found


def evaluate_run(
    folder: Path,
    *,
    data: Data | None = None,
    extractor: str | None = None,
    generator: Generator | None = None,
    samples: str = "main",
    cache: Path | None = None,
) -> Evaluation:
    """Measure the samples of a run folder, add likelihood and cost, and write metrics.json there.

    Of other samples than the main ones metrics.json is written beside them, and `generator` is what drew them.
    `data` and `generator` are opened from what the run says of itself unless they are given; `cache` is the folder of
    classifiers and features. Raises UsageError where the run has no samples, DataError where its data has changed.
    """
    cache = cache or cache_folder()
    recipe, status = _read(folder / "recipe.json"), _read(folder / "status.json")
    data = data or Run.open(folder).data()
    if data.meta.hash != recipe["data"]["hash"]:
        raise DataError(f"{folder.name} was trained on other content of '{data.meta.name}'; name that data: --against")
    images, labels = read_samples(folder / "samples" / samples / "samples.npz")
    eye = extractor_for(data, extractor, cache=cache)
    found = evaluate_images(images, labels, data, eye, cache=cache)
    bits = {"bits_per_dim": held_out_bits(generator or load(folder).generator, data.held_out)}
    cost = cost_measures(status, _read(folder / "samples" / samples / "manifest.json"))
    found = replace(found, measures=found.measures | bits | cost)
    progress = quality_over_time(folder, data, eye, cache) if samples == "main" else {}
    target = folder if samples == "main" else folder / "samples" / samples
    write_json(target / "metrics.json", as_json(found) | progress)
    return found


def cost_measures(status: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Measure]:
    """Time, evaluations, parameters and memory, as training and sampling recorded them."""
    recorded = {
        "seconds_per_image": (manifest, "seconds_per_image", f"in batches of {manifest.get('batch', '?')}"),
        "seconds_one": (manifest, "seconds_one", "in a batch of one; the median of several"),
        "evaluations": (manifest, "evaluations", "sequential network evaluations per image"),
        "parameters": (status, "parameters", ""),
        "train_seconds": (status, "seconds", ""),
        "images_seen": (status, "images", ""),
        "train_flops": (status, "flops", "counted, forward and backward"),
        "peak_memory": (status, "peak_memory", "bytes"),
    }
    return {
        name: Measure(None, None, "not recorded") if source.get(key) is None else Measure(source[key], None, note)
        for name, (source, key, note) in recorded.items()
    }


def as_json(found: Evaluation) -> dict[str, Any]:
    """The content of metrics.json; a number that is not finite becomes null, and its note says so."""
    return asdict(replace(found, measures={name: _finite(measure) for name, measure in found.measures.items()}))


def _finite(measure: Measure) -> Measure:
    numbers = (measure.value, measure.floor, measure.low, measure.high)
    value, floor, low, high = (None if x is None or not math.isfinite(x) else x for x in numbers)
    lost = measure.value is not None and value is None
    return Measure(value, floor, f"not finite; {measure.note}" if lost else measure.note, low, high)


def read_samples(path: Path) -> tuple[Tensor, Tensor | None]:
    """Images (N, C, H, W) and the labels asked for, if any, from a samples.npz: (N, H, W, C) bytes or (N, 2) points."""
    try:
        arrays = load_arrays(path)
        images = torch.from_numpy(arrays["images"])
        labels = torch.from_numpy(arrays["labels"]) if "labels" in arrays else None
    except FileNotFoundError as error:
        raise UsageError(f"{path} is not there; sample first: generama sample {path.parents[2]}") from error
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); sample again") from error
    return (images[:, :, None, None] if images.ndim == 2 else images.permute(0, 3, 1, 2).contiguous()), labels


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UsageError(f"{path} is not there; is '{path.parent}' a finished run?") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error})") from error
