"""Averages of the weights: what a run is sampled from, and averages of any other length, made after the run.

Karras et al. (2024), "Analyzing and Improving the Training Dynamics of Diffusion Models", arXiv:2312.02696, section 3
and appendix C. Time is counted in images. The average at time t weighs the weights of time s by its profile,
p(s) = (gamma + 1) s^gamma / t^(gamma + 1): it forgets the start and grows with the run, so one length fits any budget.
The length is the standard deviation of the profile as a share of t, the paper's sigma_rel.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from generama import checkpoints, world
from generama.checkpoints import Tensors
from generama.core import Family, Player
from generama.errors import CheckpointError, UsageError
from generama.retries import Attempt, at_once

KEPT = {"short": 0.05, "long": 0.10}  # lengths of the averages in a snapshot, as in the paper
LONGEST = 12**-0.5  # the plain mean of the whole run, gamma = 0
WORST = 0.1  # largest relative error of the profile of an average made from snapshots


def exponent(length: float) -> float:
    """The gamma of an average of this length: the largest root of (gamma + 2)^2 (gamma + 3) = (gamma + 1) / length^2.

    That is equation 3 of the paper, solved. Infinite for length 0, the live weights.
    """
    if not 0 <= length <= LONGEST:
        known = f"lengths go from 0 (the live weights) to {math.floor(LONGEST * 1000) / 1000} (the mean of the run)"
        raise UsageError(f"there is no average of length {length:g}; {known}, and 0.05 is usual")
    if length == 0:
        return math.inf
    square = length**-2
    return float(np.roots([1, 7, 16 - square, 12 - square]).real.max())


class Average:
    """A copy of the family whose averaged players follow the live ones, and the averages that snapshots keep."""

    def __init__(
        self, copied: Family, family: Family, players: Sequence[Player], length: float, snapshots: int
    ) -> None:
        """`copied` is the family's copy; the family's own weights may be shared out over processes."""
        lengths = {length, *KEPT.values()} if snapshots else {length}
        self._powers = {each: exponent(each) + 1 for each in sorted(lengths)}
        self.family = copied.eval()
        followed = {id(value) for p in players if p.average for value in p.module.state_dict(keep_vars=True).values()}
        live = {name: value for name, value in family.state_dict(keep_vars=True).items() if id(value) in followed}
        self._live = {name: value.detach() for name, value in live.items()}
        self.length = length  # of the one that is sampled
        self.by_length: dict[float, Tensors] = {
            each: {name: value.clone() for name, value in self._live.items()} for each in self._powers
        }
        self._copy = self.family.state_dict()
        for name, value in self._live.items():
            if not world.is_share(value):  # then the average is the copy's own weights, and needs no memory of its own
                self.by_length[length][name] = self._copy[name].copy_(value)
        self._floats = [name for name, value in self._live.items() if value.is_floating_point()]
        self._others = [name for name in self._live if name not in self._floats]  # counters and flags: copied

    @torch.no_grad()
    def update(self, batch: int, images: int) -> None:
        """Move towards the live weights after a round of `batch` images, `images` having been seen in all.

        The round weighs in with the integral of the profile over it, so the first one replaces the random start.
        """
        live = [world.here(self._live[name]) for name in self._floats]
        for length, entries in self.by_length.items():
            beta = (1 - batch / images) ** self._powers[length]
            torch._foreach_lerp_([world.here(entries[name]) for name in self._floats], live, 1 - beta)
            for name in self._others:
                entries[name].copy_(self._live[name])

    @torch.no_grad()
    def sampled(self) -> Family:
        """The copy with the average that is sampled, whole; all processes must ask alike."""
        for name, value in self.by_length[self.length].items():
            self._copy[name].copy_(world.whole(value))
        return self.family

    def tensors(self) -> dict[str, Tensors]:
        """All there is, as a checkpoint holds it: `average`, which is sampled, and those of KEPT that it is not."""
        names = {value: name for name, value in KEPT.items()} | {self.length: "average"}
        return {names[length]: entries for length, entries in self.by_length.items()}

    def restore(self, saved: dict[str, Tensors]) -> None:
        """Take all of it from a checkpoint; a KeyError where it is not there."""
        for kind, entries in self.tensors().items():
            for name, value in entries.items():
                value.copy_(world.like(saved[kind][name], value))

    def snapshot(self, folder: Path, images: int, attempt: Attempt = at_once) -> None:
        """Keep the averages of the lengths KEPT, whole and verified, below `folder` under the number of images seen."""
        tensors = {name: world.all_whole(self.by_length[length]) for name, length in KEPT.items()}
        facts = {"images": images, "lengths": KEPT}
        world.by_first(
            "saving", lambda: attempt(lambda: checkpoints.save(folder, images, tensors, facts, keep=sys.maxsize))
        )


def rewind(folder: Path, images: int) -> None:
    """Forget the snapshots made after so many images: a run that goes on from there makes them again."""
    for path in checkpoints.complete(folder):
        if int(path.name) > images:
            checkpoints.discard(path)


def reconstruct(folder: Path, length: float, at: int | None = None) -> tuple[Tensors, float]:
    """The average of any length after `at` images (by default at the last snapshot), from the snapshots in `folder`.

    Returns it with the error of its profile (see `fit`). Floats are summed in float64; counters are those of the
    snapshot nearest in time. Raises UsageError where there is no snapshot, or the error would be more than WORST.
    """
    kept = checkpoints.complete(folder)
    if not kept:
        raise UsageError(
            f"{folder.parent} kept nothing to make an average of length {length:g} from; "
            "train with --train.snapshots 8 under another --run name"
        )
    times = [int(path.name) for path in kept]
    at = at or max(times)
    weights, error = fit(times, length, at)
    if error > WORST:
        raise UsageError(_too_far(times, length, at, error))
    total: Tensors = {}
    nearest: dict[str, Tensors] = {}
    for i in sorted(range(len(kept)), key=lambda i: -abs(times[i] - at)):  # the nearest last
        nearest = _read(kept[i])
        for kind, weight in zip(KEPT, weights[i], strict=True):
            for name, value in nearest[kind].items():
                if value.is_floating_point():
                    part = float(weight) * value.double()
                    total[name] = total[name] + part if name in total else part
    like = nearest["short"].items()
    return {name: total[name].to(value.dtype) if name in total else value for name, value in like}, error


def earlier_state(folder: Path, share: float) -> tuple[int, Tensors]:
    """The images seen and the shorter average of the snapshot nearest to that share of the run, before its last one."""
    if not 0 <= share < 1:
        raise UsageError(f"an earlier state is one after a share of the run from 0 to below 1, not {share:g}; try 0.25")
    kept = checkpoints.complete(folder)
    if len(kept) < 2:
        raise UsageError(
            f"{folder.parent} kept no earlier state of itself; train with --train.snapshots 8 under another --run name"
        )
    *before, last = kept
    wanted = share * int(last.name)
    nearest = min(before, key=lambda path: abs(int(path.name) - wanted))
    return int(nearest.name), _read(nearest)["short"]


def fit(times: Sequence[int], length: float, at: int) -> tuple[np.ndarray, float]:
    """How to weigh snapshots made at `times` to come nearest to the average of this length at time `at`.

    Returns the weights (len(times), len(KEPT)) and the error: the distance between the wanted profile and the one that
    is reached, over the norm of the wanted one. Least squares over profiles as in algorithm 3 of the paper, but with
    weights that sum to one: the paper leaves that to the fit, which misses it where snapshots are few, and then even
    weights that never moved come out too small.
    """
    t = np.repeat(np.asarray(times) / at, len(KEPT))
    gamma = np.tile([exponent(own) for own in KEPT.values()], len(times))
    wanted = exponent(length)
    gram, target = overlap(t[:, None], gamma[:, None], t, gamma), overlap(t, gamma, 1.0, wanted)
    ones = np.ones((len(t), 1))
    system = np.block([[gram, ones], [ones.T, np.zeros((1, 1))]])  # with a Lagrange multiplier for the sum
    weights = np.linalg.lstsq(system, np.append(target, 1.0), rcond=None)[0][:-1]
    missed = 1 + float(weights @ gram @ weights - 2 * weights @ target) / float(overlap(1.0, wanted, 1.0, wanted))
    return weights.reshape(len(times), len(KEPT)), math.sqrt(max(0.0, missed))


def overlap(
    t: np.ndarray | float, gamma: np.ndarray | float, other_t: np.ndarray | float, other_gamma: np.ndarray | float
) -> np.ndarray:
    """The inner product of two profiles, the integral of their product over all times; arrays broadcast.

    Powers of the ratio of the times, not of the times themselves, so that nothing overflows.
    """
    first = np.minimum(t, other_t)
    scale = (gamma + 1) * (other_gamma + 1) / (gamma + other_gamma + 1)
    return scale * (first / t) ** gamma * (first / other_t) ** other_gamma * first / (t * other_t)


def _read(folder: Path) -> dict[str, Tensors]:
    try:
        return checkpoints.read(folder).tensors
    except CheckpointError as error:
        raise CheckpointError(f"{error}; delete {folder} to do without it") from error


def _too_far(times: Sequence[int], length: float, at: int, error: float) -> str:
    """Why this average is refused, and the lengths that can be had."""
    good = [step / 1000 for step in range(5, 286, 5) if fit(times, step / 1000, at)[1] <= WORST]
    misses = f"an average of length {length:g} after {at:,} images would miss its profile by {error:.0%}"
    if not good:
        return f"{misses}; averages are made at the times of the snapshots: {', '.join(f'{t:,}' for t in times)}"
    return (
        f"{misses}, more than {WORST:.0%}; {len(times)} snapshots give lengths from {min(good):g} to {max(good):g}, "
        "more snapshots (--train.snapshots) a wider range"
    )
