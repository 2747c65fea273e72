"""What the data themselves show: classes out of balance, pictures that occur twice, in both splits, or are blank."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from generama.core import Finding
from generama.data import Split
from generama.errors import Unseen

MOST_BYTES = 2_000_000_000  # of each split that are looked at: a few seconds
BLOCK = 1_000  # pictures read at once
UNBALANCED = 10  # the largest class over the smallest, from which on rare classes suffer (Buda et al. 2018)
UNEVEN = 3
SOME = 0.01  # share of the pictures that makes a note a warning


@dataclass(frozen=True)
class Contents:
    """What a split holds, picture by picture."""

    digests: np.ndarray  # (n,) uint64, equal for equal pictures
    blank: np.ndarray  # (n,) bool: one value all over
    total: int  # pictures of the split, of which the first n were read


def contents(split: Split) -> Contents:
    """Read a split once, block by block."""
    size = int(np.prod(split.images.shape[1:])) * split.images.itemsize
    count = min(len(split), MOST_BYTES // size)
    digests, blank = np.zeros(count, np.uint64), np.zeros(count, bool)
    for start in range(0, count, BLOCK):
        rows = split.pixels(slice(start, min(start + BLOCK, count))).flatten(1).numpy()
        for i, row in enumerate(rows, start):
            digests[i] = int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little")
        blank[start : start + len(rows)] = rows.min(1) == rows.max(1)
    return Contents(digests, blank, len(split))


def leaked(train: Contents, held_out: Contents) -> Iterator[Finding]:
    """Held-out pictures that are training pictures too: what is measured on them is flattered."""
    shared = int(np.isin(held_out.digests, train.digests).sum())
    if shared:
        share = shared / len(held_out.digests)
        yield Finding(
            "leakage",
            "problem" if share >= SOME else "warning",
            "Held-out pictures are also in the training data (leakage)",
            f"{shared:,} of {seen(held_out)} held-out pictures ({share:.1%}) are, byte for byte, among "
            f"{seen(train)} training pictures; every floor and bits/dim is better than it should be",
            "remove the copies from the source and prepare it again",
        )


def duplicated(train: Contents) -> Iterator[Finding]:
    """Training pictures that occur more than once: a model draws them more often, and learns them by heart first."""
    _, counts = np.unique(train.digests, return_counts=True)
    spare = int((counts - 1).sum())
    if spare:
        share = spare / len(train.digests)
        yield Finding(
            "duplicates",
            "warning" if share >= SOME else "note",
            "Training pictures occur more than once",
            f"{spare:,} of {seen(train)} training pictures ({share:.1%}) are copies of another one; the most frequent "
            f"occurs {int(counts.max()):,} times",
            "remove the copies from the source and prepare it again: models memorise what they see often",
        )


def blank(train: Contents) -> Iterator[Finding]:
    """Training pictures without any contrast."""
    count = int(train.blank.sum())
    if count:
        share = count / len(train.blank)
        yield Finding(
            "blank-pictures",
            "problem" if share > 0.5 else "warning" if share >= SOME else "note",
            "Training pictures are blank",
            f"{count:,} of {seen(train)} training pictures ({share:.1%}) have one value in every pixel",
            "look at the source: were they read as they should be? Remove them and prepare it again",
        )


def unbalanced(train: Split, names: Sequence[str]) -> Iterator[Finding]:
    """Classes of very different size, or with no training picture at all."""
    labels = train.labels(slice(None))
    if labels is None:
        raise Unseen("the data has no labels")
    counts = torch.bincount(labels, minlength=len(names)).tolist()
    named = dict(zip(names, counts, strict=False))
    least, most = min(named, key=named.__getitem__), max(named, key=named.__getitem__)
    ratio = named[most] / max(named[least], 1)
    if ratio >= UNEVEN or not named[least]:
        yield Finding(
            "unbalanced-classes",
            "warning" if ratio >= UNBALANCED or not named[least] else "note",
            f"The classes are unbalanced: {most} has {named[most]:,} training pictures, {least} {named[least]:,}",
            f"{ratio:.1f} times as many; rare classes are learned later and worse, and count little in one number for "
            "all: look at the numbers of each class",
            "add pictures of the rare classes, or train on as many of each",
        )


def seen(part: Contents) -> str:
    """How many pictures were read, and of how many."""
    read = len(part.digests)
    return f"{read:,}" if read == part.total else f"the first {read:,} of {part.total:,}"
