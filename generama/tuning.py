"""Which execution is fastest for this network on this machine, at no cost in quality: measured, not believed.

bfloat16, channels last and compilation each help one network and hinder the next; one combination of them was seen to
run twenty times slower. So a copy of the family takes a few steps under each, next to float32 as the reference. What
computes something else than the reference is out, the fastest of the rest is taken, and the timings are kept for the
next run of this network on this machine.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from generama.core import Family, Player
from generama.execution import (
    LAYOUTS,
    PRECISIONS,
    Execution,
    Layout,
    Precision,
    bfloat16_works,
    compiler_found,
    has_convolutions,
    plain,
)
from generama.families import FamilyConfig
from generama.files import write_json
from generama.machine import describe
from generama.metrics.cache import cache_folder
from generama.rehearsal import WARMING, Evidence, Rehearsal, undisturbed
from generama.settings import TrainSettings

SHORT = 5.0  # seconds: a run that is not longer is not worth a measurement
SHARE = 0.02  # of the run that measuring may take, but for the reference, its first rival and a trial compilation
COMPILE_FROM = 3600.0  # seconds of run from which a trial compilation is worth its 30 to 90 seconds
FEWEST, MOST, ENOUGH = 3, 30, 0.5  # timed steps of a trial: at least, at most, and the seconds that suffice
TOO_SLOW = 3.0  # times as long as the best: not timed any further
WORTH = 1.05  # what an execution must gain over the reference, so that chance alone changes nothing
LOSS, COSINE = 0.01, 0.99  # how far a loss may be from the reference's, and a gradient's direction (cosine)


Loss = Callable[[Player], Tensor]


@dataclass(frozen=True)
class Trial:
    """What was measured of one execution; with a reason, it is not to be used."""

    execution: Execution
    seconds: float = 0.0  # of a round, the median
    start: float = 0.0  # seconds until the first gradients: compilation above all
    reason: str = ""

    def __str__(self) -> str:
        """A line for the log: "bfloat16, channels last: 41.3 ms a step"."""
        return f"{self.execution}: {self.reason or f'{1000 * self.seconds:.3g} ms a step'}"


@dataclass(frozen=True)
class Verdict:
    """The execution to use, and why: what was measured, in how many seconds, or why nothing was."""

    execution: Execution
    trials: tuple[Trial, ...] = ()  # the reference first
    seconds: float = 0.0
    remembered: bool = False  # measured by an earlier run
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """A line for the log: what was chosen, and how much faster than the reference it is."""
        if not self.trials:
            return "; ".join([str(self.execution), *self.notes])
        reference = self.trials[0]
        chosen = next(trial for trial in self.trials if trial.execution == self.execution)
        when = (
            "measured by an earlier run" if self.remembered else f"{len(self.trials)} measured in {self.seconds:.1f} s"
        )
        gain = f"{reference.seconds / chosen.seconds:.2f} times the speed of {reference.execution}"
        gain = "none was faster" if chosen is reference else gain
        return "; ".join([f"{self.execution}: {gain} ({when})", *self.notes])


@dataclass(frozen=True)
class Record:
    """The trials of one network on one machine, as they are kept for its next run."""

    trials: tuple[Trial, ...]
    length: float  # seconds, by the reference's speed, of the run that they were made for


RECORD = TypeAdapter(Record)


def choose(
    family: Family,
    loss: Loss,
    settings: TrainSettings,
    epoch: int,
    config: FamilyConfig,
    device: torch.device,
    folder: Path | None = None,
) -> Verdict:
    """The execution for a run that is about to start; neither the family nor any random stream is disturbed.

    `loss` is a player's loss on a batch and a noise that are always the same; it is given players of copies of the
    family. `epoch` is the number of pictures in one pass of the data. The trials are kept below `folder`.
    """
    executions, notes = candidates(settings, family, device)
    compiling = settings.compile == "auto" and compiler_found(device)
    if len(executions) == 1 and not compiling:
        return Verdict(executions[0], notes=notes)
    brief = Verdict(executions[0], notes=(*notes, "the run is too short to measure others"))
    if length(settings, epoch) <= SHORT or rounds(settings, epoch) <= 10 * WARMING:
        return brief
    path = (folder or cache_folder()) / f"execution-{fingerprint(settings, family, config, device)}.json"
    record = remembered(path, executions[0])
    if record is not None:
        run = length(settings, epoch, record.trials[0].seconds)
        if complete(record, run, executions, compiling):
            trials = tuple(trial for trial in record.trials if compiling or trial.execution in executions)
            return Verdict(fastest(trials, run).execution, trials, remembered=True, notes=notes)

    began = time.perf_counter()
    with undisturbed(device):
        warm = Rehearsal(family, loss, settings, device, replace(executions[0], precision="float32", compile=False))
        run = length(settings, epoch, warm.warm_up(lambda seconds: SHARE * length(settings, epoch, seconds)))
        if run <= SHORT:
            return brief
        left = SHARE * run - (time.perf_counter() - began)
        trials = compare(executions, warm.again, left, run if compiling and run > COMPILE_FROM else None)
    run = length(settings, epoch, trials[0].seconds)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, RECORD.dump_python(Record(trials, run), mode="json"))
    chosen = fastest(trials, run).execution
    if not chosen.compile and any(trial.execution.compile for trial in trials):
        torch.compiler.reset()  # a compilation in vain leaves nothing in memory
    return Verdict(chosen, trials, time.perf_counter() - began, notes=notes)


def candidates(
    settings: TrainSettings, family: Family, device: torch.device
) -> tuple[list[Execution], tuple[str, ...]]:
    """The executions that the settings leave open, the reference first, and notes on what cannot be had (NF-09).

    Compiled ones are among them only where the settings ask for compilation; `compare` tries one otherwise.
    """
    notes = []
    precisions: Sequence[Precision] = PRECISIONS if settings.precision == "auto" else (settings.precision,)
    if "bfloat16" in precisions and not bfloat16_works(device):
        precisions = ("float32",)
        if settings.precision == "bfloat16":
            notes.append(f"{device} cannot compute in bfloat16, so float32 it is")
    layouts: Sequence[Layout] = (plain(family).layout if settings.layout == "auto" else settings.layout,)
    if settings.layout == "auto" and has_convolutions(family):
        layouts = tuple(sorted(LAYOUTS, key=lambda layout: layout != plain(family).layout))
    compiled = settings.compile == "yes"
    if compiled and not compiler_found(device):
        compiled = False
        notes.append("torch.compile needs a C++ compiler (and on a GPU Triton), and none was found: not compiled")
    reference = Execution(precisions[0], layouts[0], compiled)
    rivals = [Execution(precision, layout, compiled) for layout in layouts for precision in reversed(precisions)]
    return [reference, *(rival for rival in rivals if rival != reference)], tuple(notes)


def compare(
    executions: Sequence[Execution],
    rehearse: Callable[[Execution], Rehearsal],
    allowed: float,
    run: float | None,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Trial, ...]:
    """Try the executions in turn, the reference first; beyond two, only while less than `allowed` seconds are spent.

    Where the seconds of the `run` are given, the fastest is then tried compiled as well. An execution that fails is
    out, with the reason; of the reference alone the error is raised, since the run itself would end with it.
    """
    began = clock()
    trials: list[Trial] = []
    reference: Evidence = {}
    for execution in executions:
        if len(trials) < 2 or clock() - began < allowed:
            trial, evidence = tried(execution, rehearse, trials, reference, clock)
            reference = reference or evidence
            trials.append(trial)
    if run is not None:
        execution = replace(fastest(trials, run).execution, compile=True)
        trials.append(tried(execution, rehearse, trials, reference, clock)[0])
    return tuple(trials)


def tried(
    execution: Execution,
    rehearse: Callable[[Execution], Rehearsal],
    trials: Sequence[Trial],
    reference: Evidence,
    clock: Callable[[], float],
) -> tuple[Trial, Evidence]:
    """The trial of one execution after those of others, and the evidence that it gave."""
    began = clock()
    try:
        rehearsal = rehearse(execution)
        began = clock()
        evidence = rehearsal.evidence()
        start = clock() - began
        reason = disagreement(evidence, reference) if reference else ""
        if reason:
            return Trial(execution, start=start, reason=reason), evidence
        began = clock()
        rehearsal.step()  # not counted: kernels are made, optimisers set up
        best = min((trial.seconds for trial in trials if not trial.reason), default=math.inf)
        if not execution.compile and clock() - began > TOO_SLOW * best:
            return Trial(execution, start=start, reason=f"over {TOO_SLOW:g} times slower than the best"), evidence
        return Trial(execution, timed(rehearsal.step, clock), start), evidence
    except Exception as error:  # whatever a compiler or a kernel may say
        if not trials:
            raise
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Trial(execution, start=clock() - began, reason=f"failed ({type(error).__name__}: {words[:200]})"), {}


def timed(step: Callable[[], None], clock: Callable[[], float]) -> float:
    """Seconds of a step: the median of a few."""
    seconds: list[float] = []
    while len(seconds) < FEWEST or (len(seconds) < MOST and sum(seconds) < ENOUGH):
        began = clock()
        step()
        seconds.append(clock() - began)
    return statistics.median(seconds)


def disagreement(evidence: Evidence, reference: Evidence) -> str:
    """Why this is another computation than the reference's; empty where it is the same but for rounding."""
    for player, (loss, gradient) in evidence.items():
        expected, direction = reference[player]
        if not bool(loss.isfinite() & gradient.isfinite().all()):
            return f"the {player}'s loss or gradient is not a number"
        difference = float((loss - expected).abs() / expected.abs().clamp(min=1e-12))
        if not difference <= LOSS:
            return f"the {player}'s loss is {difference:.1%} away from that of the reference"
        if torch.equal(gradient, direction):  # both may be zero, and then have no direction
            continue
        cosine = float(torch.nn.functional.cosine_similarity(gradient.double(), direction.double(), dim=0))
        if not cosine >= COSINE:
            return f"the {player}'s gradient has a cosine of only {cosine:.3f} with that of the reference"
    return ""


def doubt(
    family: Family,
    loss: Loss,
    settings: TrainSettings,
    device: torch.device,
    execution: Execution,
) -> str:
    """Why a run should go on in float32 from the weights that it has come to; empty where its precision is still fine.

    Worth asking now and then: what agrees at the start may not agree later, when likelihoods have become sharp.
    """
    if execution.precision == "float32":
        return ""
    with undisturbed(device):
        warm = Rehearsal(family, loss, settings, device, replace(execution, precision="float32", compile=False))
        return disagreement(warm.again(replace(execution, compile=False)).evidence(), warm.evidence())


def fastest(trials: Sequence[Trial], run: float) -> Trial:
    """The trial that gets most of a run of `run` seconds done; what is compiled starts late by its compilation."""

    def speed(trial: Trial) -> float:
        return (run - trial.start * trial.execution.compile) / trial.seconds

    best = max((trial for trial in trials if not trial.reason), key=speed)
    return best if speed(best) > WORTH * speed(trials[0]) else trials[0]


def rounds(settings: TrainSettings, epoch: int) -> float:
    """How many rounds the run has at most; infinite where its length is counted in minutes or operations."""
    limits = ((settings.steps, 1), (settings.images, 1 / settings.batch), (settings.epochs, epoch / settings.batch))
    return min((limit * each for limit, each in limits if limit is not None), default=math.inf)


def length(settings: TrainSettings, epoch: int, seconds: float = math.inf) -> float:
    """Seconds of a run whose rounds take `seconds` each; at most, where that is not known yet.

    A budget of operations alone is taken for five minutes, which is what no budget at all means.
    """
    by_clock = 60 * settings.minutes if settings.minutes is not None else math.inf
    shortest = min(by_clock, rounds(settings, epoch) * seconds)
    limited = any(limit is not None for limit in (settings.minutes, settings.steps, settings.images, settings.epochs))
    return shortest if limited else 300.0


def fingerprint(settings: TrainSettings, family: Family, config: FamilyConfig, device: torch.device) -> str:
    """The name of all that the trials depend on: machine, network, data, batch, and what was left open."""
    facts = describe(device)
    machine = [
        facts[key] for key in ("generama", "torch", "processor", "instructions", "threads", "device", "accelerator")
    ]
    left_open = [settings.precision, settings.layout, settings.compile]
    text = json.dumps([machine, repr(config), repr(family.spec), settings.batch, left_open])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def remembered(path: Path, reference: Execution) -> Record | None:
    """The record of an earlier run; None where there is none, or it is damaged (it is then made again)."""
    try:
        record = RECORD.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    usable = [trial for trial in record.trials if not trial.reason]
    sound = bool(usable) and usable[0].execution == reference and all(trial.seconds > 0 for trial in usable)
    return record if sound else None


def complete(record: Record, run: float, executions: Sequence[Execution], compiling: bool) -> bool:
    """Whether a run of `run` seconds would measure nothing more than the record holds."""
    known = {trial.execution for trial in record.trials}
    if compiling and run > COMPILE_FROM and not any(execution.compile for execution in known):
        return False
    return known.issuperset(executions) or run <= record.length
