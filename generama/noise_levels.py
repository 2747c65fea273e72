"""Where a denoiser errs: the error of the picture it guesses, and its loss, at each noise level, on held-out data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure

from generama.core import Batch, Denoiser, Noise, seed_of
from generama.errors import UsageError
from generama.files import tidy, whole_folder, write_json
from generama.metrics.choice import choose
from generama.progress import track
from generama.run import Trained

TIMES = [round(0.02 + 0.04 * i, 2) for i in range(25)]  # of y = (1 - t) x0 + t eps; every formulation knows them
PICTURES = 256  # held-out ones that are looked at, each with the same noise at every level


@dataclass(frozen=True)
class NoiseLevels:
    """What noise-levels.json says: a number per time, means over pictures with their standard errors."""

    pictures: int
    times: list[float]
    image_error: list[float]  # squared, a pixel, where pixels run from -1 to 1
    image_error_se: list[float]
    loss: list[float]
    loss_se: list[float]
    mean_picture_error: float  # of whoever says the mean of these pictures, whatever he sees


def show_run(trained: Trained) -> tuple[Path, NoiseLevels]:
    """Measure, and write noise-levels.png and .json into the run's process folder; returns it and the numbers.

    Raises UsageError for a family that guesses no picture from a noisy one.
    """
    if not isinstance(trained.generator, Denoiser):
        raise UsageError(
            f"{trained.run.folder.name} has no noise levels to show: its family guesses no picture in noise"
        )
    data = trained.run.data()
    trained.run.check(data, trained.device)
    rows = choose(len(data.held_out), PICTURES)
    found = measure(trained.generator, data.held_out.batch(rows).to(trained.device))
    folder = trained.run.folder / "process"
    tidy(folder.parent)
    with whole_folder(folder) as draft:
        write_json(draft / "noise-levels.json", asdict(found))
        plot(found, trained.run.folder.name).savefig(draft / "noise-levels.png", dpi=110)
    return folder, found


def measure(denoiser: Denoiser, batch: Batch) -> NoiseLevels:
    """The errors of these pictures at all times."""
    errors = []
    for t in track("noise levels", TIMES, len(TIMES)):
        noise = Noise(seed_of("noise levels"), len(batch), batch.images.device)
        errors.append(torch.stack(denoiser.errors(batch, noise, t)).double().cpu())
    image, loss = torch.stack(errors, dim=1)  # (T, B) each
    plain = (batch.images - batch.images.mean(0)).square().mean().item()
    moments = [row.tolist() for x in (image, loss) for row in (x.mean(1), x.std(1) / x.shape[1] ** 0.5)]
    return NoiseLevels(len(batch), TIMES, *moments, mean_picture_error=plain)


def plot(found: NoiseLevels, name: str) -> Figure:
    """Two panels against t, from picture to noise; the bands are two standard errors."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, value, error, title in (
        (left, found.image_error, found.image_error_se, "squared error of the guessed picture, a pixel"),
        (right, found.loss, found.loss_se, "loss"),
    ):
        middle, band = torch.tensor(value), 2 * torch.tensor(error)
        axes.fill_between(found.times, middle - band, middle + band, alpha=0.25, linewidth=0)
        axes.plot(found.times, value)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("noise level t (0: the picture, 1: noise)", fontsize=8)
        axes.set_ylim(0, 1.2 * max(value))
        axes.set_xlim(0, 1)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylim(0, 1.15 * max(*found.image_error, found.mean_picture_error))
    left.axhline(found.mean_picture_error, color="0.5", linestyle="--", linewidth=1)
    left.text(0.02, found.mean_picture_error, "always guessing the mean picture", fontsize=7, color="0.35", va="bottom")
    figure.suptitle(f"{name}: {found.pictures} held-out pictures", fontsize=9)
    return figure
