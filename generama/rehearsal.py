"""A copy of a family that learns as the run would, so that executions can be compared and the run is never touched."""

from __future__ import annotations

import copy
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from generama.core import Family, Player
from generama.execution import Execution, autocast, prepare
from generama.settings import TrainSettings

WARMING = 10  # steps before anything is compared: fresh networks have layers of zeros, which agree in any precision

Evidence = dict[str, tuple[Tensor, Tensor]]  # by player: the loss, and all gradients as one vector


class Rehearsal:
    """A copy of a family that learns as the run would, on one batch over and over, under an execution of its own."""

    def __init__(
        self,
        family: Family,
        loss: Callable[[Player], Tensor],
        settings: TrainSettings,
        device: torch.device,
        execution: Execution,
    ) -> None:
        self.loss, self.settings, self.device, self.execution = loss, settings, device, execution
        self.family = prepare(copy.deepcopy(family), execution).train()
        self.players = list(self.family.players())
        self.learns = {p.name: [q for q in p.module.parameters() if q.requires_grad] for p in self.players}
        self.optimisers = {
            name: torch.optim.Adam(learns, lr=settings.rate, betas=settings.betas, fused=True)
            for name, learns in self.learns.items()
        }

    def again(self, execution: Execution) -> Rehearsal:
        """Another copy under another execution, from the weights that this one has now."""
        return Rehearsal(self.family, self.loss, self.settings, self.device, execution)

    def gradient(self, player: Player) -> Tensor:
        """Leave the gradients of a player's loss at its own parameters alone; returns the loss."""
        own = {id(parameter) for parameter in self.learns[player.name]}
        for parameter in itertools.chain(*self.learns.values()):
            parameter.grad = None
            parameter.requires_grad_(id(parameter) in own)
        with autocast(self.device, self.execution):
            loss = self.loss(player)
        loss.backward()
        return loss.detach().float()

    def evidence(self) -> Evidence:
        """Loss and gradient of every player at the weights as they are."""
        found = {}
        assert isinstance(self.family, nn.Module)
        for part in self.family.modules():
            if isinstance(part, nn.Dropout):
                part.eval()  # its masks follow the layout in memory, so no two layouts drop the same
        for player in self.players:
            loss = self.gradient(player)
            parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.learns[player.name]]
            found[player.name] = loss.cpu(), torch.cat([part.flatten() for part in parts]).cpu()
        self.family.train()
        return found

    def step(self) -> None:
        """A round: every player takes its turns. (Those that sit out some rounds do not, so they count too much.)"""
        for player in self.players:
            for _ in range(player.turns):
                self.gradient(player)
                self.optimisers[player.name].step()
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def warm_up(self, allowed: Callable[[float], float]) -> float:
        """Take the WARMING steps, fewer where half of the time `allowed` is over; returns the seconds of a round."""
        seconds, began = [], time.perf_counter()
        while len(seconds) < WARMING:
            start = time.perf_counter()
            self.step()
            seconds.append(time.perf_counter() - start)
            if len(seconds) > 1 and time.perf_counter() - began > allowed(min(seconds)) / 2:
                break
        for parameter in itertools.chain(*self.learns.values()):
            parameter.requires_grad_(True)  # as copies of this family need them
        return statistics.median(seconds[1:])


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Put torch's random streams back afterwards: a run that measures draws what one that does not would draw."""
    module = None if device.type == "cpu" else torch.get_device_module(device)
    saved, saved_there = torch.get_rng_state(), None if module is None else module.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(saved)
        if module is not None:
            module.set_rng_state(saved_there)
