"""The run folder, which explains itself: recipe, status, log, checkpoints, previews, samples; and how to load it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from generama import checkpoints, machine, pictures
from generama.averaging import earlier_state, reconstruct
from generama.checkpoints import Checkpoint, Tensors
from generama.core import Condition, Family, Generator, Guided, Rng, Spec
from generama.data import Data, open_data
from generama.errors import CheckpointError, UsageError
from generama.execution import plain, prepare
from generama.families import build
from generama.files import refused, tidy, write_json, write_whole
from generama.locks import locked
from generama.machine import pick_device
from generama.progress import tell
from generama.recipes import Recipe
from generama.settings import Spent
from generama.unsafe import refuse_pickles

GRID = 64  # pictures of a preview, and drawn at once for it
FINGERPRINT = ("torch", "processor", "threads", "device", "accelerator")  # on these a run's last bits depend


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
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refused(error, folder) from error
        with locked(folder):
            if (folder / "recipe.json").exists():
                raise UsageError(
                    f"{folder} is a run already; go on with 'generama resume {folder}' or choose another --run"
                )
            write_json(folder / "recipe.json", RECORD.dump_python(record, mode="json"))
        return Run(folder, record)

    @staticmethod
    def open(folder: Path) -> Run:
        """Open a run folder that exists."""
        refuse_pickles(Path(folder))
        path = Path(folder) / "recipe.json"
        if not path.is_file():
            raise CheckpointError(f"{folder} is not a run: it has no recipe.json; 'generama train' makes one")
        try:
            return Run(Path(folder), RECORD.validate_json(path.read_bytes()))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise CheckpointError(f"{path} describes no run of this version: {where}: {first['msg']}") from error

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.folder / "checkpoints"

    @property
    def averages(self) -> Path:
        """Where the snapshots of averages are, of a run that keeps some."""
        return self.folder / "averages"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run while it is trained, and remove what dead processes left half-written in it.

        Raises Busy where another process trains it.
        """
        with locked(self.folder):
            written = (
                self.checkpoints,
                self.averages,
                self.folder / "previews",
                self.folder / "samples",
                self.folder / "edits",
            )
            freed = tidy(self.folder, *written)
            if freed:
                tell(f"{self.folder}: removed {freed:,} bytes that a stopped process left half-written")
            yield

    def check(self, data: Data, device: torch.device) -> None:
        """Refuse other data than the run began on, and say once where the machine is another one.

        Raises CheckpointError with what differs. On another machine the order of the data and all noise stay the
        same, but the numbers may differ in their last bits.
        """
        began, now = self.record.data, data.describe()
        if began.get("hash") != now["hash"]:
            raise CheckpointError(
                f"{self.folder} was begun on other data ({differences(began, now)}); bring that data back, or train "
                "under another --run"
            )
        changed = differences(self.record.machine, machine.describe(device), FINGERPRINT)
        if changed:
            tell(f"{self.folder} was begun on another machine ({changed}): it goes on, but not bit for bit the same")

    def log(self, row: dict[str, Any]) -> None:
        """Add a line to log.jsonl."""
        _append(self.folder / "log.jsonl", row)

    def event(self, step: int, what: str) -> None:
        """Add a line to events.jsonl: what befell the run, which going back to a checkpoint does not undo."""
        _append(self.folder / "events.jsonl", {"step": step, "what": what})

    def rewind(self, step: int, images: int) -> None:
        """Forget the log and the previews after that step, so many images in: a run that goes on makes them again."""
        for path in (self.folder / "previews").glob("[0-9]*"):
            if path.stem.isdecimal() and int(path.stem) > images:
                path.unlink()
        path = self.folder / "log.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            write_whole(path, "".join(line + "\n" for line in lines if _step(line) <= step).encode())

    def status(self, state: str, spent: Spent, error: str | None = None, **facts: Any) -> None:
        """Write status.json: running, done, failed or interrupted, and what was used so far."""
        write_json(self.folder / "status.json", {"state": state, "error": error, **asdict(spent), **facts})

    def read_status(self) -> dict[str, Any]:
        """What status.json says; empty before the first save."""
        return _read_object(self.folder / "status.json")

    def preview(self, generator: Generator, spent: Spent, share: float) -> Path:
        """Draw the same seeds every time, the first 64 as an 8 x 8 grid; returns the picture's path.

        What the recipe keeps to be measured lies beside it as .npz: pictures, training seconds, share of the budget.
        Both are named by the images seen so far. An untrained model (share 0) is not worth measuring.
        """
        device = next(iter(generator.parameters())).device  # type: ignore[attr-defined]
        kept = self.record.recipe.train.kept if share > 0 else 0
        drawn = draw(generator, range(max(GRID, kept)), None, GRID, device, **self.record.recipe.sample)
        path = self.folder / "previews" / f"{spent.images:09d}.png"
        if kept:
            path.parent.mkdir(exist_ok=True)
            content = io.BytesIO()
            np.savez_compressed(content, images=pictures.as_stored(drawn[:kept]), seconds=spent.seconds, share=share)
            write_whole(path.with_suffix(".npz"), content.getvalue(), lasting=False)
        origin = {"run": self.folder.name, "recipe": self.record.name, "seeds": "0-63", "images_seen": spent.images}
        pictures.save_png(pictures.grid(drawn[:GRID]), path, origin)
        return path

    def samples_made(self, name: str = "main") -> int:
        """How many samples of that name were drawn; 0 before the first."""
        return _read_object(self.folder / "samples" / name / "manifest.json").get("n", 0)

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
    average: float  # length of the average of the weights
    average_error: float = 0.0  # of its profile, where it was made from snapshots
    earlier: int | None = None  # images that the state of it had seen which it can be guided by

    def sample(self, seeds: Sequence[int], label: int | None = None, batch: int = 64, **options: Any) -> Tensor:
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


def begun(run: Run) -> Family:
    """The family of a run as its training begins: fresh by its seed, or with the weights of its recipe's teacher.

    A run that has a checkpoint goes on from that, and needs its teacher no longer.
    """
    torch.manual_seed(run.record.recipe.train.seed)
    family = build(run.record.recipe.family, run.record.spec)
    teacher = run.record.recipe.teacher
    if teacher and checkpoints.newest(run.checkpoints) is None:
        weights = load(teacher, "cpu").generator.state_dict()
        checkpoints.check_fit(weights, family.state_dict(), teacher)
        family.load_state_dict(weights)
    return family


def load(
    folder: str | Path, device: str | None = None, average: float | None = None, earlier: float | None = None
) -> Trained:
    """The generator of a run with its averaged weights, from the newest checkpoint that is whole.

    An `average` of another length than the run's own is made as of the last of the snapshots that the run kept; 0: the
    live weights. `earlier` 0.25 also loads the snapshot nearest to a quarter of the run, for the generator to be guided
    by. Raises UsageError where there are no such snapshots, or the family takes no guide.
    """
    run = Run.open(Path(folder))
    checkpoint = checkpoints.newest(run.checkpoints)
    if checkpoint is None:
        raise CheckpointError(f"{folder} has no checkpoint yet; 'generama resume {folder}' trains it")
    length = run.record.recipe.train.average if average is None else average
    tensors, missed = _averaged(run, checkpoint, length)
    weights = checkpoint.tensors.get("weights", {}) | tensors
    chosen = pick_device(device)
    family = _family(run, weights, checkpoint.folder, chosen)
    if earlier is None:
        return Trained(run, family, chosen, length, missed)
    if not isinstance(family, Guided):
        raise UsageError(f"{run.record.name} cannot be guided by an earlier state of itself; leave --earlier out")
    seen, tensors = earlier_state(run.averages, earlier)
    family.guide_by(_family(run, weights | tensors, run.averages / str(seen), chosen))
    return Trained(run, family, chosen, length, missed, seen)


def _family(run: Run, weights: Tensors, source: Path, device: torch.device) -> Family:
    """The family of a run with these weights, ready to be sampled; `source` is where they are from."""
    family = build(run.record.recipe.family, run.record.spec)
    checkpoints.check_fit(weights, family.state_dict(), str(source))
    family.load_state_dict(weights, strict=True)
    return prepare(family, plain(family)).to(device).eval()


def _averaged(run: Run, checkpoint: Checkpoint, length: float) -> tuple[Tensors, float]:
    """The average of this length, and the error of its profile."""
    if length == run.record.recipe.train.average:
        return checkpoint.tensors.get("average", {}), 0.0
    return reconstruct(run.averages, length) if length else ({}, 0.0)


def differences(before: dict[str, Any], now: dict[str, Any], keys: Iterable[str] = ()) -> str:
    """What differs, as "threads 2 -> 1, torch 2.12 -> 2.13"; `keys` limits what is looked at."""
    names = [name for name in (keys or now) if name in before and before[name] != now.get(name)]
    return ", ".join(f"{name} {before[name]} -> {now.get(name)}" for name in names)


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none, or where it is damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _append(path: Path, row: dict[str, Any]) -> None:
    try:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise refused(error, path) from error


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # a line that a crash cut short
        return float("inf")
