"""What makes two sets of pictures unfit for a fair comparison: each is a finding with its numbers and what to do.

Parmar et al. 2022 (clean-fid) measured what resampling and JPEG alone do to a Frechet distance: often more than models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from generama.core import Finding
from generama.data import Data, Meta
from generama.data.prepare import SIZES

LOSSY = ("JPEG", "WEBP", "GIF")  # formats that leave traces, or 256 colours
SHARE = 0.1  # by which two sides may differ in a format
FEW = 0.01  # share of copies above which they are more than chance
RULE = "cropped to the centred square and resampled by Lanczos with antialiasing"


def differences(data: Data, real: Data) -> Iterator[Finding]:
    """Whatever the two sides went through that was not the same for both."""
    size, mine, theirs = real.spec.size, data.meta, real.meta
    yield from _sizes(mine, theirs, f"{size}x{size}")
    for form in LOSSY:
        a, b = _share(mine, form), _share(theirs, form)
        if abs(a - b) > SHARE:
            yield Finding(
                "protocol-format",
                "warning",
                f"Stored as {_counted(mine.formats)}, the real pictures as {_counted(theirs.formats)}",
                f"{a:.0%} of these pictures and {b:.0%} of the real ones are {form}, whose traces are part of every "
                "distance",
                "write both sides in the same format, best as PNG from before any compression",
            )


def _sizes(mine: Meta, theirs: Meta, target: str) -> Iterator[Finding]:
    resized, real_resized = ({size for size in meta.sizes if size != target} for meta in (mine, theirs))
    if len(mine.sizes) > 1:
        count = f"{SIZES} sizes or more" if len(mine.sizes) == SIZES else f"{len(mine.sizes)} sizes"
        yield Finding(
            "several-sizes",
            "warning",
            f"The pictures have {count}: {_counted(mine.sizes)}",
            f"All that were not {target} were {RULE}, so they are not equally sharp",
            "write all pictures at one size",
        )
    elif resized and not real_resized:
        yield Finding(
            "protocol-resize",
            "warning",
            f"The pictures were resized from {_counted(mine.sizes)} to {target}; the real ones were not",
            f"They were {RULE}; resampling one side alone moves every distance",
            f"write the pictures at {target}, or bring both sides to a smaller size with --size",
        )
    elif real_resized and set(mine.sizes) != set(theirs.sizes):
        came = f"were resized from {_counted(mine.sizes)}" if resized else f"came as {target}"
        yield Finding(
            "protocol-resize",
            "note",
            f"The real pictures were resized from {_counted(theirs.sizes)} to {target}; these {came}",
            f"The real ones were {RULE}; a model that learned from pictures resized in another way pays for it here",
            f"let it learn from, or resize to {target} by, the same rule",
        )


def colours(grey: bool, real_grey: bool, name: str) -> Iterator[Finding]:
    """A note where one side has no colour."""
    if grey != real_grey:
        mine, theirs = ("grey", "in colour") if grey else ("in colour", "grey")
        yield Finding(
            "protocol-colour",
            "warning",
            f"The pictures are {mine}, those of {name} {theirs}",
            "Both sides were measured in colour, so the difference is part of every distance",
            "pass --grey to measure both in grey",
        )


def copies(data: Data, real: Data) -> Iterator[Finding]:
    """Pictures that are byte for byte real ones, or each other, once both sides have one size."""
    mine, theirs = digests(data.train.images), digests(real.train.images)
    count, unique = len(mine), len(np.unique(mine))
    in_train = int(np.isin(mine, theirs[real.train.index]).sum())
    in_held_out = int(np.isin(mine, theirs[real.held_out.index]).sum())
    either = int(np.isin(mine, theirs).sum())
    if either:
        yield Finding(
            "copies",
            "problem" if either > FEW * count else "warning",
            f"{either:,} of {count:,} pictures are exact copies of real ones",
            f"{in_train:,} occur among the {len(real.train):,} pictures of {real.meta.name} measured against, "
            f"{in_held_out:,} among its {len(real.held_out):,} held-out ones",
            "leave real pictures out of the folder; where a model made them, it has memorised them",
        )
    if unique < count:
        yield Finding(
            "repeats",
            "warning" if count - unique > FEW * count else "note",
            f"{count - unique:,} of {count:,} pictures repeat another one exactly",
            f"{unique:,} different pictures are there",
            "draw each picture with a seed of its own",
        )


def digests(images: np.ndarray) -> np.ndarray:
    """A hash (N,) uint64 of each of the pictures (N, C, H, W), equal for equal bytes."""
    hashes = (hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(b"".join(hashes), np.uint64)


def _share(meta: Meta, form: str) -> float:
    return meta.formats.get(form, 0) / max(1, sum(meta.formats.values()))


def _counted(counts: dict[str, int]) -> str:
    """The most frequent first: 'PNG', or '64x64 (990), 40x40 (10)'."""
    if len(counts) == 1:
        return next(iter(counts)).replace("array", "arrays")
    most = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} ({count:,})" for name, count in most[:3]) + (" ..." if len(most) > 3 else "")
