"""The one training loop, for every family: a round is a batch, on which each player takes its turns."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from generama import checkpoints, slurm, world
from generama.averaging import rewind
from generama.core import Family, Noise, seed_of
from generama.data import Split, batches, positions
from generama.errors import Diverged, Interrupted, ResourceError
from generama.health import PATIENCE, SETBACKS, TOLD, explain, out_of_memory
from generama.progress import Watch, tell
from generama.run import Run
from generama.settings import Spent, TrainSettings, learning_rate, progress
from generama.signals import asked_to_stop
from generama.state import State, restore, save, start
from generama.turns import learning, play_round

LOG_LINES = 200  # over a run, at equal shares of the budget
FAILED_SAVES = 3  # in a row that a run survives


def train(family: Family, data: Split, settings: TrainSettings, run: Run, device: torch.device) -> None:
    """Train until the budget is used up, from the newest checkpoint of the run if there is one.

    Raises Interrupted after a signal, with everything saved; Diverged where the loss stays not a number; ResourceError
    where memory or disk do not suffice.
    """
    state = open_state(family.to(device).train(), data, settings, run, device)
    stream = batches(data, settings.batch, settings.seed, state.spent.step, world.rows(settings.batch))
    share = progress(settings, state.spent, len(data))
    meter, saver = Meter(), Saver(run, device, 60 * settings.save_minutes)
    preview = show(state, run) if share == 0 and settings.previews else None
    with asked_to_stop() as stop, Watch(run.folder.name, share) as watch:
        stopping = 0.0
        while share < 1 and not stopping:
            began = time.perf_counter()
            rate = learning_rate(settings, state.spent, share) * 0.5**state.setbacks
            meter.add(play_round(state, next(stream).to(device), settings, rate))
            state.spent.seconds += time.perf_counter() - began

            state.spent.seconds, stopping, due = world.agree(state.spent.seconds, stop.is_set(), saver.due())
            before, share = share, progress(settings, state.spent, len(data))
            if went_back(state, data, settings, run, device):
                stream = batches(data, settings.batch, settings.seed, state.spent.step, world.rows(settings.batch))
                share = progress(settings, state.spent, len(data))
                continue
            if watch.due() or share >= 1:
                watch.update(share, line(state.spent, meter, preview))
            if crossed(before, share, LOG_LINES):
                note(run, {**asdict(state.spent), "progress": share, "rate": rate, **meter.take()})
            if crossed(before, share, settings.snapshots):
                state.average.snapshot(run.averages, state.spent.images)
            if crossed(before, share, settings.previews):
                preview = show(state, run)
            if due:
                saver.save(state, share)
    save(state, run, "done" if share >= 1 else "interrupted", share, device)
    if share < 1:
        slurm.requeue(stop.signal)
        raise Interrupted(f"stopped at {share:.0%}, everything is saved; go on with: generama resume {run.folder}")


def open_state(family: Family, data: Split, settings: TrainSettings, run: Run, device: torch.device) -> State:
    """The run as its newest checkpoint has it, else at its first step, saved at once: there is always a way back."""
    found = checkpoints.newest(run.checkpoints)
    if found is not None:
        state = start(family, settings)
        go_back(state, found, run)
        return state
    first = next(batches(data, settings.batch, settings.seed)).to(device)
    state = start(family, settings, first)
    held = {"weights": state.family.state_dict(), **state.average.tensors()}  # and two moments for each weight
    needed = checkpoints.size_of(held) + 2 * checkpoints.size_of({"weights": state.family.state_dict()})
    world.by_first("looking at the disk", lambda: checkpoints.room_for(run.checkpoints, needed))
    save(state, run, "running", 0.0, device)
    return state


def go_back(state: State, found: checkpoints.Checkpoint, run: Run) -> None:
    """Be where the run was at a checkpoint, and forget what it wrote since."""
    restore(state, found)

    def forget() -> None:
        run.rewind(state.spent.step)
        rewind(run.averages, state.spent.images)

    world.by_first("rewinding", forget)


def went_back(state: State, data: Split, settings: TrainSettings, run: Run, device: torch.device) -> bool:
    """Look after rounds that were not applied: say why, and after too many in a row go back to the last checkpoint."""
    trouble = state.health.trouble(state.spent.step)
    if trouble is None:
        return False
    in_a_row, step = trouble
    state.health.times += 1
    if in_a_row < PATIENCE and state.health.times > TOLD:
        return False
    cause = cause_of(state, data, settings, step, device)
    tell(f"step {step} was not applied: {cause}")
    if in_a_row < PATIENCE:
        return False
    found = checkpoints.newest(run.checkpoints)
    if state.setbacks == SETBACKS or found is None:
        raise Diverged(
            f"{cause}; {PATIENCE} steps in a row were not applied at step {step}, after {state.setbacks} returns to a "
            f"checkpoint; try a lower --train.rate than {settings.rate}"
        )
    setbacks = state.setbacks + 1
    go_back(state, found, run)
    state.setbacks = setbacks
    tell(f"back to step {state.spent.step} with the learning rate times {0.5**setbacks:g}")
    return True


def cause_of(state: State, data: Split, settings: TrainSettings, step: int, device: torch.device) -> str:
    """Play a round that was not applied again, without applying it, and look closely."""
    indices = next(positions(len(data), settings.batch, settings.seed, step))
    batch = data.batch(indices).to(device)
    for player in state.players:
        for turn in range(player.turns):
            noise = Noise(seed_of(settings.seed, step, player.name, turn), len(batch), device)
            with learning(state, player), world.lent(list(state.turns.values())):
                cause = explain(player, batch, noise, indices.tolist())
            if cause:
                return cause
    return "played again, it is finite"


def show(state: State, run: Run) -> Path | None:
    """Draw a preview with the averaged weights; a memory too small for 64 images at once costs the preview alone."""
    averaged = state.average.sampled()

    def draw() -> Path | None:
        try:
            return run.preview(averaged, state.spent.images)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return None

    return world.by_first("drawing", draw)


def note(run: Run, row: dict[str, float]) -> None:
    """Write a line of the log, once for all processes."""
    if world.rank() == 0:
        run.log(row)


def line(spent: Spent, meter: Meter, preview: Path | None) -> str:
    """How the run is doing, in one line: step, speed, losses, and where its last preview is."""
    losses = {k.removeprefix("loss/"): v for k, v in meter.means().items() if k.startswith("loss/")}
    parts = [f"step {spent.step:,}", f"{spent.images / max(spent.seconds, 1e-9):,.0f} images/s"]
    parts += [f"{name} {value:.4g}" for name, value in losses.items()]
    return "  ".join([*parts, f"preview {preview.name}"] if preview else parts)


def crossed(before: float, after: float, parts: int) -> bool:
    """Whether the share of the budget passed one of `parts` equal marks."""
    return math.floor(after * parts) > math.floor(before * parts)


class Meter:
    """Running means of what is logged between two lines, kept on the device until somebody looks."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Take in the scalars of one round."""
        for name, value in values.items():
            total, count = self.sums.get(name, (torch.zeros_like(value), 0))
            self.sums[name] = (total + value, count + 1)

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        means = self.means()
        self.sums = {}
        return means

    def means(self) -> dict[str, float]:
        """The means so far."""
        return {name: float(total) / count for name, (total, count) in self.sums.items()}


class Saver:
    """Saves now and then; a disk that refuses is asked again, later and later, before the run gives up."""

    def __init__(self, run: Run, device: torch.device, seconds: float) -> None:
        self.run = run
        self.device = device
        self.seconds = seconds  # between two saves
        self.failures = 0
        self._next = time.perf_counter() + seconds

    def due(self) -> bool:
        """Whether it is time."""
        return time.perf_counter() > self._next

    def save(self, state: State, share: float) -> None:
        """Save, or say why it failed and set the next try."""
        try:
            save(state, self.run, "running", share, self.device)
            self.failures = 0
        except ResourceError as error:
            self.failures += 1
            if self.failures == FAILED_SAVES:
                raise
            tell(f"{error}; training goes on and tries again")
        self._next = time.perf_counter() + self.seconds * 2**self.failures
