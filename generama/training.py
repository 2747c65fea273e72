"""The one training loop, for every family: a round is a batch, on which each player takes its turns."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from generama import checkpoints, slurm, tuning, world
from generama.averaging import rewind
from generama.core import Batch, Family, Noise, Player, seed_of
from generama.data import Split, batches, positions
from generama.errors import Diverged, Interrupted, ResourceError
from generama.execution import Execution, autocast
from generama.health import PATIENCE, SETBACKS, TOLD, explain, out_of_memory
from generama.progress import Watch, tell
from generama.retries import Retries
from generama.run import Run
from generama.settings import Spent, TrainSettings, learning_rate, progress
from generama.signals import asked_to_stop
from generama.state import State, begin, restore, save, start
from generama.turns import learning, play_round

LOG_LINES = 200  # over a run, at equal shares of the budget


def train(family: Family, data: Split, settings: TrainSettings, run: Run, device: torch.device) -> None:
    """Train until the budget is used up, from the newest checkpoint of the run if there is one.

    Raises Interrupted after a signal, with everything saved; Diverged where the loss stays not a number; ResourceError
    where memory or disk do not suffice.
    """
    mine = world.rows(settings.batch)
    state = open_state(family.to(device).train(), data, settings, run, device)
    stream = batches(data, settings.batch, settings.seed, state.spent.step, mine)
    share = progress(settings, state.spent, len(data))
    meter, disk, saved = Meter(), Retries(), time.perf_counter()
    preview = show(state, run, disk, share) if share == 0 and settings.previews else None
    with asked_to_stop() as stop, Watch(run.folder.name, share) as watch:
        stopping = 0.0
        while share < 1 and not stopping:
            began = time.perf_counter()
            rate = learning_rate(settings, state.spent, share) * 0.5**state.setbacks
            meter.add(play_round(state, next(stream).to(device), settings, rate))
            state.spent.seconds += time.perf_counter() - began

            due = time.perf_counter() - saved > 60 * settings.save_minutes
            state.spent.seconds, stopping, due = world.agree(state.spent.seconds, stop.is_set(), due)
            before, share = share, progress(settings, state.spent, len(data))
            if went_back(state, data, settings, run, device):
                stream = batches(data, settings.batch, settings.seed, state.spent.step, mine)
                share = progress(settings, state.spent, len(data))
                continue
            if watch.due() or share >= 1:
                watch.update(share, line(state.spent, meter, preview))
            if crossed(before, share, LOG_LINES):
                note(run, disk, {**asdict(state.spent), "progress": share, "rate": rate, **meter.take()})
            if crossed(before, share, settings.snapshots):
                state.average.snapshot(run.averages, state.spent.images, disk.attempt)
            if crossed(before, share, settings.previews):
                preview = show(state, run, disk, share)
                look_again(state, data, settings, device)
            if due and share < 1:
                save(state, run, "running", share, device, disk.attempt)
                saved = time.perf_counter()
        save(state, run, "done" if share >= 1 else "interrupted", share, device)
    if share < 1:
        slurm.requeue(stop.signal)
        raise Interrupted(f"stopped at {share:.0%}, everything is saved; go on with: generama resume {run.folder}")


def open_state(family: Family, data: Split, settings: TrainSettings, run: Run, device: torch.device) -> State:
    """The run as its newest checkpoint has it, else at its first step, saved at once: there is always a way back."""
    found = checkpoints.newest(run.checkpoints)
    if found is not None:
        state = start(family, settings, Execution(**found.facts["execution"]))
        go_back(state, found, run)
        return state
    first = next(batches(data, settings.batch, settings.seed)).to(device)
    begin(family, settings, first)
    state = start(family, settings, chosen(family, first, len(data), settings, run, device))
    weights = {"weights": state.family.state_dict()}
    needed = checkpoints.size_of(weights | state.average.tensors()) + 2 * checkpoints.size_of(weights)  # two moments
    world.by_first("looking at the disk", lambda: checkpoints.room_for(run.checkpoints, needed))
    save(state, run, "running", 0.0, device)
    return state


def chosen(
    family: Family, first: Batch, epoch: int, settings: TrainSettings, run: Run, device: torch.device
) -> Execution:
    """How the losses are to be computed: the fastest way that agrees with float32, measured by the first process."""
    batch, config = first[world.rows(len(first))], run.record.recipe.family
    measured = world.by_first(
        "measuring", lambda: tuning.choose(family, on(batch, settings), settings, epoch, config, device)
    )
    if measured.trials or (measured.notes and (settings.precision != "auto" or settings.compile == "yes")):
        tell(f"{run.folder.name}: {measured}")
    return measured.execution


def look_again(state: State, data: Split, settings: TrainSettings, device: torch.device) -> None:
    """Go on in float32 where a faster precision, which agreed with it at the start, does so no longer."""
    if state.execution.precision == "float32" or settings.precision != "auto" or settings.shard:
        return
    first = data.batch(next(positions(len(data), settings.batch, settings.seed))).to(device)
    loss = on(first[world.rows(len(first))], settings)
    doubt = world.by_first(
        "measuring", lambda: tuning.doubt(state.average.family, loss, settings, device, state.execution)
    )
    if doubt:
        state.execution = replace(state.execution, precision="float32")
        tell(f"{doubt}: from step {state.spent.step:,} on in float32")


def on(batch: Batch, settings: TrainSettings) -> tuning.Loss:
    """A player's loss on this batch, with the same noise whenever it is asked for."""
    seed = seed_of(settings.seed, "tuning")

    def loss(player: Player) -> Tensor:
        return player.loss(batch, Noise(seed, len(batch), batch.images.device))[0]

    return loss


def go_back(state: State, found: checkpoints.Checkpoint, run: Run) -> None:
    """Be where the run was at a checkpoint, and forget what it wrote since."""
    restore(state, found)

    def forget() -> None:
        run.rewind(state.spent.step, state.spent.images)
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
    happened(run, step, f"step {step} was not applied: {cause}")
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
    happened(run, step, f"back to step {state.spent.step} with the learning rate times {0.5**setbacks:g}")
    return True


def happened(run: Run, step: int, what: str) -> None:
    """Tell what befell the run, and keep it in the run folder, where `generama diagnose` quotes it."""
    tell(what)
    if world.rank() == 0:
        with suppress(ResourceError):  # a full disk is told and waited for where it would cost the run more than this
            run.event(step, what)


def cause_of(state: State, data: Split, settings: TrainSettings, step: int, device: torch.device) -> str:
    """Play a round that was not applied again, without applying it, and look closely."""
    indices = next(positions(len(data), settings.batch, settings.seed, step))
    batch = data.batch(indices).to(device)
    for player in state.players:
        for turn in range(player.turns):
            noise = Noise(seed_of(settings.seed, step, player.name, turn), len(batch), device)
            whole = world.lent(list(state.turns.values()))
            with learning(state, player), whole, autocast(device, state.execution):
                cause = explain(player, batch, noise, indices.tolist())
            if cause:
                return cause
    return "played again, it is finite"


def show(state: State, run: Run, disk: Retries, share: float) -> Path | None:
    """Draw a preview with the averaged weights; a memory too small for 64 images at once costs the preview alone."""
    averaged = state.average.sampled()

    def draw() -> Path | None:
        drawn: list[Path] = []
        try:
            disk.attempt(lambda: drawn.append(run.preview(averaged, state.spent, share)))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        return drawn[0] if drawn else None

    return world.by_first("drawing", draw)


def note(run: Run, disk: Retries, row: dict[str, float]) -> None:
    """Write a line of the log, once for all processes."""
    if world.rank() == 0:
        disk.attempt(lambda: run.log(row))


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
