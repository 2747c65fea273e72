"""Classes as 0, 1, 2 ..., whatever the source calls them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from generama.errors import DataError


@dataclass(frozen=True)
class Classes:
    """The class of every picture, and what the classes are called."""

    labels: np.ndarray  # (N,) int64 in 0..len(names)-1
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def as_classes(values: np.ndarray, count: int, where: str, names: Sequence[str] = ()) -> Classes:
    """Labels (N,) or (N, 1), whole numbers or text, as classes; numbers that are not 0..K-1 are renumbered.

    `names` are those the source gives for 0, 1, 2 ...; `where` is the file an error names.
    """
    values = values.reshape(-1) if values.ndim == 2 and values.shape[1] == 1 else values
    if values.shape != (count,):
        raise DataError(f"{where} has labels of shape {values.shape} for {count} pictures; one a picture is needed")
    if values.dtype.kind not in "US" and not (values.dtype.kind in "buif" and np.array_equal(values, np.rint(values))):
        raise DataError(f"{where} has labels of type {values.dtype}; classes are whole numbers or text")
    present, labels = np.unique(values, return_inverse=True)
    if values.dtype.kind in "US":
        return Classes(labels.astype(np.int64), tuple(str(value) for value in present))
    present = present.astype(np.int64)
    if names:
        if present[0] < 0 or present[-1] >= len(names):
            wrong = int(present[0] if present[0] < 0 else present[-1])
            raise DataError(f"{where} has the label {wrong}, but its class names are numbered 0 to {len(names) - 1}")
        return Classes(present[labels], tuple(names))
    numbered = tuple(str(value) for value in present)
    if np.array_equal(present, np.arange(len(present))):
        return Classes(labels.astype(np.int64), numbered)
    few = ", ".join(numbered[:10]) + (" ..." if len(numbered) > 10 else "")
    return Classes(labels.astype(np.int64), numbered, (f"the labels {few} are numbered 0 to {len(present) - 1} here",))
