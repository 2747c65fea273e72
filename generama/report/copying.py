"""Are samples copies? The most suspicious of them beside their nearest training and held-out pictures, and twins."""

from __future__ import annotations

import numpy as np

from generama.report import embed
from generama.report.embed import Picture, Samples
from generama.report.figures import Film, Real
from generama.report.numbers import show
from generama.report.records import Neighbour
from generama.report.table import Row

SEARCHED = 20_000  # most held-out pictures that are searched


def worst_cases(rows: list[Row], real: Real, most: int = 6) -> list[Film]:
    """The samples most like copies: (sample, nearest training picture, nearest held-out picture where it is known)."""
    found = []
    for row in rows:
        samples = embed.load_samples(row.first)
        if samples is None or samples.points:
            continue
        pairs = [pair for pair in row.first.neighbours if 0 <= pair.sample < len(samples.images)][:most]
        strangers = _held_out(pairs, samples, real)
        frames = [
            (_distances(pair), pictures)
            for i, pair in enumerate(pairs)
            if (pictures := _case(row, pair, samples, real, strangers.get(i)))
        ]
        if frames:
            found.append(Film(row.label, row.colour, frames, caption=_shares(row)))
    return found


def _case(
    row: Row, pair: Neighbour, samples: Samples, real: Real, stranger: np.ndarray | None
) -> tuple[Picture, ...] | None:
    twin = real.pictures("train", [pair.train])
    if twin is None:
        return None
    shown = [
        embed.single(samples.images[pair.sample], f"Sample {pair.sample} of {row.label}"),
        embed.single(twin[0], f"Nearest training picture, number {pair.train}"),
    ]
    if stranger is not None:
        shown.append(embed.single(stranger, "Nearest held-out picture"))
    return tuple(shown)


def _distances(pair: Neighbour) -> str:
    beside = "" if pair.held_out_distance is None else f" / {show(pair.held_out_distance)}"
    return show(pair.distance) + beside


def _held_out(pairs: list[Neighbour], samples: Samples, real: Real) -> dict[int, np.ndarray]:
    """The held-out picture nearest to each sample by place in `pairs`, in the pixels that distances are taken in."""
    import torch

    from generama.metrics.memorisation import nearest

    if real.data is None or not pairs or not len(real.data.held_out):
        return {}
    bank = real.pictures("held_out", list(range(min(len(real.data.held_out), SEARCHED))))
    chosen = samples.images[[pair.sample for pair in pairs]]
    if bank is None or bank.shape[1:] != chosen.shape[1:]:
        return {}
    rows = nearest(torch.from_numpy(chosen), torch.from_numpy(bank)).index.tolist()
    return {i: bank[row] for i, row in enumerate(rows)}


def twins(rows: list[Row], most: int = 8) -> list[Film]:
    """The pairs of samples that are most alike."""
    found = []
    for row in rows:
        samples = embed.load_samples(row.first)
        if samples is None or samples.points:
            continue
        frames = [
            (
                show(pair.distance),
                tuple(embed.single(samples.images[i], f"Sample {i} of {row.label}") for i in (pair.a, pair.b)),
            )
            for pair in row.first.twins
            if min(pair.a, pair.b) >= 0 and max(pair.a, pair.b) < len(samples.images)
        ]
        if frames:
            cell = row.cell("duplicates")
            share = "" if cell.mean is None else f"{show(cell.mean, 'share')} of the samples have a near twin"
            beside = "" if cell.floor is None or not share else f"; of real pictures {show(cell.floor, 'share')}"
            found.append(Film(row.label, row.colour, frames[:most], caption=f"{share}{beside}." if share else ""))
    return found


def _shares(row: Row) -> str:
    """How many of all samples count as copies, and how many as authentic."""
    parts = []
    for key, words in (("memorised", "count as copies"), ("authentic", "are authentic")):
        cell = row.cell(key)
        if cell.mean is not None:
            beside = "" if cell.floor is None else f" (of real held-out pictures {show(cell.floor, 'share')})"
            parts.append(f"{show(cell.mean, 'share')} of the samples {words}{beside}")
    return f"{'; '.join(parts)}." if parts else ""
