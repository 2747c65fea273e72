"""From pictures to measures of copying: of training pictures, and within the samples; and the worst cases of both."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from generama.data import Split
from generama.metrics.bootstrap import of_share
from generama.metrics.choice import choose
from generama.metrics.measure import Measure
from generama.metrics.memorisation import RATIO, alike, authentic, duplicate, memorised, nearest

BANK = 60_000  # most training pictures searched for copies
BANK_BYTES = 200_000_000
SHOWN = 16  # worst cases that are kept for the report
KEYS = ("memorised", "authentic", "duplicates")


@dataclass(frozen=True)
class Copies:
    """The three shares, the samples most like training pictures, and the pairs of samples most alike."""

    measures: dict[str, Measure]
    nearest: list[dict[str, float]] = field(default_factory=list)
    duplicates: list[dict[str, float]] = field(default_factory=list)


def copies(samples: Tensor, held_out: Tensor, train: Split) -> Copies:
    """Look for copies among samples (n, C, H, W); the floor is that of as many held-out pictures."""
    rows = choose(len(train), max(2, min(BANK, BANK_BYTES // samples[0].numel())))
    bank = train.pixels(rows)
    if len(bank) < 2:
        return Copies({key: Measure(None, None, "needs 2 training pictures") for key in KEYS})
    found, floor = nearest(samples, bank), nearest(held_out, bank)
    hidden, seen = nearest(samples, held_out), nearest(held_out, bank[: len(held_out)])
    among, among_floor = nearest(samples, samples, others=True), nearest(held_out, held_out, others=True)
    searched = f"{len(rows):,} of {len(train):,} training pictures"
    notes = (
        f"nearer than {RATIO:.2f} x the second nearest of {searched}",
        f"by pixels, farther from the nearest of {searched} than that one from its nearest other",
        f"another sample is nearer than {RATIO:.2f} x the nearest of {len(held_out):,} held-out pictures",
    )
    hits = (memorised(found), authentic(found, bank), duplicate(among, hidden))
    limits = (memorised(floor), authentic(floor, bank), duplicate(among_floor, seen))
    intervals = (of_share(hits[0]), of_share(hits[1]), (None, None))  # duplicates are not independent
    measures = {
        key: Measure(hit.double().mean().item(), limit.double().mean().item(), note, *interval)
        for key, hit, limit, note, interval in zip(KEYS, hits, limits, notes, intervals, strict=True)
    }
    worst = found.ratio.sort(stable=True).indices[:SHOWN]
    pairs = [
        {
            "sample": int(i),
            "train": int(rows[found.index[i]]),
            "distance": found.first[i].item(),
            "held_out_distance": hidden.first[i].item(),
        }
        for i in worst
    ]
    return Copies(measures, pairs, alike(among, SHOWN))
