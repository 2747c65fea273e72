"""Reflow against exact answers: straight couplings in closed form, noise found by its seed, a straightened toy."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY, UNET
from torch import Tensor

import generama
from generama import checkpoints, training
from generama.__main__ import main
from generama.core import Batch, Condition, Family, Noise, Rng, Spec
from generama.data import open_data
from generama.data.toys import TOYS
from generama.errors import CheckpointError, Interrupted, UsageError
from generama.families import build
from generama.families.diffusion import Diffusion, DiffusionConfig, coupled_noise
from generama.gaussian.formulations import RectifiedFlow, Velocity, column, loss
from generama.gaussian.samplers import euler
from generama.nets.unet import UNetConfig
from generama.recipes import Recipe
from generama.recipes.reflow import reflowed
from generama.run import Run, begun
from generama.sampling import COUPLINGS
from generama.settings import TrainSettings
from generama.state import start
from generama.turns import play_round

MEAN, STD = 0.4, 0.3
ROUNDS = {"batch": 32, "previews": 1, "precision": "float32", "layout": "contiguous"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENERAMA_CACHE", str(tmp_path / "cache"))


def straight(y: Tensor, t: Tensor) -> Tensor:
    """The exact velocity of the coupling x0 = MEAN + STD eps, on whose straight lines y tells eps."""
    t = column(t)
    eps = (y - (1 - t) * MEAN) / ((1 - t) * STD + t)
    return eps - (MEAN + STD * eps)


def marginal(y: Tensor, t: Tensor) -> Tensor:
    """The exact velocity of the same two Gaussians drawn apart: their flow bends."""
    t = column(t)
    rest = (y - (1 - t) * MEAN) / ((1 - t) ** 2 * STD**2 + t**2)
    return t * rest - MEAN - (1 - t) * STD**2 * rest


def test_a_straight_coupling_is_met_exactly_by_one_step_of_eulers() -> None:  # NU-06
    y = torch.linspace(-2, 2, 7, dtype=torch.float64).view(7, 1, 1, 1)
    truth = MEAN + STD * y  # where the flow of independent pairs ends too, but after many steps
    for steps in (1, 2, 5):
        times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        assert (euler(straight, y, times, Rng(range(7))) - truth).abs().max() < 1e-12
        assert (euler(marginal, y, times, Rng(range(7))) - truth).abs().max() > 0.05


@pytest.mark.parametrize("times", ["uniform", "logit-normal", "one-step"])
def test_the_loss_of_the_exact_velocity_of_a_coupling_is_zero(times: str) -> None:
    formulation = RectifiedFlow(times=times)  # type: ignore[arg-type]
    eps = torch.randn(997, 1, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x0, seen = MEAN + STD * eps, []

    def network(y: Tensor, label: Tensor) -> Tensor:
        seen.append(label / 1000)
        return straight(y, label / 1000)

    assert loss(formulation, network, x0, Noise(0, 997), eps).max() < 1e-20
    assert loss(formulation, network, x0, Noise(0, 997)).mean() > 0.1  # noise drawn apart
    assert bool((seen[0] == 1).all()) == (times == "one-step")


def test_one_step_times_at_the_noise_are_distillation() -> None:  # x0 = z1 - v(z1, 1)
    eps = torch.randn(5, 1, 2, 3, dtype=torch.float64)
    x0 = torch.rand(5, 1, 2, 3, dtype=torch.float64)
    guess = 0.3 * eps
    found = loss(RectifiedFlow(times="one-step"), lambda y, label: 0.7 * y, x0, Noise(0, 5), eps)
    assert torch.allclose(found, (guess - x0).square().mean((1, 2, 3)), rtol=1e-12)


def test_the_noise_comes_from_the_seeds_and_follows_the_rows() -> None:
    batch = Batch(torch.zeros(4, 1, 2, 3), Condition(torch.arange(4)), torch.tensor([7, 2, 10**12 + 3, 5]))
    noise = coupled_noise(batch)
    assert torch.equal(noise, Rng([7, 2, 10**12 + 3, 5]).normal(1, 2, 3))
    assert torch.equal(coupled_noise(batch[1:3].to("cpu")), noise[1:3])
    with pytest.raises(UsageError, match="generama reflow"):
        coupled_noise(Batch(torch.zeros(4, 1, 2, 3)))


def toy(config: DiffusionConfig, weights: dict | None, batches: list[Batch]) -> Diffusion:
    """A family trained on these batches, from the weights given; its averaged weights."""
    torch.manual_seed(0)
    family = build(config, Spec(2, 1, 0, 0))
    if weights:
        family.load_state_dict(weights)
    settings = TrainSettings()
    state = start(family.train(), settings)
    for step, batch in enumerate(batches):
        play_round(state, batch, settings, 3e-3 * 0.5 * (1 + math.cos(math.pi * step / len(batches))))
    trained: Family = state.average.sampled().eval()
    assert isinstance(trained, Diffusion)
    return trained


@torch.no_grad()
def bend(velocity: Velocity, y: Tensor, steps: int = 20) -> float:
    """How far the flow is from straight (Liu et al., section 2): the mean of |(z1 - z0) - v(z_t, t)|^2 along it."""
    times, start, speeds = torch.linspace(1, 0, steps + 1), y, []
    for t, s in pairwise(times):
        speeds.append(velocity(y, t))
        y = y + (s - t) * speeds[-1]
    return float(torch.stack([(start - y - v).square().sum(1).mean() for v in speeds]).mean())


def energy(a: Tensor, b: Tensor) -> float:
    """The energy distance of two clouds of points."""
    a, b = a.flatten(1), b.flatten(1)
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


def test_reflow_and_distillation_make_a_toy_straighter_and_better_in_one_step() -> None:
    points = TOYS["ring"](3000, torch.Generator().manual_seed(0)).view(-1, 2, 1, 1)
    rows = [torch.randint(2000, (128,), generator=torch.Generator().manual_seed(step)) for step in range(500)]
    config = DiffusionConfig(formulation=RectifiedFlow(), net=UNetConfig(width=32))
    teacher = toy(config, None, [Batch(points[i]) for i in rows])
    seeds = torch.arange(2000) + 10**6
    made = teacher.sample(Rng(seeds.tolist()), steps=30, sampler="euler")
    pairs = [Batch(made[i], seeds=seeds[i]) for i in rows[:250]]
    coupled = replace(config, coupled=True)
    again = toy(coupled, teacher.state_dict(), pairs)
    single = toy(replace(coupled, formulation=RectifiedFlow(times="one-step")), teacher.state_dict(), pairs)
    fresh = range(1000)  # noise that was not learned from
    noise = Rng(fresh).normal(2, 1, 1)
    bends = [bend(family.velocity(Condition()), noise) for family in (teacher, again)]
    errors = [
        energy(family.sample(Rng(fresh), steps=1, sampler="euler"), points[2000:])
        for family in (teacher, again, single)
    ]
    assert bends[1] < bends[0] / 3
    assert errors[1] < errors[0] / 3 and errors[2] < errors[0] / 3


def teacher_of(data: str, run: str = "first") -> generama.commands.Trained:  # type: ignore[name-defined]
    net = UNET if data == "digits" else replace(UNET, width=16)
    recipe = Recipe(DiffusionConfig(formulation=RectifiedFlow(), net=net), sample={"steps": 3, "guidance": 2.0})
    return generama.train(recipe, data=data, run=run, steps=20, **ROUNDS)  # type: ignore[arg-type]


def test_the_couplings_are_data_whose_rows_know_their_seeds() -> None:
    teacher = teacher_of("digits")
    assert main(["reflow", "first", "--n", "60", "--train.steps", "3"]) == 0
    record = Run.open(Path("runs/first-reflow")).record
    assert record.name == "custom-reflow" and record.recipe.teacher == str(Path("runs/first").resolve())
    assert record.recipe.train.batch == 32 and record.recipe.sample == {"steps": 4, "sampler": "euler"}
    data = Run.open(Path("runs/first-reflow")).data()
    assert len(data.train) + len(data.held_out) == 60 and data.meta.hash == record.data["hash"]
    batch = data.train.batch(torch.tensor([3, 0, 11]))
    assert batch.seeds is not None and batch.seeds.min() >= 10**12  # which no sample of the new run is drawn from
    for seed, image, label in zip(batch.seeds.tolist(), batch.images, batch.cond.label.tolist(), strict=True):  # type: ignore[union-attr]
        assert label == seed % 10
        assert (teacher.sample([seed])[0] - image).abs().max() < 1.01 / 255  # half a level, and rounding
        start = coupled_noise(Batch(image[None], seeds=torch.tensor([seed])))
        assert torch.equal(start, Rng([seed]).normal(1, 8, 8))


def test_couplings_that_are_there_are_used_and_too_few_are_drawn_anew() -> None:
    teacher_of("digits")
    drawn = generama.sample("first", range(50, 120), name=COUPLINGS, steps=2)
    before = (drawn / "samples.npz").read_bytes()
    generama.reflow("first", n=70, distil=True, steps=2)
    assert (drawn / "samples.npz").read_bytes() == before
    record = Run.open(Path("runs/first-distilled")).record
    assert record.recipe.sample["steps"] == 1
    assert record.recipe.family.formulation == RectifiedFlow(times="one-step")  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="leave --steps out"):
        generama.sample("first-distilled", range(1), steps=2)
    generama.reflow("first", run="more", n=80, steps=2)
    assert json.loads((drawn / "manifest.json").read_text())["n"] == 80


def test_a_student_can_learn_from_the_couplings_of_its_teachers_teacher() -> None:
    teacher_of("digits")
    generama.reflow("first", n=70, steps=2)
    student = generama.reflow("first-reflow", n=70, distil=True, couplings="first", steps=2)
    assert student.run.record.data["hash"] == Run.open(Path("runs/first-reflow")).record.data["hash"]
    assert student.run.record.recipe.teacher == str(Path("runs/first-reflow").resolve())
    assert not Path("runs/first-reflow/samples", COUPLINGS).exists()
    teacher_of("ring", "points")
    with pytest.raises(UsageError, match=r"points draws Spec.*--couplings"):
        generama.reflow("first", couplings="points", steps=2)
    generama.train("vae", data="digits", run="other", steps=2)
    with pytest.raises(UsageError, match="other is no rectified flow"):
        generama.reflow("first", couplings="other", steps=2)


def test_points_are_reflowed_too() -> None:
    teacher = teacher_of("ring")
    again = generama.reflow("first", n=50, steps=2)
    batch = again.run.data().train.batch(slice(0, 5))
    assert batch.images.shape == (5, 2, 1, 1) and batch.seeds is not None
    assert torch.allclose(teacher.sample(batch.seeds.tolist()), batch.images, atol=1e-5)


def test_training_begins_with_the_teachers_weights_and_needs_it_no_more_after_a_checkpoint() -> None:
    teacher = teacher_of("digits")
    generama.reflow("first", n=60, steps=2)
    again = Run.open(Path("runs/first-reflow"))
    new = Run.create(Path("runs/new"), again.record)
    weights = begun(new).state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in teacher.generator.state_dict().items())
    Path("runs/first").rename("runs/gone")
    begun(again)
    with pytest.raises(CheckpointError, match="is not a run"):
        begun(new)


def test_a_stopped_and_resumed_reflow_is_bit_identical_to_an_unbroken_one(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher_of("digits")
    generama.reflow("first", run="whole", n=60, steps=9)
    rounds, play = [], training.play_round

    def stop_at_the_fourth(*args: object) -> dict:
        rounds.append(1)
        if len(rounds) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return play(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "play_round", stop_at_the_fourth)
    with pytest.raises(Interrupted):
        generama.reflow("first", run="broken", n=60, steps=9)
    generama.resume("broken")
    found = [checkpoints.newest(Path("runs") / name / "checkpoints") for name in ("whole", "broken")]
    assert len(rounds) == 9 and found[0] is not None and found[1] is not None
    for kind, tensors in found[0].tensors.items():
        assert all(torch.equal(value, found[1].tensors[kind][name]) for name, value in tensors.items())


def test_only_a_rectified_flow_can_be_reflowed_and_only_on_couplings(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("vae", "diffusion"):
        with pytest.raises(UsageError, match="no rectified flow"):
            reflowed(Recipe(TINY[name]), "runs/first", distil=False)
    words = ["train", "rectified-flow", "--data", "digits", "--family.coupled", "--train.steps", "2"]
    assert main(words) == 2 and "generama reflow RUN" in capsys.readouterr().err
    assert main(["reflow", "missing"]) == 4


def test_seeds_are_read_from_samples_and_nothing_else_that_is_called_so(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (20, 4, 4), np.uint8)
    for seeds, kept in ((np.arange(20) + 5, True), (np.arange(3), False), (np.ones(20), False)):
        np.savez(tmp_path / f"some{kept}{len(seeds)}.npz", images=pictures, seeds=seeds)
        data = open_data(tmp_path / f"some{kept}{len(seeds)}.npz")
        batch = data.held_out.batch(slice(0, 2))
        assert (batch.seeds is not None) == kept
        if batch.seeds is not None:
            rows = data.held_out.index[:2]
            assert batch.seeds.tolist() == (rows + 5).tolist()
            assert np.array_equal(((batch.images + 1) * 127.5).round().numpy()[:, 0], pictures[rows])
