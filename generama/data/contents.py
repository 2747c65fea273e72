"""What every kind of source hands to `prepare`: pictures one at a time, and what is known of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Picture:
    """One picture as its source has it, and the name by which an error calls it."""

    name: str
    content: np.ndarray | Callable[[], bytes]  # (H, W) or (H, W, C) uint8, or how to read an encoded file


@dataclass(frozen=True)
class Contents:
    """All that a source holds. Rows of `labels`, `captions`, `file_names`, `held_out` and `seeds` follow `pictures`."""

    count: int
    pictures: Iterable[Picture] = ()
    points: np.ndarray | None = None  # (N, 2) float32 in place of pictures, for 2-D data
    labels: np.ndarray | None = None  # (N,) int64 in 0..len(class_names)-1
    class_names: tuple[str, ...] = ()
    captions: Sequence[str] | None = None
    file_names: Sequence[str] | None = None
    held_out: np.ndarray | None = None  # (N,) bool: the source's own test split
    seeds: np.ndarray | None = None  # (N,) int64: of pictures that a model drew, the seeds of their noise
    licence: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where data comes from: cheap to find, read only when `load` is called."""

    name: str  # short, fit for a folder name
    state: str  # changes when the content does: path, sizes and times, or a version
    load: Callable[[], Contents]
