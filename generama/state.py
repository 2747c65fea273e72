"""All that changes while a run trains: how it starts, how it is saved, and how it is brought back."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from generama import checkpoints, world
from generama.averaging import Average
from generama.core import Batch, DataStart, Family, Noise, Player, seed_of
from generama.errors import CheckpointError
from generama.execution import Execution, plain, prepare
from generama.health import Health
from generama.machine import peak_memory
from generama.retries import Attempt, at_once
from generama.run import Run
from generama.settings import Spent, TrainSettings


@dataclass
class State:
    """A run in training. What is not a tensor and must outlive the process stands in `facts`."""

    family: Family
    players: list[Player]
    turns: dict[str, nn.Module]  # each player's loss, shared with the other processes
    optimisers: dict[str, torch.optim.Adam]
    average: Average
    health: Health
    execution: Execution  # how the losses are computed
    spent: Spent = field(default_factory=Spent)
    flops: dict[str, int] = field(default_factory=dict)  # of one turn of each player, counted once
    parts: int = 1  # that a batch is taken in, because all of it does not fit into the memory
    setbacks: int = 0  # times that the run went back to a checkpoint, and halved its learning rate

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says beside its tensors."""
        kept = {"flops": self.flops, "parts": self.parts, "setbacks": self.setbacks}
        return {"spent": asdict(self.spent), "execution": asdict(self.execution), **kept}


def begin(family: Family, settings: TrainSettings, first: Batch) -> None:
    """Let a family that sets some of its weights from data see its whole first batch."""
    if isinstance(family, DataStart):
        family.begin(first, Noise(seed_of(settings.seed, "begin"), len(first), first.images.device))


def start(family: Family, settings: TrainSettings, execution: Execution | None = None) -> State:
    """The state of a run before its first step."""
    execution = execution or plain(family)
    prepare(family, execution)
    world.share_batch_norms(family)
    players = list(family.players())
    copied = copy.deepcopy(family)  # before the weights are shared out
    turns = {player.name: world.shared(player, settings.shard) for player in players}
    average = Average(copied, family, players, settings.average, settings.snapshots)
    optimisers = {}
    for player in players:
        learns = [p for p in player.module.parameters() if p.requires_grad]
        optimisers[player.name] = torch.optim.Adam(learns, lr=settings.rate, betas=settings.betas, fused=True)
    health = Health(next(iter(family.parameters())).device)
    return State(family, players, turns, optimisers, average, health, execution)


def save(state: State, run: Run, verdict: str, share: float, device: torch.device, attempt: Attempt = at_once) -> None:
    """Write a checkpoint and the status. The random streams need no saving: they follow from seed and step."""
    moments = {}
    for name, optimiser in state.optimisers.items():
        for index, values in optimiser.state_dict()["state"].items():
            moments |= {f"{name}/{index}/{key}": torch.as_tensor(value) for key, value in values.items()}
    held = {"weights": state.family.state_dict(), "optimisers": moments, **state.average.tensors()}
    tensors = {kind: world.all_whole(values) for kind, values in held.items()}
    facts: dict[str, Any] = {
        "parameters": sum(p.numel() for player in state.players if player.average for p in player.module.parameters()),
        "peak_memory": peak_memory(device),
        "setbacks": state.setbacks,
        "execution": str(state.execution),
    }

    def write() -> None:
        checkpoints.save(run.checkpoints, state.spent.step, tensors, state.facts())
        run.status(verdict, state.spent, progress=share, **facts)

    world.by_first("saving", lambda: attempt(write))


@torch.no_grad()
def restore(state: State, found: checkpoints.Checkpoint) -> None:
    """Bring back all of a checkpoint: weights, averages, moments and counters."""
    try:
        weights = state.family.state_dict()
        checkpoints.check_fit(found.tensors["weights"], weights, str(found.folder))
        for name, value in weights.items():
            value.copy_(world.like(found.tensors["weights"][name], value))
        state.average.restore(found.tensors)
        for name, optimiser in state.optimisers.items():
            restore_moments(optimiser, name, found.tensors["optimisers"])
        facts = dict(found.facts)
        state.spent = replace(state.spent, **facts["spent"])
        state.flops, state.parts, state.setbacks = dict(facts["flops"]), facts["parts"], facts["setbacks"]
        state.health = Health(state.health.device)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{found.folder} does not fit the recipe of its run: {error}") from error


def restore_moments(optimiser: torch.optim.Optimizer, player: str, saved: dict[str, Tensor]) -> None:
    """Put the saved moments back, each in the memory layout of its parameter: the fused step takes that for granted."""
    parameters = optimiser.param_groups[0]["params"]
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.items():
        owner, index, quantity = key.rsplit("/", 2)
        if owner == player:
            parameter = parameters[int(index)]
            fits = value.shape == parameter.shape and quantity != "step"
            moments.setdefault(int(index), {})[quantity] = world.like(value, parameter) if fits else value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
