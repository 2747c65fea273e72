"""The run folder, which explains itself: recipe, status, log, checkpoints, previews, samples; and how to load it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from generama import checkpoints, pictures
from generama.core import Condition, Family, Generator, Rng, Spec
from generama.data import Data, open_data
from generama.errors import CheckpointError, UsageError
from generama.execution import plain, prepare
from generama.families import build
from generama.files import write_json
from generama.machine import pick_device
from generama.recipes import Recipe
from generama.settings import Spent

PREVIEW_SEEDS = range(64)


@dataclass(frozen=True)
class Record:
    """What recipe.json holds: all that is needed to build the family again and to repeat the run."""

    name: str  # of the recipe
    recipe: Recipe
    spec: Spec
    data: dict[str, Any]
    machine: dict[str, Any]
    command: str


RECORD = TypeAdapter(Record)


@dataclass(frozen=True)
class Run:
    """A run folder that is being written or read."""

    folder: Path
    record: Record

    @staticmethod
    def create(folder: Path, record: Record) -> Run:
        """Make a new run folder; one that is there already is refused, so that nothing is overwritten."""
        if (folder / "recipe.json").exists():
            raise UsageError(
                f"{folder} is a run already; go on with 'generama resume {folder}' or choose another --run"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "recipe.json", RECORD.dump_python(record, mode="json"))
        return Run(folder, record)

    @staticmethod
    def open(folder: Path) -> Run:
        """Open a run folder that exists."""
        path = Path(folder) / "recipe.json"
        if not path.is_file():
            raise CheckpointError(f"{folder} is not a run: it has no recipe.json; 'generama train' makes one")
        try:
            return Run(Path(folder), RECORD.validate_json(path.read_bytes()))
        except ValidationError as error:
            raise CheckpointError(f"{path} does not describe a run of this version: {error.errors()[0]}") from error

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.folder / "checkpoints"

    def log(self, row: dict[str, Any]) -> None:
        """Add a line to log.jsonl."""
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def rewind(self, step: int) -> None:
        """Forget the log after `step`: what a run that goes on from there will write again."""
        path = self.folder / "log.jsonl"
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step(line) <= step]
            path.write_text("".join(line + "\n" for line in kept))

    def status(self, state: str, spent: Spent, error: str | None = None, **facts: Any) -> None:
        """Write status.json: running, done, failed or interrupted, and what was used so far."""
        write_json(self.folder / "status.json", {"state": state, "error": error, **asdict(spent), **facts})

    def read_status(self) -> dict[str, Any]:
        """What status.json says; empty before the first save."""
        path = self.folder / "status.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def preview(self, generator: Generator, images: int) -> Path:
        """Draw the same 64 seeds as an 8 x 8 grid, named by the images seen so far; returns the picture's path."""
        device = next(iter(generator.parameters())).device  # type: ignore[attr-defined]
        cond = labels_of(generator.spec, PREVIEW_SEEDS).map(lambda value: value.to(device))
        drawn = generator.sample(Rng(PREVIEW_SEEDS, device), cond, **self.record.recipe.sample)
        origin = {"run": self.folder.name, "recipe": self.record.name, "seeds": "0-63", "images_seen": images}
        path = self.folder / "previews" / f"{images:09d}.png"
        pictures.save_png(pictures.grid(drawn), path, origin)
        return path

    def samples_made(self) -> int:
        """How many main samples were drawn; 0 before the first."""
        path = self.folder / "samples" / "main" / "manifest.json"
        return json.loads(path.read_text())["n"] if path.is_file() else 0

    def data(self) -> Data:
        """The data this run learned from, prepared again if need be."""
        source = self.record.data["source"]
        if not self.record.spec.levels:  # 2-D points have neither size nor colour
            return open_data(source)
        return open_data(source, size=self.record.data["size"], grey=self.record.data["grey"])


@dataclass(frozen=True)
class Trained:
    """A generator brought back from its run, ready to be sampled."""

    run: Run
    generator: Family
    device: torch.device

    def sample(self, seeds: Sequence[int], label: int | None = None, batch: int = 100, **options: Any) -> Tensor:
        """Images (N, C, H, W) in [-1, 1], one per seed; without a label the classes take turns.

        Options are those of the family's own `sample`; what is left out is as the recipe has it.
        """
        settled = self.run.record.recipe.sample | options
        return draw(self.generator, seeds, label, batch, self.device, **settled)


def draw(
    generator: Generator, seeds: Sequence[int], label: int | None, batch: int, device: torch.device, **options: Any
) -> Tensor:
    """Images (N, C, H, W) on the CPU, one per seed, drawn in batches; image i does not depend on the batch."""
    cond = labels_of(generator.spec, seeds, label)
    parts = []
    for start in range(0, len(seeds), batch):
        rows = slice(start, start + batch)
        part = cond.map(lambda value, rows=rows: value[rows].to(device))
        parts.append(generator.sample(Rng(seeds[rows], device), part, **options).cpu())
    return torch.cat(parts)


def labels_of(spec: Spec, seeds: Sequence[int], label: int | None = None) -> Condition:
    """The condition of each seed: the label asked for, else seed modulo classes, so that the classes take turns."""
    if label is not None:
        return Condition(torch.full((len(seeds),), label))
    return Condition(torch.tensor([seed % spec.classes for seed in seeds])) if spec.classes else Condition()


def load(folder: str | Path, device: str | None = None) -> Trained:
    """The generator of a run with its averaged weights, from the newest checkpoint that is whole."""
    run = Run.open(Path(folder))
    checkpoint = checkpoints.newest(run.checkpoints)
    if checkpoint is None:
        raise CheckpointError(f"{folder} has no checkpoint yet; 'generama resume {folder}' trains it")
    family = build(run.record.recipe.family, run.record.spec)
    try:
        family.load_state_dict(checkpoint.tensors["weights"] | checkpoint.tensors["average"], strict=True)
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(f"the weights in {checkpoint.folder} do not fit the recipe: {error}") from error
    chosen = pick_device(device)
    return Trained(run, prepare(family, plain(family)).to(chosen).eval(), chosen)


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # a line that a crash cut short
        return float("inf")
