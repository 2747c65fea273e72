"""The contracts: what a batch, a condition, a random stream, a generator, a family and a player are.

A generator can be sampled. A family is a generator that also names its players: the modules that learn, and the
loss that moves each. Everything else in Generama is a function or a folder that any family can use.

Conventions, once: images are (B, C, H, W) float32 in [-1, 1]; labels are (B,) int64; log-probabilities are nats per
image; durations are counted in images; each image has a seed of its own.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from generama.errors import UsageError, unknown


@dataclass(frozen=True)
class Spec:
    """What the data looks like: all that a family must know of it before it is built."""

    channels: int
    size: int  # height = width, in pixels; 1 for 2-D points, whose two coordinates are channels
    classes: int = 0  # 0 where there are no labels
    levels: int = 256  # values a pixel can take; 0 where it is continuous (2-D points)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return (self.channels, self.size, self.size)

    @property
    def dims(self) -> int:
        """Numbers in one image, C * H * W."""
        return self.channels * self.size * self.size


@dataclass(frozen=True)
class Condition:
    """What an image is asked to be. One row per image; None where there is no such wish."""

    label: Tensor | None = None  # (B,) int64
    keep: Tensor | None = None  # (B,) bool, False where the condition was dropped (guidance needs both)

    def map(self, change: Callable[[Tensor], Tensor]) -> Condition:
        """The condition with `change` applied to each tensor that is there: slicing, moving, repeating."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Condition(**{name: None if value is None else change(value) for name, value in values.items()})


@dataclass(frozen=True)
class Batch:
    """Images to learn from, and what each was asked to be."""

    images: Tensor  # (B, C, H, W) float32 in [-1, 1]
    cond: Condition = field(default_factory=Condition)
    seeds: Tensor | None = None  # (B,) int64 on the CPU, of images that a model drew from the noise of these seeds

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device."""
        return Batch(self.images.to(device), self.cond.map(lambda value: value.to(device)), self.seeds)

    def __getitem__(self, rows: slice) -> Batch:
        """Some of its images."""
        seeds = None if self.seeds is None else self.seeds[rows]
        return Batch(self.images[rows], self.cond.map(lambda value: value[rows]), seeds)

    def __len__(self) -> int:
        return len(self.images)


class Rng:
    """One random stream per image: image i depends on seed i, never on its batch or its neighbours.

    Numbers are drawn on the CPU and then moved, so a seed means the same picture on every device.
    """

    def __init__(
        self, seeds: Sequence[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self.seeds = [int(seed) for seed in seeds]
        self.device = torch.device(device)
        self.dtype = dtype
        self._streams = [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def __len__(self) -> int:
        return len(self.seeds)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, (B, *shape)."""
        return self._draw(lambda stream: torch.randn(shape, generator=stream, dtype=self.dtype))

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), (B, *shape)."""
        return self._draw(lambda stream: torch.rand(shape, generator=stream, dtype=self.dtype))

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform integers in [0, high), (B, *shape) int64."""
        return self._draw(lambda stream: torch.randint(high, shape, generator=stream))

    def _draw(self, one: Callable[[torch.Generator], Tensor]) -> Tensor:
        return torch.stack([one(stream) for stream in self._streams]).to(self.device)


class Noise:
    """The random numbers of one turn of training: one stream for the whole batch, a row per image.

    Whoever holds only some rows of the batch (one process of several, a part of a batch too large for the memory) gets
    the numbers of those rows, so the split changes nothing. Drawn on the device, where it costs least.
    """

    def __init__(self, seed: int, count: int, device: torch.device | str = "cpu", rows: slice = slice(None)) -> None:
        self.seed = seed
        self.count = count  # images of the whole batch
        self.rows = rows  # those of them that are here
        self.device = torch.device(device)
        drawn_on = "cpu" if self.device.type == "meta" else self.device  # "meta": shapes without numbers
        self._stream = torch.Generator(drawn_on).manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, (B, *shape) float32."""
        return torch.randn(self.count, *shape, generator=self._stream, device=self.device)[self.rows]

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), (B, *shape) float32."""
        return torch.rand(self.count, *shape, generator=self._stream, device=self.device)[self.rows]

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform integers in [0, high), (B, *shape) int64."""
        return torch.randint(high, (self.count, *shape), generator=self._stream, device=self.device)[self.rows]


def seed_of(*what: object) -> int:
    """A seed made of what the numbers are for: the same again in a resumed run and in every process."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, what)).encode(), digest_size=7).digest())


@runtime_checkable
class Generator(Protocol):
    """Anything that can be sampled.

    Options of `sample` are keyword-only and typed in each generator's own signature.
    """

    spec: Spec

    def sample(self, rng: Rng, cond: Condition | None = None, **options: Any) -> Tensor:
        """Images (len(rng), C, H, W) in [-1, 1]; image i depends on rng.seeds[i] and on row i of cond alone."""
        ...


@runtime_checkable
class Stepwise(Protocol):
    """A generator whose images come about step by step, and can be watched."""

    def trajectory(self, rng: Rng, cond: Condition | None = None, **options: Any) -> Tensor:
        """What the image looks like after each step, the sample last: (S, B, C, H, W) in [-1, 1]."""
        ...


@runtime_checkable
class Guided(Protocol):
    """A generator that can be led away from a worse state of itself: autoguidance (Karras et al. 2024b)."""

    def guide_by(self, worse: Any) -> None:
        """Keep another of its kind, loaded and on the same device, for the options of `sample` that ask for it."""
        ...


@dataclass(frozen=True)
class Process:
    """How an image comes out of noise: y = (1 - t) x0 + t eps, led from the first of the times to 0 by dy/dt."""

    sampler: Callable[[Callable[[Tensor, Tensor], Tensor], Tensor, Tensor, Rng], Tensor]  # velocity, y, times, rng
    velocity: Callable[[Tensor, Tensor], Tensor]  # (y (B, C, H, W), t scalar or (B,)) -> dy/dt
    times: Tensor  # decreasing, the last 0
    near: float  # the least time above 0 that the model knows
    random: bool  # the sampler draws noise on the way, so no image can be traced back to where it came from


@runtime_checkable
class Editable(Protocol):
    """A generator whose way from noise to image can be entered in the middle, and gone backwards."""

    traceable: Mapping[str, Any]  # options of `sample` under which an image leads back to its noise

    def process(self, rng: Rng, cond: Condition, **options: Any) -> Process:
        """That way, under the options of `sample`; without a label: of images of no class in particular."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """A generator that, from an image with noise in it, guesses the image."""

    def estimates(self, rng: Rng, cond: Condition | None = None, **options: Any) -> Tensor:
        """What it takes the finished image to be at each call of its network: (S, B, C, H, W) in [-1, 1]."""
        ...

    def errors(self, batch: Batch, noise: Noise, t: float) -> tuple[Tensor, Tensor]:
        """Squared error of that guess, mean over pixels, for pictures noised to time t, and the loss: (B,) each."""
        ...


Estimate = Literal["exact", "bound", "importance-weighted", "probability-flow ODE"]  # what a log-probability is


@runtime_checkable
class Likelihood(Protocol):
    """A generator that can say how probable an image is."""

    likelihood: Estimate
    dequantisation: Literal["none", "uniform"]  # "uniform": of the image with noise of one level's width added to it

    def log_prob(self, images: Tensor, cond: Condition | None = None) -> Tensor:
        """Nats per image, (B,): of the 8-bit image where the data has levels (a uniform model gives -D ln 256),
        a density where it is continuous. Raises NotDefined, with the reason, where a configuration has none."""
        ...


@runtime_checkable
class DataStart(Protocol):
    """A family that sets some of its weights from the first batch, before the first step."""

    def begin(self, batch: Batch, noise: Noise) -> None:
        """Look at the whole first batch."""
        ...


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run, or may be, in words for whoever trained it."""

    key: str  # the same for the same ailment in every run: "mode-collapse"
    severity: Literal["problem", "warning", "note"]
    title: str  # one line
    evidence: str  # what shows it, with numbers
    advice: str  # what to try: what to type


@runtime_checkable
class Examined(Protocol):
    """A family that can look for the ailments of its own kind once it is trained."""

    ailments: Sequence[str]  # what it looks for, in words

    def examine(self, batch: Batch, noise: Noise, log: Sequence[Mapping[str, float]]) -> Sequence[Finding]:
        """What it finds in its weights, on held-out pictures, and in its log (lines of log.jsonl, the oldest first).

        The log may be empty, as that of a run which has only begun is.
        """
        ...


Loss = Callable[[Batch, Noise], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Player:
    """A module that learns, and the loss it learns from.

    `loss(batch, noise)` returns the scalar to minimise, a mean over the batch, and, to be logged, detached scalars by
    name. All its randomness comes from `noise`, but for dropout.
    """

    name: str
    module: nn.Module  # only these parameters move while this player plays
    loss: Loss
    turns: int = 1  # optimiser steps per round, each with fresh noise on the round's batch: a generator's 2
    every: int = 1  # plays each k-th round: a critic of five steps is a generator with every=5
    rate: float = 1.0  # multiple of the run's learning rate: two time-scale updates
    average: bool = True  # keep a moving average (False for critics)


class Family(Generator, Protocol):
    """A generator that can be trained. Families are final nn.Modules built as `Family(config, spec)`."""

    def players(self) -> Sequence[Player]:
        """Who learns, in the order of play."""
        ...

    def evaluations(self, **options: Any) -> int | None:
        """Network evaluations, one after another, that an image costs under these options of `sample`.

        None where the sampler decides on the way.
        """
        ...

    # What every nn.Module has, and the loop, the run folder and the averages rely on.
    def parameters(self, recurse: bool = ...) -> Any: ...
    def modules(self) -> Any: ...
    def state_dict(self, *, keep_vars: bool = ...) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = ...) -> Any: ...
    def to(self, *args: Any, **kwargs: Any) -> Self: ...
    def train(self, mode: bool = ...) -> Self: ...
    def eval(self) -> Self: ...


def wish(cond: Condition | None, rng: Rng, spec: Spec) -> Condition:
    """The condition to sample under: checked against what the model knows; labels drawn where none were asked for."""
    if cond is None or cond.label is None:
        return Condition(label=rng.integers(spec.classes)) if spec.classes else Condition()
    if not spec.classes:
        raise UsageError("this model was trained without labels, so it cannot be asked for one; leave the label out")
    if bool((cond.label < 0).any()) or bool((cond.label >= spec.classes).any()):
        raise UsageError(f"labels run from 0 to {spec.classes - 1}; got {sorted(set(cond.label.tolist()))}")
    return replace(cond, label=cond.label.to(rng.device))


def sample_options(generator: Generator) -> dict[str, inspect.Parameter]:
    """The keyword-only options of a generator's own `sample`, by name, with their types and defaults."""
    parameters = inspect.signature(generator.sample, eval_str=True).parameters.values()
    return {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def check_options(generator: Generator, options: Mapping[str, Any]) -> None:
    """Refuse an option that this generator's `sample` does not have, naming those it has."""
    known = sample_options(generator)
    for name in options:
        if name not in known:
            raise UsageError(unknown("sampling option", name, known))
