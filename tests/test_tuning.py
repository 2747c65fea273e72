"""Executions: laid out and compiled in place, compared fairly, chosen by time, remembered; no run is disturbed."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from tiny import TINY
from torch import nn

from generama import execution, tuning
from generama.core import Batch, Condition, Family, Noise, Player, Rng, Spec
from generama.execution import Execution, autocast, has_convolutions, networks, plain, prepare
from generama.families import build
from generama.rehearsal import Rehearsal
from generama.settings import TrainSettings
from generama.tuning import Trial, candidates, choose, compare, disagreement, fastest, length, rounds

CPU = torch.device("cpu")
SPEC = Spec(channels=3, size=8, classes=3)
LONG = TrainSettings(batch=5, minutes=5.0, compile="no")
FLOAT, BFLOAT = Execution(layout="channels_last"), Execution("bfloat16", "channels_last")
every_family = pytest.mark.parametrize("name", TINY)


def family_and_batch(name: str) -> tuple[Family, Batch]:
    torch.manual_seed(0)
    family = build(TINY[name], SPEC).train()
    batch = Batch(torch.randint(0, 256, (5, *SPEC.shape)) / 127.5 - 1, Condition(torch.arange(5) % SPEC.classes))
    return family, batch


def loss_on(batch: Batch):
    def loss(player: Player) -> torch.Tensor:
        return player.loss(batch, Noise(7, len(batch)))[0]

    return loss


class Rehearsed:
    """Steps that take the time they are told to, on a clock of their own."""

    def __init__(self, seconds: dict[Execution, float], first: dict[Execution, float] | None = None) -> None:
        self.seconds, self.first, self.now = seconds, first or {}, 0.0
        self.steps: dict[Execution, int] = {}
        self.angle: dict[Execution, float] = {}  # of the gradient, in radians
        self.loss: dict[Execution, float] = {}

    def clock(self) -> float:
        return self.now

    def __call__(self, chosen: Execution) -> Rehearsed:
        self.chosen = chosen
        return self

    def evidence(self):
        if self.seconds[self.chosen] < 0:
            raise RuntimeError("no kernel for this\nand a page of advice")
        self.now += self.first.get(self.chosen, self.seconds[self.chosen])
        angle = self.angle.get(self.chosen, 0.0)
        gradient = torch.tensor([math.cos(angle), math.sin(angle)])
        return {"player": (torch.tensor(self.loss.get(self.chosen, 2.0)), gradient)}

    def step(self) -> None:
        self.steps[self.chosen] = self.steps.get(self.chosen, 0) + 1
        self.now += self.seconds[self.chosen]


def compared(rehearsed: Rehearsed, allowed: float = math.inf, run: float | None = None) -> dict[Execution, Trial]:
    executions = [e for e in rehearsed.seconds if not e.compile]
    return {t.execution: t for t in compare(executions, rehearsed, allowed, run, rehearsed.clock)}  # type: ignore[arg-type]


# What an execution is, and what it does to a family


def test_an_execution_is_said_in_words_and_comes_back_from_a_checkpoint() -> None:
    chosen = Execution("bfloat16", "channels_last", True)
    assert str(chosen) == "bfloat16, channels last, compiled" and str(Execution()) == "float32, contiguous"
    assert Execution(**json.loads(json.dumps(asdict(chosen)))) == chosen


@every_family
def test_preparing_keeps_names_and_identity_and_can_be_undone(name: str) -> None:
    family, _ = family_and_batch(name)
    names, before = list(family.state_dict()), [(id(p), p.stride(), p.detach().clone()) for p in family.parameters()]
    for layout in ("channels_last", "channels_last", "contiguous", "contiguous"):
        assert prepare(family, Execution(layout=layout)) is family
        assert list(family.state_dict()) == names and [id(p) for p in family.parameters()] == [b[0] for b in before]
        assert all(torch.equal(p, b[2]) for p, b in zip(family.parameters(), before, strict=True))
        maps = [p for p in family.parameters() if p.dim() == 4]
        assert all(p.is_contiguous(memory_format=execution.LAYOUTS[layout]) for p in maps)
    assert [p.stride() for p in family.parameters()] == [b[1] for b in before]


@every_family
def test_layouts_agree_and_losses_are_finite_in_every_precision(name: str) -> None:
    family, batch = family_and_batch(name)
    warm = Rehearsal(family, loss_on(batch), LONG, CPU, plain(family))
    warm.warm_up(lambda seconds: math.inf)
    reference = warm.again(Execution()).evidence()
    laid = warm.again(Execution(layout="channels_last")).evidence()
    for player, (loss, gradient) in reference.items():
        assert torch.allclose(laid[player][0], loss, rtol=1e-4)
        assert torch.allclose(laid[player][1], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))
    for layout in execution.LAYOUTS:
        rehearsal = warm.again(Execution("bfloat16", layout))
        assert all(loss.isfinite() and gradient.isfinite().all() for loss, gradient in rehearsal.evidence().values())
        rehearsal.step()
        assert {p.dtype for p in rehearsal.family.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", [name for name in TINY if name.split("-")[-1] != "mlp"])
def test_the_weights_alone_decide_the_layout_of_the_activations(name: str) -> None:
    family, batch = family_and_batch(name)
    seen: list[bool] = []

    def look(module, inputs, output) -> None:
        seen.append(output.is_contiguous(memory_format=execution.LAYOUTS[layout]))

    for module in family.modules():  # type: ignore[attr-defined]
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(look)
    for layout in execution.LAYOUTS:
        seen.clear()
        prepare(family, Execution(layout=layout))
        for player in family.players():
            loss_on(batch)(player)
        assert bool(seen) == execution.has_convolutions(family) and all(seen)


def test_autocast_reaches_the_network_and_float32_is_untouched() -> None:
    net, image = nn.Conv2d(3, 5, 3), torch.randn(2, 3, 7, 7)
    with autocast(CPU, BFLOAT):
        assert net(image).dtype == torch.bfloat16
    with autocast(CPU, FLOAT):
        assert net(image).dtype == torch.float32


@pytest.mark.parametrize("name", ["diffusion", "diffusion-attention"])
def test_only_the_image_itself_comes_to_a_convolution_in_float32(name: str) -> None:
    family, batch = family_and_batch(name)
    seen: list[tuple[torch.dtype, int]] = []
    for module in family.modules():  # type: ignore[attr-defined]
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0].dtype, inputs[0].shape[1])))
    with autocast(CPU, BFLOAT):
        loss_on(batch)(family.players()[0])
    assert [channels for dtype, channels in seen if dtype == torch.float32] == [SPEC.channels] and len(seen) > 9


def test_what_is_compiled_are_the_networks_that_a_family_calls() -> None:
    family, _ = family_and_batch("flow")
    assert [type(n).__name__ for n in networks(family)] == ["Chain", "Chain", "Chain"]  # enter, a scale, last
    family, _ = family_and_batch("vae-mlp")
    assert [type(n).__name__ for n in networks(family)] == ["MLPEncoder", "MLPDecoder"]
    assert not has_convolutions(family) and plain(family) == Execution()


@pytest.mark.slow
def test_a_compiled_network_computes_the_same_and_its_copies_are_not_compiled() -> None:
    if not execution.compiler_found(CPU):
        pytest.skip("needs a C++ compiler")
    family, batch = family_and_batch("gan-mlp")
    reference = Rehearsal(family, loss_on(batch), LONG, CPU, Execution()).evidence()
    compiled = Rehearsal(family, loss_on(batch), LONG, CPU, Execution(compile=True))
    assert disagreement(compiled.evidence(), reference) == ""
    assert list(compiled.family.state_dict()) == list(family.state_dict())
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs > 0
    copy.deepcopy(compiled.family).eval().sample(Rng(range(3)))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
    for count in (2, 3, 4, 6, 7, 11, 13):  # a compiled family may be sampled in any number
        compiled.family.eval().sample(Rng(range(count)))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= graphs + 4


# Comparing


def test_the_fastest_is_chosen_by_the_median_of_its_steps() -> None:
    other = Execution()
    trials = compared(Rehearsed({FLOAT: 0.30, BFLOAT: 0.20, other: 0.40}))
    assert [t.seconds for t in trials.values()] == pytest.approx([0.30, 0.20, 0.40])
    assert fastest(list(trials.values()), 300.0).execution == BFLOAT
    hardly = [Trial(FLOAT, 0.30), Trial(BFLOAT, 0.29)]
    assert fastest(hardly, 300.0).execution == FLOAT  # less than chance could do


def test_bfloat16_that_computes_something_else_is_rejected_with_the_reason() -> None:
    rehearsed = Rehearsed({FLOAT: 0.3, BFLOAT: 0.1})
    rehearsed.angle[BFLOAT] = math.acos(0.98)
    trial = compared(rehearsed)[BFLOAT]
    assert "cosine of only 0.980" in trial.reason and BFLOAT not in rehearsed.steps
    assert "cosine" in str(trial)
    rehearsed.angle[BFLOAT], rehearsed.loss[BFLOAT] = math.acos(0.995), 2.03
    assert "loss is 1.5% away" in compared(rehearsed)[BFLOAT].reason
    rehearsed.loss[BFLOAT] = math.nan
    assert "not a number" in compared(rehearsed)[BFLOAT].reason
    still = {"player": (torch.tensor(2.0), torch.zeros(3))}
    assert disagreement(still, still) == ""
    rehearsed.loss[BFLOAT] = 2.01
    assert compared(rehearsed)[BFLOAT].reason == ""
    trials = [Trial(FLOAT, 0.3), Trial(BFLOAT, 0.1, reason="no")]
    assert fastest(trials, 300.0).execution == FLOAT


def test_what_runs_twenty_times_slower_is_dropped_at_once() -> None:
    rehearsed = Rehearsed({FLOAT: 0.1, BFLOAT: 2.0})
    trial = compared(rehearsed)[BFLOAT]
    assert "3 times slower" in trial.reason and rehearsed.steps[BFLOAT] == 1
    cold = compared(Rehearsed({FLOAT: 0.1, BFLOAT: 0.05}, {BFLOAT: 1.0}))  # the first pass makes the kernels
    assert cold[BFLOAT].reason == "" and cold[BFLOAT].seconds == pytest.approx(0.05)


def test_an_error_drops_the_candidate_but_that_of_the_reference_is_raised() -> None:
    trial = compared(Rehearsed({FLOAT: 0.1, BFLOAT: -1.0}))[BFLOAT]
    assert trial.reason == "failed (RuntimeError: no kernel for this)"
    with pytest.raises(RuntimeError, match="no kernel"):
        compared(Rehearsed({FLOAT: -1.0, BFLOAT: 0.1}))


def test_measuring_is_bounded_but_never_less_than_two() -> None:
    rehearsed = Rehearsed({FLOAT: 10.0, BFLOAT: 9.0, Execution(): 8.0, Execution("bfloat16"): 7.0})
    assert list(compared(rehearsed, allowed=1.0)) == [FLOAT, BFLOAT]
    assert len(compared(rehearsed, allowed=130.0)) == 3
    assert rehearsed.steps[FLOAT] == 2 * (1 + tuning.FEWEST)


def test_compilation_is_weighed_against_the_run_that_remains() -> None:
    compiled = replace(FLOAT, compile=True)
    rehearsed = Rehearsed({FLOAT: 0.10, BFLOAT: 0.12, compiled: 0.08}, {compiled: 70.0})
    trials = list(compared(rehearsed, run=3600.0).values())
    assert trials[-1] == Trial(compiled, pytest.approx(0.08), 70.0)
    assert fastest(trials, 3600.0).execution == compiled
    assert fastest(trials, 300.0).execution == FLOAT  # 230 s at 0.08 s are fewer steps than 300 s at 0.10 s
    assert fastest(trials, 60.0).execution == FLOAT
    assert compiled not in compared(rehearsed, run=None)


# Candidates and lengths


def test_candidates_are_what_the_settings_leave_open(monkeypatch: pytest.MonkeyPatch) -> None:  # NF-09
    family, _ = family_and_batch("vae")
    found, notes = candidates(TrainSettings(), family, CPU)
    assert found[:2] == [FLOAT, BFLOAT] and len(set(found)) == 4 and notes == ()
    found, _ = candidates(TrainSettings(precision="bfloat16", layout="contiguous"), family, CPU)
    assert found == [Execution("bfloat16")]
    mlp, _ = family_and_batch("vae-mlp")
    assert candidates(TrainSettings(), mlp, CPU)[0] == [Execution(), Execution("bfloat16")]
    monkeypatch.setattr(tuning, "bfloat16_works", lambda device: False)
    assert candidates(TrainSettings(), family, CPU) == ([FLOAT, Execution()], ())
    found, notes = candidates(TrainSettings(precision="bfloat16", layout="channels_last"), family, CPU)
    assert found == [FLOAT] and "cannot compute in bfloat16, so float32" in notes[0]
    monkeypatch.setattr(tuning, "compiler_found", lambda device: False)
    found, notes = candidates(TrainSettings(compile="yes"), mlp, CPU)
    assert found == [Execution()] and "C++ compiler" in notes[0]


def test_the_length_of_a_run_follows_from_its_budget() -> None:
    assert length(TrainSettings(), 1000, 0.1) == 300 and length(TrainSettings(minutes=2), 1000, 9.0) == 120
    assert length(TrainSettings(images=6400, batch=64), 1000, 0.1) == pytest.approx(10.0)
    assert length(TrainSettings(epochs=3, batch=10), 700, 0.1) == pytest.approx(21.0)
    assert length(TrainSettings(steps=40, minutes=1), 700, 0.1) == pytest.approx(4.0)
    assert rounds(TrainSettings(minutes=1), 700) == length(TrainSettings(steps=7), 700) == math.inf


# Choosing


def test_choosing_disturbs_nothing_and_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "ENOUGH", 0.0)
    family, batch = family_and_batch("diffusion")
    before = {name: value.clone() for name, value in family.state_dict().items()}
    grads = [p.requires_grad for p in family.parameters()]
    torch.manual_seed(3)
    stream = torch.get_rng_state()
    verdict = choose(family, loss_on(batch), LONG, 70, TINY["diffusion"], CPU, tmp_path)
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(before[name], value) for name, value in family.state_dict().items())
    assert [p.requires_grad for p in family.parameters()] == grads and family.training
    assert all(p.grad is None and p.is_contiguous() for p in family.parameters())
    assert len(verdict.trials) == 4 and not verdict.remembered and "measured in" in str(verdict)

    monkeypatch.setattr(tuning, "Rehearsal", None)  # nothing more is measured
    again = choose(family, loss_on(batch), LONG, 70, TINY["diffusion"], CPU, tmp_path)
    assert again.remembered and again.execution == verdict.execution and again.trials == verdict.trials
    assert "earlier run" in str(again)
    monkeypatch.setattr(tuning, "Rehearsal", Rehearsal)
    (path,) = tmp_path.iterdir()
    for damage in (b"", b"{", b'{"trials": [], "length": 1.0}', path.read_bytes()[:-9]):
        path.write_bytes(damage)
        assert not choose(family, loss_on(batch), LONG, 70, TINY["diffusion"], CPU, tmp_path).remembered
    smaller = replace(LONG, batch=3)
    assert not choose(family, loss_on(batch), smaller, 70, TINY["diffusion"], CPU, tmp_path).remembered


def test_a_run_in_bfloat16_is_told_when_its_precision_no_longer_suffices() -> None:
    family, batch = family_and_batch("vae")
    assert tuning.doubt(family, loss_on(batch), LONG, CPU, BFLOAT) == ""
    assert all(p.grad is None for p in family.parameters())

    (player,) = family.players()
    nearly = loss_on(batch)(player).detach() * (1 - 1e-6)

    def rest(player: Player) -> torch.Tensor:  # what remains of two nearly equal numbers is all rounding
        return loss_on(batch)(player) - nearly

    assert "away from that of the reference" in tuning.doubt(family, rest, LONG, CPU, BFLOAT)
    assert tuning.doubt(family, rest, LONG, CPU, FLOAT) == ""


@pytest.mark.parametrize(
    "settings", [replace(LONG, minutes=0.05), replace(LONG, steps=40), replace(LONG, images=5 * 60)]
)
def test_short_runs_measure_nothing(settings: TrainSettings, tmp_path: Path) -> None:
    family, batch = family_and_batch("vae-mlp")
    verdict = choose(family, loss_on(batch), settings, 70, TINY["vae-mlp"], CPU, tmp_path)
    assert verdict.trials == () and verdict.execution == Execution() and "too short" in str(verdict)
    assert list(tmp_path.iterdir()) == []


def test_what_is_settled_is_not_measured(tmp_path: Path) -> None:
    family, _ = family_and_batch("vae")
    settled = replace(LONG, precision="bfloat16", layout="contiguous")

    def never(player: Player) -> torch.Tensor:
        raise AssertionError("nothing is to be tried")

    assert choose(family, never, settled, 70, TINY["vae"], CPU, tmp_path).execution == Execution("bfloat16")


def test_a_record_that_lacks_what_a_longer_run_would_measure_is_made_anew() -> None:
    record = tuning.Record((Trial(FLOAT, 0.1), Trial(BFLOAT, 0.2)), length=100.0)
    both, more = [FLOAT, BFLOAT], [FLOAT, BFLOAT, Execution()]
    assert tuning.complete(record, 3500.0, both, compiling=True)
    assert not tuning.complete(record, 3700.0, both, compiling=True)
    assert tuning.complete(record, 3700.0, both, compiling=False)
    assert tuning.complete(record, 100.0, more, compiling=False)
    assert not tuning.complete(record, 101.0, more, compiling=False)
