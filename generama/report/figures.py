"""The pictures of the report, section by section: what each row of the table drew, learned and resembles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from generama.errors import GeneramaError
from generama.report import embed, plots
from generama.report.axes import short
from generama.report.embed import Picture
from generama.report.numbers import show
from generama.report.records import Comparison, Run
from generama.report.table import BY_KEY, Row, title

if TYPE_CHECKING:
    from generama.data import Data

WIDE = 10  # pictures in a row of a grid
TALL = 5
STEPPED = 8  # pictures that are shown growing out of noise


@dataclass(frozen=True)
class Figure:
    """One figure with its caption; `note` stands in where there is nothing to show."""

    label: str
    colour: int | None
    picture: Picture | None = None
    drawing: Markup | None = None
    caption: str = ""
    note: str = ""


@dataclass(frozen=True)
class Film:
    """Previews of one run over training, or pairs of neighbours: small figures in order."""

    label: str
    colour: int
    frames: list[tuple[str, tuple[Picture, ...]]]
    caption: str = ""
    note: str = ""


@dataclass(frozen=True)
class Real:
    """The data the runs were trained on, or the sentence that says why it cannot be shown."""

    data: Data | None
    note: str = ""

    def pictures(self, split: str, rows: list[int]) -> np.ndarray | None:
        """(N, H, W, C) uint8 of a split, or None where those rows are not pictures of this data."""
        import torch

        if self.data is None or not rows:
            return None
        part = self.data.train if split == "train" else self.data.held_out
        if min(rows) < 0 or max(rows) >= len(part):
            return None
        pixels = part.pixels(torch.tensor(rows, dtype=torch.int64))
        return pixels.permute(0, 2, 3, 1).numpy() if pixels.dtype == torch.uint8 else None


def open_real(comparison: Comparison) -> Real:
    """The data named in the runs, if it is still there and still the same."""
    about = next((run.data for run in comparison.runs if run.data.get("source")), {})
    if not about:
        return Real(None, "The runs do not say which data they were trained on, so real pictures are not shown.")
    from generama.data import open_data

    try:
        pictures = all(run.spec.get("levels") != 0 for run in comparison.runs)  # 2-D points have no size and no colour
        asked: dict[str, Any] = {"size": about.get("size"), "grey": about.get("grey")} if pictures else {}
        data = open_data(str(about["source"]), **asked)
    except (GeneramaError, OSError, ValueError, TypeError) as error:
        return Real(None, f"The data could not be opened ({error}), so real pictures are not shown.")
    if about.get("hash") and data.meta.hash != about["hash"]:
        return Real(None, "The data has changed since training, so real pictures are not shown.")
    return Real(data)


def gallery(rows: list[Row]) -> list[Figure]:
    """Grids side by side, columns of one class where there are classes."""
    found = []
    wide = _columns(rows)
    for row in rows:
        samples = embed.load_samples(row.first)
        about = Figure(row.label, row.colour)
        if samples is None:
            found.append(replace(about, note=_why_no_samples(row.first)))
        elif samples.points:
            alt = f"{len(samples.images)} points drawn by {row.label}"
            found.append(replace(about, drawing=plots.cloud(samples.images, row.colour, alt), caption=_drawn(row)))
        else:
            images = samples.images[: wide * TALL]
            alt = f"{len(images)} pictures drawn by {row.label}, seeds 0 to {len(images) - 1}"
            found.append(replace(about, picture=embed.grid(images, wide, alt), caption=_drawn(row)))
    return found


def _drawn(row: Row) -> str:
    """What it took to draw the pictures."""
    calls, seconds = row.cell("evaluations").mean, row.cell("seconds_per_image").mean
    parts = []
    if calls is not None:
        parts.append(f"{show(calls, 'count')} network evaluation{'' if calls == 1 else 's'}")
    if seconds is not None:
        parts.append(f"{show(seconds, 'seconds')} an image")
    distance = row.cell("frechet").mean
    if distance is not None:
        parts.append(f"{title(BY_KEY['frechet'], [row])} {show(distance)}")
    return " · ".join(parts)


def _why_no_samples(run: Run) -> str:
    if run.state == "failed":
        return f"This run failed: {run.error or 'it does not say why'}"
    return "This run is still going." if run.state == "running" else "This run has no samples that can be read."


def _columns(rows: list[Row]) -> int:
    """Ten, or a multiple of the number of classes near it, so that a column holds one class."""
    classes = max((int(run.spec.get("classes") or 0) for row in rows for run in row.runs), default=0)
    return classes * max(1, round(WIDE / classes)) if 2 <= classes <= 12 else WIDE


def real_grid(rows: list[Row], real: Real) -> Figure | None:
    """Held-out pictures in the same arrangement as the gallery: picture i shows class i % classes."""
    if real.data is None:
        return None
    split, classes, wide = real.data.held_out, real.data.spec.classes, _columns(rows)
    labels = split.labels(slice(0, len(split)))
    count = min(wide * TALL, len(split))
    if real.data.spec.levels == 0:
        points = split.pixels(slice(0, min(len(split), 1500))).flatten(1).numpy()
        return Figure(
            "real points", None, drawing=plots.cloud(points, 7, "points of the data"), caption="held out from training"
        )
    chosen = list(range(count))
    if labels is not None and 2 <= classes <= 12:
        by_class = [np.flatnonzero(labels.numpy() == k) for k in range(classes)]
        if all(len(members) for members in by_class):
            chosen = [int(by_class[i % classes][(i // classes) % len(by_class[i % classes])]) for i in range(count)]
    images = real.pictures("held_out", chosen)
    if images is None:
        return None
    alt = f"{len(images)} real held-out pictures"
    return Figure("real pictures", None, embed.grid(images, wide, alt), caption="held out from training")


def films(rows: list[Row], most: int = 8) -> list[Film]:
    """Previews from early to late: at most `most` a run, evenly chosen."""
    found = []
    widest = 640 if len(rows) <= 6 else 400  # keeps a page of many recipes light
    for row in rows:
        run = row.first if row.first.previews else next((r for r in row.runs if r.previews), row.first)
        frames = []
        for images, path in _evenly(run.previews, most):
            alt = f"Preview of {row.label} after {images:,} training images"
            picture = embed.from_file(path, alt, widest)
            if picture:
                frames.append((f"{short(images)} images", (picture,)))
        found.append(Film(row.label, row.colour, frames, note="" if frames else "No previews in this run."))
    return found


def steps(rows: list[Row]) -> list[Film]:
    """Noise first, picture last: the same few seeds at each step that was kept, of families that draw step by step."""
    found = []
    for row in rows:
        frames = embed.load_trajectory(row.first)
        if frames is None or frames.shape[4] not in (1, 3):
            continue
        chosen = np.unique(np.linspace(0, len(frames) - 1, min(WIDE, len(frames))).round()).astype(int)
        film = []
        for i in chosen:
            share = i / max(len(frames) - 1, 1)
            said = "noise" if share == 0 else "picture" if share == 1 else f"{share:.0%} of the way"
            pictures = frames[i][:STEPPED]
            alt = f"{len(pictures)} pictures of {row.label}, {said}"
            film.append((said, (embed.grid(pictures, STEPPED // 2, alt),)))
        found.append(Film(row.label, row.colour, film, caption=_drawn(row)))
    return found


def _evenly(items: list[tuple[int, Path]], most: int) -> list[tuple[int, Path]]:
    """At most `most` items, the first and the last among them."""
    chosen = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round()) if items else []
    return [items[int(i)] for i in chosen]
