"""The one training loop, for every family: a round is a batch, on which each player takes its turns."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.flop_counter import FlopCounterMode

from generama import checkpoints, slurm
from generama.averaging import Average
from generama.core import Batch, Family, Player
from generama.data import Split, batches
from generama.errors import CheckpointError, Diverged, Interrupted
from generama.machine import peak_memory
from generama.progress import Watch
from generama.run import Run
from generama.settings import Spent, TrainSettings, learning_rate, progress
from generama.signals import asked_to_stop

LOG_LINES = 200  # over a run, at equal shares of the budget
SAVE_SECONDS = 120.0


@dataclass
class State:
    """All that changes while a run trains."""

    family: Family
    players: list[Player]
    optimisers: dict[str, torch.optim.Adam]
    average: Average
    spent: Spent = field(default_factory=Spent)
    flops: dict[str, int] = field(default_factory=dict)  # of one turn of each player, counted once


def train(family: Family, data: Split, settings: TrainSettings, run: Run, device: torch.device) -> None:
    """Train until the budget is used up, from the newest checkpoint of the run if there is one.

    Raises Interrupted after a signal, with everything saved, and Diverged where a loss is not a number.
    """
    state = start(family.to(device).train(), settings)
    restore(state, run)
    share = progress(settings, state.spent, len(data))
    run.status("running", state.spent, progress=share)
    meter, saved = Meter(), time.perf_counter()
    preview = run.preview(state.average.family, 0) if share == 0 else None
    with asked_to_stop() as stop, Watch(run.folder.name, share) as watch:
        for batch in batches(data, settings.batch, settings.seed, start=state.spent.step):
            if share >= 1 or stop.is_set():
                break
            began = time.perf_counter()
            rate = learning_rate(settings, state.spent, share)
            meter.add(play_round(state, batch.to(device), settings, rate))
            state.spent.seconds += time.perf_counter() - began

            before, share = share, progress(settings, state.spent, len(data))
            if watch.due() or share >= 1:
                watch.update(share, line(state.spent, meter, preview))
            if crossed(before, share, LOG_LINES):
                run.log({**asdict(state.spent), "progress": share, "rate": rate, **meter.take()})
            if crossed(before, share, settings.previews):
                preview = run.preview(state.average.family, state.spent.images)
            if time.perf_counter() - saved > SAVE_SECONDS:
                save(state, run, "running", share, device)
                saved = time.perf_counter()
    save(state, run, "done" if share >= 1 else "interrupted", share, device)
    if share < 1:
        slurm.requeue(stop.signal)
        raise Interrupted(f"stopped at {share:.0%}, everything is saved; go on with: generama resume {run.folder}")


def play_round(state: State, batch: Batch, settings: TrainSettings, rate: float) -> dict[str, Tensor]:
    """One round: each player whose turn it is plays on the batch; then the averages move."""
    logs: dict[str, Tensor] = {}
    for player in state.players:
        if state.spent.step % player.every == 0:
            with learning(state.family, player, state.optimisers[player.name]):
                for turn in range(player.turns):
                    logs |= play(state, player, turn, batch, settings, rate)
    state.spent.step += 1
    state.spent.images += len(batch.images)
    state.average.update(len(batch.images), state.spent.images)
    return logs


def play(
    state: State, player: Player, turn: int, batch: Batch, settings: TrainSettings, rate: float
) -> dict[str, Tensor]:
    """One optimiser step of one player. A loss or gradient that is not finite is not applied: Diverged says whose."""
    optimiser = state.optimisers[player.name]
    optimiser.param_groups[0]["lr"] = rate * player.rate
    torch.manual_seed(noise_seed(settings.seed, state.spent.step, player.name, turn))
    with counted(state, player):
        loss, extras = player.loss(batch, state.spent.step)
        optimiser.zero_grad()
        loss.backward()
    loss, norm = loss.detach(), clip_grad_norm_(optimiser.param_groups[0]["params"], settings.clip or math.inf)
    if not bool((loss + norm).isfinite()):
        raise Diverged(
            f"the {player.name}'s loss is {loss:.3g} and its gradient's norm {norm:.3g} at step {state.spent.step}; "
            f"the step was not applied; try a lower --train.rate than {settings.rate}"
        )
    optimiser.step()
    return {f"loss/{player.name}": loss, **{f"{player.name}/{k}": v for k, v in extras.items()}}


def start(family: Family, settings: TrainSettings) -> State:
    """The state of a run before its first step."""
    players = list(family.players())
    optimisers = {}
    for player in players:
        learns = [p for p in player.module.parameters() if p.requires_grad]
        optimisers[player.name] = torch.optim.Adam(learns, lr=settings.rate, betas=settings.betas, fused=True)
    return State(family, players, optimisers, Average(family, players, settings.half_life))


def save(state: State, run: Run, verdict: str, share: float, device: torch.device) -> None:
    """Write a checkpoint and the status. The random streams need no saving: they follow from seed and step."""
    moments = {}
    for name, optimiser in state.optimisers.items():
        for index, values in optimiser.state_dict()["state"].items():
            moments |= {f"{name}/{index}/{key}": torch.as_tensor(value) for key, value in values.items()}
    tensors = {"weights": state.family.state_dict(), "average": state.average.entries, "optimisers": moments}
    checkpoints.save(run.checkpoints, state.spent.step, tensors, {"spent": asdict(state.spent), "flops": state.flops})
    parameters = sum(p.numel() for player in state.players if player.average for p in player.module.parameters())
    run.status(verdict, state.spent, progress=share, parameters=parameters, peak_memory=peak_memory(device))


def restore(state: State, run: Run) -> None:
    """Bring back the newest checkpoint of the run, if it has one."""
    checkpoint = checkpoints.newest(run.checkpoints)
    if checkpoint is None:
        return
    try:
        state.family.load_state_dict(checkpoint.tensors["weights"], strict=True)
        for name, value in state.average.entries.items():
            value.copy_(checkpoint.tensors["average"][name])
        for name, optimiser in state.optimisers.items():
            restore_moments(optimiser, name, checkpoint.tensors["optimisers"])
        state.spent = replace(state.spent, **checkpoint.facts["spent"])
        state.flops = dict(checkpoint.facts["flops"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint.folder} does not fit the recipe of {run.folder}: {error}") from error
    run.rewind(state.spent.step)


def restore_moments(optimiser: torch.optim.Optimizer, player: str, saved: dict[str, Tensor]) -> None:
    """Put the saved moments back, each in the memory layout of its parameter: the fused step takes that for granted."""
    parameters = optimiser.param_groups[0]["params"]
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.items():
        owner, index, quantity = key.rsplit("/", 2)
        if owner == player:
            like = parameters[int(index)]
            laid = torch.empty_like(like, requires_grad=False).copy_(value) if value.shape == like.shape else value
            moments.setdefault(int(index), {})[quantity] = laid
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})


def noise_seed(seed: int, step: int, player: str, turn: int) -> int:
    """The seed of one turn's noise: a hash of what the turn is, so that a resumed run draws the same."""
    text = f"{seed}/{step}/{player}/{turn}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest())


def line(spent: Spent, meter: Meter, preview: Path | None) -> str:
    """How the run is doing, in one line: step, speed, losses, and where its last preview is."""
    losses = {k.removeprefix("loss/"): v for k, v in meter.means().items() if k.startswith("loss/")}
    parts = [f"step {spent.step:,}", f"{spent.images / max(spent.seconds, 1e-9):,.0f} images/s"]
    parts += [f"{name} {value:.4g}" for name, value in losses.items()]
    return "  ".join([*parts, f"preview {preview.name}"] if preview else parts)


def crossed(before: float, after: float, parts: int) -> bool:
    """Whether the share of the budget passed one of `parts` equal marks."""
    return math.floor(after * parts) > math.floor(before * parts)


@contextmanager
def learning(family: Family, player: Player, optimiser: torch.optim.Optimizer) -> Iterator[None]:
    """Only this player's parameters take gradients; the others' are put back afterwards."""
    own = {id(p) for p in optimiser.param_groups[0]["params"]}
    frozen: list[nn.Parameter] = [p for p in family.parameters() if p.requires_grad and id(p) not in own]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


@contextmanager
def counted(state: State, player: Player) -> Iterator[None]:
    """Count the floating-point operations of this player's first turn, forward and backward, and charge each turn.

    Once in the life of a run, not once a process: counting takes some operations apart, which rounds differently.
    """
    if player.name not in state.flops:
        with FlopCounterMode(display=False) as counter:
            yield
        state.flops[player.name] = counter.get_total_flops()
    else:
        yield
    state.spent.flops += state.flops[player.name]


class Meter:
    """Running means of what is logged between two lines."""

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
