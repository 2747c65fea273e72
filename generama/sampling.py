"""Sampling a run into a folder that explains itself: pictures, seeds, options, evaluations and seconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from generama import pictures, world
from generama.core import Denoiser, Rng, Spec, Stepwise, check_options
from generama.errors import Diverged, UsageError
from generama.files import tidy, whole_folder, write_json
from generama.progress import Watch
from generama.run import Trained, labels_of

COUPLINGS = "couplings"  # the samples that a second training learns from, each with the noise of its seed
UNASKED = 10**12  # the first of their seeds, which nobody asks for, so that no sample was learned by heart
WATCHED = 8  # images whose coming about is kept
FRAMES = 10  # of the strip
ALONE_SECONDS = 2.0  # after which no further single image is timed


@dataclass(frozen=True)
class Drawn:
    """Images (N, C, H, W), what was asked for, and the seconds that drawing took."""

    images: Tensor
    seeds: Sequence[int]
    label: int | None
    batch: int
    options: dict[str, Any]
    seconds: float


def sample_run(
    trained: Trained,
    seeds: Sequence[int],
    label: int | None = None,
    name: str = "main",
    batch: int = 64,
    singles: bool = False,
    **options: Any,
) -> Path:
    """Draw one image per seed and write them below the run's samples/NAME; returns that folder.

    Always: samples.npz (images, seeds, labels), grid.png, manifest.json. With `singles` a PNG per image; for models
    that work step by step a strip, a GIF and the frames, and a strip of what they take the image to be at each step.
    Raises Diverged where an image is not a number. `main` is for the run's own average of the weights: another is
    refused there, because `main` is what is measured.
    """
    if name == "main" and trained.average != trained.run.record.recipe.train.average:
        raise UsageError(f"samples of an average of length {trained.average:g} cannot be 'main'; choose another --name")
    check_options(trained.generator, options)
    if not len(seeds) or batch < 1:
        raise UsageError(f"nothing to sample: {len(seeds)} seeds in batches of {batch}; both must be at least 1")
    if not name or Path(name).name != name or name.startswith("."):
        raise UsageError(f"'{name}' is no name for samples; they lie in the run's samples folder: choose a plain word")
    drawn = _draw(trained, seeds, label, batch, trained.run.record.recipe.sample | options)
    return world.by_first("writing the samples", lambda: _write(trained, drawn, name, singles))


def coupled(source: Trained, spec: Spec, n: int) -> Path:
    """The samples.npz of a run's couplings for a model of these pictures, drawn where there are fewer than n of them.

    Raises UsageError where the run draws other pictures.
    """
    run = source.run
    if run.record.spec != spec:
        raise UsageError(
            f"{run.folder.name} draws {run.record.spec}, and couplings of {spec} are wanted; "
            "--couplings takes a run on data of the same kind"
        )
    if run.samples_made(COUPLINGS) < n:
        sample_run(source, range(UNASKED, UNASKED + n), name=COUPLINGS)
    return run.folder / "samples" / COUPLINGS / "samples.npz"


def _draw(trained: Trained, seeds: Sequence[int], label: int | None, batch: int, options: dict[str, Any]) -> Drawn:
    """Draw the images, all of which end up on the first process.

    Several processes take the batches in turns, so every batch, and every image with it, is that of a single process.
    """
    own: dict[int, Tensor] = {}
    began = time.perf_counter()
    starts = range(0, len(seeds), batch)
    with Watch(f"sampling {trained.run.folder.name}") as watch:
        for number in range(world.rank(), len(starts), world.size()):
            rows = seeds[starts[number] : starts[number] + batch]
            own[number] = trained.sample(rows, label, batch, **options)
            watch.update((number + 1) / len(starts), f"{len(seeds)} images")
    return Drawn(world.gathered(own, len(starts)), seeds, label, batch, options, time.perf_counter() - began)


def _write(trained: Trained, drawn: Drawn, name: str, singles: bool) -> Path:
    """The folder of samples, as `sample_run` promises it."""
    seeds, label, options = drawn.seeds, drawn.label, drawn.options
    if not bool(drawn.images.isfinite().all()):
        raise Diverged(f"{trained.run.folder.name} sampled images that are not numbers; nothing was written")
    manifest = {
        "n": len(seeds),
        "seeds": [int(seed) for seed in seeds] if len(seeds) <= 64 else f"{seeds[0]}..{seeds[-1]}",
        "label": label,
        "average": trained.average,
        "average_error": trained.average_error,
        "earlier": trained.earlier,
        "options": options,
        "evaluations": trained.generator.evaluations(**options),
        "seconds": drawn.seconds,
        "seconds_per_image": drawn.seconds / len(seeds),
        "batch": drawn.batch,
        "seconds_one": seconds_of_one(trained, seeds[0], label, options),
    }
    folder = trained.run.folder / "samples" / name
    tidy(folder.parent)
    with whole_folder(folder) as draft:  # so that pictures and manifest are always of the same draw
        origin = {"run": trained.run.folder.name, "recipe": trained.run.record.name}
        _write_images(trained.generator.spec, drawn.images, seeds, label, draft, origin)
        if singles:
            for seed, image in zip(seeds, drawn.images, strict=True):
                pictures.save_png(
                    pictures.grid(image[None], columns=1), draft / f"{seed:06d}.png", {**origin, "seed": int(seed)}
                )
        if isinstance(trained.generator, Stepwise):
            _write_trajectory(trained, seeds[:WATCHED], label, draft, origin, options)
        write_json(draft / "manifest.json", manifest)
    return folder


def seconds_of_one(trained: Trained, seed: int, label: int | None, options: dict[str, Any]) -> float:
    """The wall-clock seconds of one image alone: the median of up to five, after one that does not count."""
    times: list[float] = []
    trained.sample([seed], label, **options)
    while len(times) < 5 and sum(times) < ALONE_SECONDS:
        began = time.perf_counter()
        trained.sample([seed], label, **options)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _write_images(
    spec: Spec, images: Tensor, seeds: Sequence[int], label: int | None, folder: Path, origin: dict[str, Any]
) -> None:
    """samples.npz with the images, their seeds and the labels asked for, and grid.png, which shows the first rows."""
    arrays = {"images": pictures.as_stored(images), "seeds": np.asarray(seeds, np.int64)}
    asked = labels_of(spec, seeds, label).label
    if asked is not None:
        arrays["labels"] = asked.numpy()
    np.savez_compressed(folder / "samples.npz", **arrays)
    columns = spec.classes if 2 <= spec.classes <= 12 and label is None else 8
    sheet = pictures.grid(images if images.shape[-1] == 1 else images[: 8 * columns], columns)
    pictures.save_png(sheet, folder / "grid.png", {**origin, "seeds": f"{seeds[0]}..{seeds[-1]}"})


def _write_trajectory(
    trained: Trained, seeds: Sequence[int], label: int | None, folder: Path, origin: dict[str, Any], options: dict
) -> None:
    """The frames of a few images: all of them in a GIF, ten in a strip with an image a row."""
    assert isinstance(trained.generator, Stepwise)
    cond = labels_of(trained.generator.spec, seeds, label).map(lambda value: value.to(trained.device))
    frames = trained.generator.trajectory(Rng(seeds, trained.device), cond, **options).cpu()  # (S, B, C, H, W)
    chosen = frames[np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)]
    np.savez_compressed(folder / "trajectory.npz", frames=np.stack([pictures.as_stored(frame) for frame in chosen]))
    strip = pictures.strip(chosen)
    pictures.save_png(strip, folder / "trajectory.png", origin)
    pictures.save_gif([pictures.grid(frame, columns=4, scale=3) for frame in frames], folder / "trajectory.gif")
    if isinstance(trained.generator, Denoiser):  # the same steps: what it takes each picture to be in the end
        guesses = trained.generator.estimates(Rng(seeds, trained.device), cond, **options).cpu()
        chosen = guesses[np.linspace(0, len(guesses) - 1, min(FRAMES, len(guesses))).round().astype(int)]
        pictures.save_png(pictures.strip(chosen), folder / "estimates.png", origin)
