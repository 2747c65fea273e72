"""A data set of the Hugging Face hub, by name, through the package `datasets` (the extra 'hub')."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from generama.data.contents import Contents, Picture, Source
from generama.data.labels import as_classes
from generama.errors import DataError, UsageError

TRAIN = "train"
TESTS = ("test", "validation", "valid", "val")


def find_hub(name: str) -> Source:
    """The source for 'NAME' or 'NAME:CONFIG' on the hub, or for the folder of a data set saved with save_to_disk.

    Its column of pictures is the one of type Image; the first ClassLabel gives labels, a text column 'text' or
    'caption' gives captions; 'test' (else 'validation') becomes the held-out split. Downloads are cached by
    `datasets`, which works offline afterwards. Raises UsageError where the extra is missing, DataError otherwise.
    """
    try:
        import datasets
    except ImportError:
        raise UsageError(f"hub:{name} needs the extra 'hub': pip install 'generama[hub]'") from None
    try:
        if Path(name).is_dir():
            loaded = datasets.load_from_disk(name)
        else:
            repository, _, config = name.partition(":")
            loaded = datasets.load_dataset(repository, config or None)
    except Exception as error:  # the package raises its own, the network's and the disk's errors
        raise DataError(f"hub:{name} cannot be loaded: {error}") from error
    parts = dict(loaded) if isinstance(loaded, Mapping) else {TRAIN: loaded}
    if TRAIN not in parts:
        raise DataError(f"hub:{name} has the parts {', '.join(map(str, parts))}, but no '{TRAIN}' to learn from")
    test = next((part for part in TESTS if part in parts), None)
    chosen = [parts[TRAIN]] + ([parts[test]] if test else [])
    state = repr([part._fingerprint for part in chosen])
    return Source(
        name.rstrip("/").rsplit("/", 1)[-1], state, partial(_load, name, chosen, datasets.Image(decode=False))
    )


def _load(name: str, parts: list[Any], encoded: Any) -> Contents:
    features = parts[0].features
    image = next((key for key, kind in features.items() if type(kind).__name__ == "Image"), None)
    label = next((key for key, kind in features.items() if type(kind).__name__ == "ClassLabel"), None)
    text = next((key for key in ("text", "caption") if getattr(features.get(key), "dtype", "") == "string"), None)
    if image is None:
        raise DataError(f"hub:{name} has no column of pictures; its columns are {', '.join(features)}")
    counts = [len(part) for part in parts]
    classes = None
    if label is not None:
        values = np.concatenate([np.asarray(part[label][:]) for part in parts])
        classes = as_classes(values, sum(counts), f"hub:{name}", features[label].names)
    held_out = np.repeat(np.arange(len(parts)) > 0, counts)
    return Contents(
        count=sum(counts),
        pictures=(picture for part in parts for picture in _pictures(name, part.cast_column(image, encoded), image)),
        labels=classes.labels if classes else None,
        class_names=classes.names if classes else (),
        captions=[str(caption) for part in parts for caption in part[text][:]] if text else None,
        held_out=held_out if held_out.any() else None,
        licence=parts[0].info.license or "",
    )


def _pictures(name: str, part: Any, image: str) -> Iterator[Picture]:
    for i, row in enumerate(part.select_columns([image])):
        yield Picture(f"picture {i} of hub:{name} ({part.split})", partial(_bytes, name, i, row[image]))


def _bytes(name: str, row: int, cell: Mapping[str, Any]) -> bytes:
    """The encoded file in a cell, which holds its bytes or the path of a local file."""
    if cell.get("bytes"):
        return cell["bytes"]
    try:
        return Path(cell["path"]).read_bytes()
    except (OSError, TypeError, KeyError) as error:
        raise DataError(f"picture {row} of hub:{name} has neither bytes nor a readable file ({error})") from error
