"""What metrics.json shows: classes that are not drawn, and samples that are copies of training pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from generama.core import Finding
from generama.diagnosis.samples import listed
from generama.errors import Unseen
from generama.metrics.classes import MISSING
from generama.metrics.memorisation import RATIO

EXPECTED = 10  # samples of a class below which its absence may be chance: none at all has probability e^-10
RARE = 1 / 3  # of its expected share: a class is drawn too seldom
UNLIKE = 0.3  # of the precision of held-out pictures
SURPRISE = 4.0  # standard errors that a share lies above its floor
COPIES = 0.01  # share of copies, above the floor, that is worth a word
MANY_COPIES = 0.05


def dropped_classes(
    metrics: dict[str, Any], expected: Sequence[float], names: Sequence[str], asked: bool
) -> Iterator[Finding]:
    """Classes that the classifier hardly sees in the samples.

    `expected` are the shares (K,) that the classes should have: those `asked` for, or else those of the data.
    """
    counts = metrics.get("histogram")
    if not counts:
        raise Unseen("the classes of the samples are not known: that takes labels and a classifier trained on them")
    total = sum(counts)
    pairs = {name: (count, total * part) for name, count, part in zip(names, counts, expected, strict=True)}
    known = {name: pair for name, pair in pairs.items() if pair[1] >= EXPECTED}
    if not known:
        raise Unseen(f"{total} samples are too few to say which of {len(names)} classes are missing")
    missing = {name: pair for name, pair in known.items() if pair[0] < MISSING * pair[1]}
    rare = {name: pair for name, pair in known.items() if MISSING * pair[1] <= pair[0] < RARE * pair[1]}
    advice = "train longer, or again with another --train.seed; look at samples/main/grid.png for what is drawn instead"
    if not asked:
        advice += "; a model that is told the class can be asked for each"
    if missing:
        title = f"{listed(list(missing), 'Class', 'Classes')} hardly ever seen in the samples (dropped classes)"
        yield Finding("dropped-classes", "problem", title, counted(missing, total), advice)
    if rare:
        title = f"{listed(list(rare), 'Class', 'Classes')} too seldom seen in the samples"
        yield Finding("rare-classes", "warning", title, counted(rare, total), advice)


def counted(classes: dict[str, tuple[int, float]], total: int) -> str:
    """How often each class was seen and how often it should have been, in words."""
    never = [name for name, (count, _) in classes.items() if not count]
    some = [f"{name} ({count} times)" for name, (count, _) in classes.items() if count]
    parts = [f"never sees {listed(never, 'class', 'classes')}"] if never else []
    parts += [f"sees {listed(some, 'class', 'classes')}"] if some else []
    wanted = sorted({round(expected) for _, expected in classes.values()})
    about = f"{wanted[0]:,}" if len(wanted) == 1 else f"{wanted[0]:,} to {wanted[-1]:,}"
    return f"in {total:,} samples the classifier {' and '.join(parts)}; about {about} of each were expected"


def unlike(metrics: dict[str, Any]) -> Iterator[Finding]:
    """Samples that for the most part lie where no real picture does: precision far below its floor."""
    measure = metrics.get("measures", {}).get("precision", {})
    value, floor = measure.get("value"), measure.get("floor")
    if value is None or not floor:
        raise Unseen(measure.get("note") or "precision was not measured")
    if value < UNLIKE * floor:
        yield Finding(
            "unlike-the-data",
            "problem",
            "Most samples do not look like any real picture",
            f"by their features {value:.1%} of the samples lie among real ones, of held-out pictures {floor:.1%}",
            "look at samples/main/grid.png; train longer; if the loss does not fall, lower --train.rate",
        )


def memorised(metrics: dict[str, Any]) -> Iterator[Finding]:
    """Samples that are copies of training pictures, beyond what held-out pictures score by chance."""
    measure = metrics.get("measures", {}).get("memorised", {})
    value, floor, n = measure.get("value"), measure.get("floor") or 0.0, metrics.get("n", 0)
    if value is None or not n:
        raise Unseen(measure.get("note") or "copies of training pictures were not counted")
    error = math.sqrt(max(floor * (1 - floor), 1 / n) / n)
    if value - floor > max(COPIES, SURPRISE * error):
        shown = "".join(
            f"; sample {pair['sample']} is {pair['distance']:.1f} from training picture {pair['train']}"
            for pair in metrics.get("nearest", [])[:1]
        )
        yield Finding(
            "memorisation",
            "problem" if value - floor > MANY_COPIES else "warning",
            "Samples are copies of training pictures (memorisation)",
            f"{value:.1%} of {n} samples lie {1 / RATIO:.0f} times nearer to one training picture than to any other, "
            f"of real held-out pictures {floor:.1%}{shown}",
            "train for fewer passes over the data, with more pictures, or with a smaller network",
        )
