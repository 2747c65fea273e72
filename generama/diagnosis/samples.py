"""What samples show when they lie beside as many real pictures: too alike, repeated, blank, burnt out.

How varied pictures are is the root mean square distance between two of them; in how far a picture is repeated, the
distance to its nearest neighbour among the others. Both are taken beside the same number of held-out real pictures.
Every threshold stands in docs/diagnosis.md with the runs that it was tried on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from generama.core import Finding
from generama.errors import Unseen
from generama.metrics.pairs import blocks

FEWEST = 10  # pictures of which something can be said
ALIKE = 0.5  # two samples are this much as far apart as two real pictures: the whole set has collapsed
ALIKE_IN_CLASS = 0.3  # the same within a class: a class is simpler than the whole, and healthy models differ more in it
NEAR = 0.25  # of the median distance of a real picture to its nearest neighbour: a repetition
REPEATED = 0.25  # share of samples that are repetitions, above that of real pictures
BLANK = 0.1  # contrast, as a share of that of the real picture which has least of it
BLANK_SHARE = 0.01
BURNT = 0.5  # of the values that real pictures have between black and white, samples have fewer than this share


def mode_collapse(samples: Tensor, real: Tensor) -> Iterator[Finding]:
    """Mode collapse of samples (N, C, H, W): they differ far less than real pictures do, or a few come again and again.

    The first is seen in the distance between any two, the second in that to the nearest other one.
    """
    check_count(samples, real)
    ours, theirs = spread(samples), spread(real)
    between = to_nearest(real).median().item()
    copies, chance = ((to_nearest(x) <= NEAR * between).double().mean().item() for x in (samples, real))
    advice = (
        "look at previews/: when did it begin? Train again with another --train.seed or half the --train.rate; between "
        "two players give the generator fewer turns"
    )
    if ours < ALIKE * theirs:
        yield Finding(
            "mode-collapse",
            "problem",
            "The samples are nearly all alike (mode collapse)",
            f"two samples are on average {distance(ours, samples)} apart, two real ones {distance(theirs, samples)}",
            advice,
        )
    elif between > 0 and copies > chance + REPEATED:
        yield Finding(
            "repeated-samples",
            "problem",
            "The same few pictures are drawn again and again (mode collapse)",
            f"{copies:.0%} of the samples have another sample within {distance(NEAR * between, samples)}, "
            f"{chance:.0%} of the real pictures have another real one that near",
            advice,
        )


def collapsed_classes(
    samples: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor, names: Sequence[str]
) -> Iterator[Finding]:
    """Mode collapse within classes: the samples that were asked to be of one are nearly one picture."""
    check_count(samples, real)
    found, looked = [], 0
    for number, name in enumerate(names):
        ours, theirs = samples[labels == number], real[real_labels == number]
        if min(len(ours), len(theirs)) < FEWEST:
            continue
        looked += 1
        share = spread(ours) / max(spread(theirs), 1e-9)
        if share < ALIKE_IN_CLASS:
            found.append(f"{name} ({share:.0%})")
    if not looked:
        raise Unseen(f"no class has {FEWEST} samples and {FEWEST} held-out pictures")
    if found:
        yield Finding(
            "class-collapse",
            "problem" if len(found) > looked / 2 else "warning",
            f"Within {listed(found, 'class', 'classes')}, the samples are nearly all alike",
            f"how far two samples of a class are apart, as a share of two real pictures of it: {', '.join(found)}; "
            f"healthy models reach more than {ALIKE_IN_CLASS:.0%}",
            "train longer, or again with another --train.seed; where samples are drawn cold (temperature, truncation) "
            "or with much guidance, draw them plainer",
        )


def blank(samples: Tensor, real: Tensor) -> Iterator[Finding]:
    """Blank pictures: samples (N, C, H, W) of one value all over."""
    if samples.is_floating_point():
        raise Unseen("points have no pixels")
    ours, least = contrast(samples), contrast(real).min().item()
    count = int((ours < max(BLANK * least, 1e-9)).sum())
    if least > 0 and count > BLANK_SHARE * len(samples):
        yield Finding(
            "blank-samples",
            "problem",
            "Some samples are blank",
            f"{count} of {len(samples)} samples have a contrast below {BLANK * least:.1f} grey levels; "
            f"the flattest real picture has {least:.1f}",
            "train longer; if the loss is not falling, lower --train.rate",
        )


def burnt_out(samples: Tensor, real: Tensor) -> Iterator[Finding]:
    """Saturated pictures: samples (N, C, H, W) that are black and white where real pictures have tones."""
    if samples.is_floating_point():
        raise Unseen("points have no pixels")
    ours, theirs = tones(samples), tones(real)
    if ours < BURNT * theirs:
        yield Finding(
            "saturated-samples",
            "warning",
            "The samples are burnt out: black and white where real pictures have tones",
            f"{ours:.1%} of the values in the samples lie between black and white, {theirs:.1%} in real pictures",
            "draw with less guidance where the model has it; otherwise train longer, or lower --train.rate",
        )


def check_count(samples: Tensor, real: Tensor) -> None:
    """Raise Unseen where there are too few pictures to say anything."""
    if min(len(samples), len(real)) < FEWEST:
        raise Unseen(f"{len(samples)} samples and {len(real)} held-out pictures are too few; {FEWEST} are needed")


def not_numbers(images: Tensor) -> Iterator[Finding]:
    """Images (N, C, H, W) with a NaN or an infinity: nothing can be made of them."""
    bad = ~images.flatten(1).isfinite().all(1)
    if bad.any():
        yield Finding(
            "samples-not-finite",
            "problem",
            "It draws images that are not numbers",
            f"{int(bad.sum())} of {len(images)} images that were drawn now hold NaN or infinity; such are never saved",
            "the weights are finite but too large: train again with a lower --train.rate",
        )


def as_numbers(pictures: Tensor) -> Tensor:
    """Pictures (N, C, H, W) as rows of float32 numbers (N, D): grey levels, or coordinates."""
    return pictures.flatten(1).float()


def spread(pictures: Tensor) -> float:
    """Root mean square difference per number between two of the pictures (N, ...): E |x - y|^2 = 2 Var x."""
    return (2 * as_numbers(pictures).double().var(0).mean()).sqrt().item()


def to_nearest(pictures: Tensor) -> Tensor:
    """Root mean square difference per number of each picture (N, ...) to the nearest other one, (N,)."""
    x = as_numbers(pictures)
    parts = []
    for rows in blocks(len(x)):
        table = torch.cdist(x[rows], x)  # (R, N)
        table[torch.arange(len(table)), torch.arange(rows.start, rows.start + len(table))] = torch.inf
        parts.append(table.amin(1))
    return torch.cat(parts) / x.shape[1] ** 0.5


def contrast(pictures: Tensor) -> Tensor:
    """Standard deviation of the grey levels within each picture, (N,)."""
    return as_numbers(pictures).std(1, correction=0)


def tones(pictures: Tensor) -> float:
    """Share of values between black and white."""
    return ((pictures > 0) & (pictures < 255)).double().mean().item()


def distance(value: float, pictures: Tensor) -> str:
    """A distance in words, in the unit of the pictures."""
    return f"{value:.3g}" if pictures.is_floating_point() else f"{value:.1f} grey levels"


def listed(names: Sequence[str], one: str, many: str) -> str:
    """class 3, or classes 3, 5 and, after ten of them, 2 more."""
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"{one if len(names) == 1 else many} {shown}"
