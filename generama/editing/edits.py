"""Editing pictures with a trained run, into a folder that explains itself: a grid, single pictures, manifest.json."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generama import pictures
from generama.core import Condition, Editable, Process, Rng, Spec, check_options
from generama.editing.given import Given, gather, unknown_pixels
from generama.errors import Diverged, UsageError
from generama.files import tidy, whole_folder, write_json
from generama.gaussian.editing import image_to_image, inpaint, invert, slerp
from generama.gaussian.samplers import start
from generama.progress import Watch
from generama.run import Trained
from generama.settings import EditSettings

SEEDS = {"variations": 8, "interpolate": 2}  # where none are named; 1 for the other edits
BACKWARDS = ("reconstruct", "interpolate")  # edits that go from a picture to its noise
SIDE = 56  # pixels that a small picture is enlarged to in the grid, about


@dataclass(frozen=True)
class Edited:
    """What came of it."""

    columns: list[str]  # of the grid
    rows: list[list[Tensor]]  # of the grid, (C, H, W) each
    singles: dict[str, Tensor]  # file name -> (C, H, W)
    facts: dict[str, Any]  # for the manifest


@dataclass(frozen=True)
class Work:
    """An edit with all that it takes."""

    ask: EditSettings
    generator: Editable
    spec: Spec
    device: torch.device
    options: dict[str, Any]
    given: Given
    seeds: list[int]

    def each(
        self, seeds: Sequence[int], label: Tensor | None, change: Callable[[Process, Rng, slice], Tensor]
    ) -> Tensor:
        """An image per seed, in batches: `change(process, rng, rows)` makes those of some rows."""
        parts = []
        with Watch(self.ask.how) as watch, torch.no_grad():
            for first in range(0, len(seeds), self.ask.batch):
                rows = slice(first, first + self.ask.batch)
                rng = Rng(seeds[rows], self.device)
                cond = Condition(None if label is None else label[rows].to(self.device))
                parts.append(change(self.generator.process(rng, cond, **self.options), rng, rows).cpu())
                watch.update(min(1.0, (first + self.ask.batch) / len(seeds)), f"{len(seeds)} images")
        return torch.cat(parts)


def edit_run(trained: Trained, ask: EditSettings, options: dict[str, Any]) -> Path:
    """Edit as asked and write the run's edits/NAME; returns that folder. Options are those of the family's `sample`.

    Raises UsageError for a family without a way from noise to image that can be entered in the middle, and where
    what is asked for does not fit together; Diverged where a result is not a number.
    """
    generator, began = trained.generator, time.perf_counter()
    if not isinstance(generator, Editable):
        raise UsageError(
            f"{trained.run.folder.name} cannot edit: its family has no way from noise to picture that could be entered "
            f"in the middle; train one that has: {', '.join(editable_recipes())}"
        )
    if not trained.generator.spec.levels:
        raise UsageError("this run draws points; only pictures are edited")
    check_options(trained.generator, options)
    name = ask.name or ask.how
    if Path(name).name != name or name.startswith("."):
        raise UsageError(f"'{name}' is no name for an edit; they lie in the run's edits folder: choose a plain word")
    settled = {**settled_options(trained, ask.how), **options}
    seeds = [int(seed) for seed in ask.seeds] or list(range(SEEDS.get(ask.how, 1)))
    work = Work(ask, generator, trained.generator.spec, trained.device, settled, gather(trained, ask), seeds)
    check(work)
    edited = EDITS[ask.how](work)
    if not all(bool(image.isfinite().all()) for image in edited.singles.values()):
        raise Diverged(f"{trained.run.folder.name} made images that are not numbers; nothing was written")
    facts = {"average": trained.average, "seconds": time.perf_counter() - began}
    return _write(trained, work, edited, trained.run.folder / "edits" / name, facts)


def settled_options(trained: Trained, how: str) -> dict[str, Any]:
    """The options of `sample` that an edit takes where none are named: the recipe's, or those that lead backwards."""
    back = trained.generator.traceable if how in BACKWARDS and isinstance(trained.generator, Editable) else {}
    return {**trained.run.record.recipe.sample, **back}


def editable_recipes() -> list[str]:
    """The recipes whose family can be edited."""
    from generama.families import FAMILIES
    from generama.recipes import RECIPES

    return [name for name, make in RECIPES.items() if hasattr(FAMILIES[make().family.kind], "process")]


def check(work: Work) -> None:
    """Refuse what does not fit together, before anything is computed."""
    ask, count = work.ask, len(work.given.pictures)
    if ask.batch < 1:
        raise UsageError(f"--batch is at least 1, not {ask.batch}")
    if ask.how != "inpaint" and (ask.mask is not None or ask.box):
        raise UsageError(f"--mask and --box are for --how inpaint, not for {ask.how}")
    if count == 0 and ask.how != "interpolate":
        raise UsageError(f"nothing to edit: name a picture (generama edit RUN cat.png --how {ask.how}) or --held-out 4")
    if ask.how == "interpolate" and (count == 1 or (count == 0 and len(work.seeds) < 2) or ask.frames < 2):
        raise UsageError(
            "interpolation is between two pictures or two seeds (--seeds 0,1) at least, in 2 --frames or more"
        )
    if ask.how in BACKWARDS and work.generator.process(Rng([0]), Condition(), **work.options).random:
        fitting = ", ".join(f"{name} {value}" for name, value in work.generator.traceable.items())
        raise UsageError(f"{ask.how} needs a sampler that draws no noise on the way; by itself it takes {fitting}")


def from_pictures(work: Work) -> Edited:
    """Image-to-image and variations: each picture with each seed."""

    def change(way: Process, rng: Rng, picture: Tensor) -> Tensor:
        return image_to_image(way.sampler, way.velocity, way.times, rng, picture, work.ask.strength)

    return _with_each_seed(work, change, {"strength": work.ask.strength})


def inpainted(work: Work) -> Edited:
    """Inpainting: each picture with each seed, beside what was left of it."""
    unknown = unknown_pixels(work.ask, work.spec.size)
    there = unknown.to(work.device)

    def change(way: Process, rng: Rng, picture: Tensor) -> Tensor:
        return inpaint(way.sampler, way.velocity, way.times, rng, picture, there, work.ask.repeats)

    place = {"mask": str(work.ask.mask)} if work.ask.mask else {"box": [int(number) for number in work.ask.box]}
    facts = {"repeats": work.ask.repeats, **place, "unknown_pixels": int(unknown.sum())}
    return _with_each_seed(work, change, facts, unknown)


def _with_each_seed(
    work: Work, change: Callable[[Process, Rng, Tensor], Tensor], facts: dict[str, Any], unknown: Tensor | None = None
) -> Edited:
    given, many = work.given, len(work.seeds)
    index = torch.arange(len(given.pictures)).repeat_interleave(many)
    source = given.pictures[index].to(work.device)
    label = None if given.label is None else given.label[index]
    seeds = work.seeds * len(given.pictures)
    drawn = work.each(seeds, label, lambda way, rng, rows: change(way, rng, source[rows])).unflatten(0, (-1, many))
    masked = [] if unknown is None else [given.pictures.masked_fill(unknown, 0.0)]
    rows = [[picture, *(m[i] for m in masked), *drawn[i]] for i, picture in enumerate(given.pictures)]
    columns = ["picture", *(["what is known"] * len(masked)), *(f"seed {seed}" for seed in work.seeds)]
    singles = {f"{i:03d}-seed-{seed}": drawn[i, k] for i in range(len(drawn)) for k, seed in enumerate(work.seeds)}
    return Edited(columns, rows, singles, {"seeds": work.seeds, **facts})


def reconstructed(work: Work) -> Edited:
    """Each picture, its noise, and the picture drawn from that noise."""
    given = work.given
    noise = _noises(work, given.label)
    again = _from_noise(work, noise, given.label)
    rows = [list(row) for row in zip(given.pictures, noise, again, strict=True)]
    levels = 127.5 * (again.clamp(-1, 1) - given.pictures).abs().mean((1, 2, 3))
    spread = noise.flatten(1).std(dim=1)
    facts = {"mean_error_in_grey_levels": levels.tolist(), "standard_deviation_of_noise": spread.tolist()}
    return Edited(["picture", "noise", "reconstruction"], rows, _numbered(again), facts)


def interpolated(work: Work) -> Edited:
    """From each picture to the next, or from each seed's image to the next seed's, through their noises."""
    asked, frames = work.ask.label, work.ask.frames
    pictures_given = list(work.given.pictures)

    def labels(count: int) -> Tensor | None:
        return None if asked is None else torch.full((count,), asked)

    if pictures_given:
        noise = _noises(work, labels(len(pictures_given)))
    else:
        count = labels(len(work.seeds))
        noise = work.each(work.seeds, count, lambda way, rng, rows: start(way.times, rng, work.spec.shape))
    a, b = (part.repeat_interleave(frames, dim=0) for part in (noise[:-1], noise[1:]))
    shares = torch.linspace(0, 1, frames).repeat(len(noise) - 1)
    drawn = _from_noise(work, slerp(a, b, shares), labels(len(a))).unflatten(0, (-1, frames))
    rows = [list(row) for row in drawn]
    if pictures_given:
        rows = [[pictures_given[i], *row, pictures_given[i + 1]] for i, row in enumerate(rows)]
    between = [f"{share:.2f}" for share in shares[:frames].tolist()]
    singles = {f"{i:03d}-{k:03d}": image for i, row in enumerate(drawn) for k, image in enumerate(row)}
    facts = {"frames": frames} if pictures_given else {"frames": frames, "seeds": work.seeds}
    return Edited(["picture", *between, "next picture"] if pictures_given else between, rows, singles, facts)


EDITS: dict[str, Callable[[Work], Edited]] = {
    "img2img": from_pictures,
    "variations": from_pictures,
    "inpaint": inpainted,
    "reconstruct": reconstructed,
    "interpolate": interpolated,
}


def _noises(work: Work, label: Tensor | None) -> Tensor:
    """The noise that leads to each picture, (N, C, H, W)."""
    source = work.given.pictures.to(work.device)

    def change(way: Process, rng: Rng, rows: slice) -> Tensor:
        return invert(way.sampler, way.velocity, way.times, rng, source[rows], way.near)

    return work.each([0] * len(source), label, change)


def _from_noise(work: Work, noise: Tensor, label: Tensor | None) -> Tensor:
    def change(way: Process, rng: Rng, rows: slice) -> Tensor:
        return way.sampler(way.velocity, noise[rows].to(work.device), way.times, rng)

    return work.each([0] * len(noise), label, change)


def _numbered(images: Tensor) -> dict[str, Tensor]:
    return {f"{i:03d}": image for i, image in enumerate(images)}


def _write(trained: Trained, work: Work, edited: Edited, folder: Path, facts: dict[str, Any]) -> Path:
    label = work.given.label.tolist() if work.given.label is not None and len(work.given.label) else work.ask.label
    manifest = {
        "how": work.ask.how,
        "pictures": work.given.names,
        "label": label,
        **edited.facts,
        "columns": edited.columns,
        "options": work.options,
        **facts,
    }
    origin = {"run": trained.run.folder.name, "recipe": trained.run.record.name, "edit": work.ask.how}
    tidy(folder.parent)
    with whole_folder(folder) as draft:
        cells = torch.stack([image for row in edited.rows for image in row])
        scale = max(1, round(SIDE / work.spec.size))
        pictures.save_png(pictures.grid(cells, len(edited.columns), scale), draft / "grid.png", origin)
        for name, image in edited.singles.items():
            pictures.save_png(pictures.grid(image[None], columns=1), draft / f"{name}.png", origin)
        write_json(draft / "manifest.json", manifest)
    return folder
