"""Measure samples against the data: distances, classes, memorisation, likelihood and cost, each beside its floor.

Everything is measured at one n, the smaller of the number of samples and of held-out pictures, against the same
training pictures; the floor is the same number for n held-out pictures, which is what a perfect generator would get.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generama.core import Generator, Spec
from generama.data import Data, Split
from generama.errors import DataError, UsageError
from generama.files import write_json
from generama.metrics import classes
from generama.metrics.cache import cache_folder
from generama.metrics.choice import REFERENCE, choose
from generama.metrics.distances import frechet, kid, precision_recall_density_coverage
from generama.metrics.extractors import extractor_for
from generama.metrics.features import Extractor, Features, features_of, kept_features
from generama.metrics.likelihood import held_out_bits
from generama.metrics.measure import Measure
from generama.metrics.memorisation import RATIO, memorised_share, nearest
from generama.metrics.over_time import quality_over_time
from generama.run import Run, load
from generama.unsafe import load_arrays

BANK = 60_000  # most training pictures searched for copies
BANK_BYTES = 200_000_000
SHOWN = 16  # nearest pairs that are kept for the report


@dataclass(frozen=True)
class Evaluation:
    """What metrics.json says."""

    n: int
    extractor: str
    extractor_note: str
    reference: str
    measures: dict[str, Measure]
    histogram: list[int] | None  # samples per predicted class
    nearest: list[dict[str, float]]  # the most suspicious samples first


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
    asked = None if labels is None else torch.as_tensor(labels).long()[:n]
    chosen, held_out = choose(len(data.train), REFERENCE), choose(len(data.held_out), n)
    real = kept_features(extractor, data.train.pixels(chosen), cache)
    floor = kept_features(extractor, data.held_out.pixels(held_out), cache)
    fake = features_of(extractor, images[:n])
    shares = data.train.labels(chosen)
    measures = distance_measures(real.values, fake.values, floor.values, k)
    measures |= class_measures(fake, floor, asked, data.held_out.labels(held_out), shares)
    copies, pairs = memorisation(images[:n], data.held_out.pixels(held_out), data.train)
    reference = f"{len(chosen):,} of {len(data.train):,} training pictures of {data.meta.name}; floor: {n:,} held-out"
    counts = None if fake.probs is None else classes.histogram(fake.probs).tolist()
    return Evaluation(n, extractor.name, extractor.note, reference, measures | {"memorised": copies}, counts, pairs)


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
        raise DataError(f"{folder.name} was trained on other content of '{data.meta.name}'; pass --data with that data")
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


def checked(images: Tensor | np.ndarray, spec: Spec) -> Tensor:
    """The images as a tensor (N, C, H, W) of the kind that the data stores, or a sentence that says what to do."""
    images = torch.as_tensor(images)
    if images.ndim != 4 or tuple(images.shape[1:]) != spec.shape:
        raise UsageError(_wrong_shape(tuple(images.shape), spec))
    if len(images) < 2:
        raise UsageError(f"{len(images)} sample has no distribution to measure; make at least 2, better 1,000")
    if spec.levels == 0:
        if not images.is_floating_point() or not bool(images.isfinite().all()):
            raise UsageError("points must be finite floats; look at the samples: the model has probably diverged")
        return images
    if images.dtype != torch.uint8:
        raise UsageError(_wrong_type(images))
    return images


def _wrong_shape(shape: tuple[int, ...], spec: Spec) -> str:
    channels, height, width = spec.shape
    if shape[1:] == (height, width, channels):
        return f"the images {shape} have their channels last; pass images.permute(0, 3, 1, 2)"
    wanted = f"the images have shape {shape}, the data (N, {channels}, {height}, {width})"
    if len(shape) == 4 and shape[2] == shape[3]:
        return f"{wanted}; open the data as they are: --size {shape[2]}{' --grey' if shape[1] == 1 else ''}"
    return f"{wanted}; pass a batch of that shape"


def _wrong_type(images: Tensor) -> str:
    kind = str(images.dtype).removeprefix("torch.")
    if images.is_floating_point() and not bool(images.isfinite().all()):
        return f"images must be uint8 in 0..255; these are {kind} and hold NaN or infinity: the model has diverged"
    low, high = images.min().item(), images.max().item()
    repair = "images.round().clamp(0, 255).to(torch.uint8)"
    if low < 0 and high <= 1.5:
        repair = "generama.pixels.to_bytes(images), which takes [-1, 1]"
    elif high <= 1:
        repair = "(images * 255).round().to(torch.uint8)"
    return f"images must be uint8 in 0..255; these are {kind} from {low:.4g} to {high:.4g}; pass {repair}"


def distance_measures(real: Tensor, fake: Tensor, floor: Tensor, k: int) -> dict[str, Measure]:
    """Distances of fake (n, D) to real (N, D), each beside that of floor (n, D).

    Precision, recall, density and coverage take n of the N, as in their papers: a ball's reach depends on how many
    points there are, so unequal sides would not be measured with one yardstick.
    """
    n, width = fake.shape
    warning = f"unreliable: n = {n} < {width} feature dimensions" if n < width else ""
    found = {
        "frechet": Measure(frechet(real, fake), frechet(real, floor), warning),
        "kid": Measure(kid(real, fake), kid(real, floor), "unbiased: may be slightly negative"),
    }
    names = ("precision", "recall", "density", "coverage")
    some = real[choose(len(real), n)]
    if len(some) <= k:
        return found | {name: Measure(None, None, f"needs more than {k} samples") for name in names}
    value = precision_recall_density_coverage(some, fake, k)
    limit = precision_recall_density_coverage(some, floor, k)
    note = f"k = {k}, against {len(some):,} training pictures"
    return found | {name: Measure(getattr(value, name), getattr(limit, name), note) for name in names}


def class_measures(
    fake: Features, floor: Features, asked: Tensor | None, truth: Tensor | None, train: Tensor | None
) -> dict[str, Measure]:
    """What a classifier sees in fake and in held-out pictures.

    `asked` (n,) classes wished for, `truth` (n,) those of the held-out pictures, `train` (N,) those of the training
    pictures, whose shares are expected of samples nobody wished a class for.
    """
    keys = ("inception_score", "class_entropy", "missing_classes", "confidence", "conditional_accuracy")
    if fake.probs is None or floor.probs is None or train is None:
        return {key: Measure(None, None, "needs the classifier, which needs labels") for key in keys}
    count = fake.probs.shape[1]
    seen, real = classes.histogram(fake.probs), classes.histogram(floor.probs)
    natural = train.bincount(minlength=count)
    expected = natural if asked is None else asked.bincount(minlength=count)
    accuracy = Measure(None, None, "the samples were not asked for a class")
    if asked is not None and truth is not None:
        values = (classes.conditional_accuracy(fake.probs, asked), classes.conditional_accuracy(floor.probs, truth))
        accuracy = Measure(*values, "recognised as the class asked for")
    scores = (classes.inception_score(fake.probs), classes.inception_score(floor.probs))
    missing = (classes.missing_classes(seen, expected), classes.missing_classes(real, natural))
    entropy = f"nats; at most {math.log(count):.3f}"
    return {
        "inception_score": Measure(*scores, f"from 1 to {count}; of this classifier, not the published score"),
        "class_entropy": Measure(classes.class_entropy(seen), classes.class_entropy(real), entropy),
        "missing_classes": Measure(*missing, "predicted for under a tenth of their expected share"),
        "confidence": Measure(classes.confidence(fake.probs), classes.confidence(floor.probs), "mean top probability"),
        "conditional_accuracy": accuracy,
    }


def memorisation(samples: Tensor, held_out: Tensor, train: Split) -> tuple[Measure, list[dict[str, float]]]:
    """The share of copies among samples (n, C, H, W) and held-out pictures, and the pairs most like copies."""
    rows = choose(len(train), max(2, min(BANK, BANK_BYTES // samples[0].numel())))
    bank = train.pixels(rows)
    if len(bank) < 2:
        return Measure(None, None, "needs 2 training pictures"), []
    found, floor = nearest(samples, bank), nearest(held_out, bank)
    note = f"nearer than {RATIO:.2f} x the second nearest of {len(rows):,} of {len(train):,} training pictures"
    worst = found.ratio.sort(stable=True).indices[:SHOWN]
    other = nearest(samples[worst], held_out).first
    pairs = [
        {
            "sample": int(i),
            "train": int(rows[found.index[i]]),
            "distance": found.first[i].item(),
            "held_out_distance": distance.item(),
        }
        for i, distance in zip(worst, other, strict=True)
    ]
    return Measure(memorised_share(found), memorised_share(floor), note), pairs


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
    value, floor = (None if x is None or not math.isfinite(x) else x for x in (measure.value, measure.floor))
    lost = measure.value is not None and value is None
    return Measure(value, floor, f"not finite; {measure.note}" if lost else measure.note)


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
