"""A round of training: each player's loss, its gradients, its step, and what keeps them right when memory is short."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.flop_counter import FlopCounterMode

from generama import world
from generama.core import Batch, Noise, Player, seed_of
from generama.errors import ResourceError
from generama.execution import autocast
from generama.health import out_of_memory
from generama.machine import give_back_memory
from generama.progress import tell
from generama.settings import TrainSettings
from generama.state import State


def play_round(state: State, batch: Batch, settings: TrainSettings, rate: float) -> dict[str, Tensor]:
    """One round: each player whose turn it is plays on the batch; then the averages move."""
    logs: dict[str, Tensor] = {}
    for player in state.players:
        if state.spent.step % player.every == 0:
            with learning(state, player):
                for turn in range(player.turns):
                    logs |= play(state, player, turn, batch, settings, rate)
    state.health.round(state.spent.step)
    state.spent.step += 1
    state.spent.images += len(batch) * world.size()
    state.average.update(len(batch) * world.size(), state.spent.images)
    return logs


def play(
    state: State, player: Player, turn: int, batch: Batch, settings: TrainSettings, rate: float
) -> dict[str, Tensor]:
    """One optimiser step of one player; a loss or a gradient that is not finite is not applied."""
    optimiser = state.optimisers[player.name]
    optimiser.param_groups[0]["lr"] = rate * player.rate
    loss, extras = gradients(state, player, turn, batch, settings)
    norm = clip_grad_norm_(optimiser.param_groups[0]["params"], settings.clip or math.inf)
    finite = (loss + world.whole(norm)).isfinite()
    optimiser.found_inf = (~finite).float()  # type: ignore[attr-defined]  # a fused step leaves itself out, unasked
    optimiser.step()
    state.health.turn(finite)
    return {f"loss/{player.name}": loss, **{f"{player.name}/{k}": v for k, v in extras.items()}}


def gradients(
    state: State, player: Player, turn: int, batch: Batch, settings: TrainSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """A player's mean loss over the batch of all processes, and its gradients; in parts, if the memory asks for it."""
    while True:
        try:
            with counted(state, player):
                return gradients_in_parts(state, player, turn, batch, settings)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        take_smaller_parts(state, len(batch))  # out here, where the error no longer holds on to its tensors


def gradients_in_parts(
    state: State, player: Player, turn: int, batch: Batch, settings: TrainSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    """The same, from as many parts of the batch as the state says."""
    seed = seed_of(settings.seed, state.spent.step, player.name, turn)
    play_turn, own = state.turns[player.name], len(batch) * world.rank()
    torch.manual_seed(seed + world.rank())  # for dropout
    state.optimisers[player.name].zero_grad()
    means: dict[str, Tensor] = {}
    for rows in split(len(batch), state.parts):
        held = slice(own + rows.start, own + rows.stop)
        noise = Noise(seed, len(batch) * world.size(), batch.images.device, held)
        with world.unshared(play_turn) if rows.stop < len(batch) else nullcontext():
            with autocast(noise.device, state.execution):
                loss, extras = play_turn(batch[rows], noise)
            weight = (rows.stop - rows.start) / len(batch)
            (loss * weight).backward()
        for name, value in {"": loss.detach(), **extras}.items():
            means[name] = means.get(name, 0) + value * weight
    means = world.mean(means)
    return means.pop(""), means


def take_smaller_parts(state: State, rows: int) -> None:
    """Take the batch in twice as many parts, which gives the same gradients (but for batch norms, which see a part)."""
    if state.parts >= rows or world.size() > 1:
        raise ResourceError(
            f"out of memory with {math.ceil(rows / state.parts)} images at a time; the last checkpoint is whole; "
            "lower --train.batch or the network's width, or prepare smaller pictures with --size"
        )
    state.parts = min(2 * state.parts, rows)
    give_back_memory()
    tell(f"out of memory: from here on a batch is taken in {state.parts} parts; the gradients stay the same")


def split(rows: int, parts: int) -> list[slice]:
    """Rows 0 to `rows` in nearly equal parts."""
    ends = [round(rows * part / parts) for part in range(parts + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


@contextmanager
def learning(state: State, player: Player) -> Iterator[None]:
    """Only this player's parameters take gradients; the others' are put back afterwards."""
    own = {id(p) for p in player.module.parameters()}
    others: list[nn.Parameter] = [p for p in state.family.parameters() if p.requires_grad and id(p) not in own]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        with world.lent([turn for name, turn in state.turns.items() if name != player.name]):
            yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


@contextmanager
def counted(state: State, player: Player) -> Iterator[None]:
    """Count the floating-point operations of this player's first turn, forward and backward, and charge each turn.

    Once in the life of a run, not once a process: counting takes some operations apart, which rounds differently.
    """
    if player.name not in state.flops:
        with FlopCounterMode(display=False) as counter:
            yield
        state.flops[player.name] = counter.get_total_flops() * world.size()
    else:
        yield
    state.spent.flops += state.flops[player.name]
