"""Averages of the weights: the recursion is the sum it stands for, and any length can be made from two."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from tiny import TINY
from torch import Tensor, nn

from generama import checkpoints, machine, training
from generama.__main__ import main
from generama.averaging import KEPT, WORST, Average, exponent, fit, overlap, reconstruct, rewind
from generama.core import Player
from generama.data import Data, open_data
from generama.errors import CheckpointError, Interrupted, UsageError
from generama.families import build
from generama.recipes import Recipe
from generama.run import Record, Run, Trained, load
from generama.sampling import sample_run
from generama.settings import TrainSettings

CPU = torch.device("cpu")
SETTINGS = TrainSettings(batch=37, images=37 * 96, previews=0, snapshots=8)


class Walker(nn.Module):
    """Two averaged values, one that is not (a critic's), and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.followed = nn.Module()
        self.followed.weight = nn.Parameter(torch.zeros(41, dtype=torch.float64))
        self.followed.register_buffer("mean", torch.zeros(3, dtype=torch.float64))
        self.followed.register_buffer("count", torch.tensor(0))
        self.critic = nn.Linear(2, 1)

    def players(self) -> list[Player]:
        nothing = lambda batch, step: (torch.zeros(()), {})  # noqa: E731
        return [Player("a", self.followed, nothing), Player("b", self.critic, nothing, average=False)]

    def walk(self, rounds: int, batch: int = 7, seed: int = 0) -> Iterable[tuple[int, int]]:
        """Random steps from a start far from zero; (batch, images seen) after each, the last batch of all being odd."""
        generator = torch.Generator().manual_seed(seed)
        self.followed.weight.data.fill_(30.0)
        images = 0
        for step in range(rounds):
            size = batch - 2 if step % 5 == 4 else batch
            images += size
            self.followed.weight.data += torch.randn(41, generator=generator, dtype=torch.float64)
            self.followed.mean += 0.25
            self.followed.count += 1
            yield size, images


def averages(walker: Walker, lengths: Iterable[float], snapshots: int = 0) -> list[Average]:
    return [Average(copy.deepcopy(walker), walker, walker.players(), length, snapshots) for length in lengths]  # type: ignore[arg-type]


def test_the_length_is_the_spread_of_the_profile() -> None:
    assert [exponent(length) for length in KEPT.values()] == pytest.approx(
        [16.97, 6.94], abs=0.005
    )  # as the paper states
    for length in (0.013, 0.05, 0.1, 0.17, 0.28):
        gamma = exponent(length)
        assert math.sqrt((gamma + 1) / (gamma + 2) ** 2 / (gamma + 3)) == pytest.approx(length, rel=1e-12)
        moments = [quad(lambda s, k=k, g=gamma: s**k * (g + 1) * s**g, 0, 1, epsabs=1e-13)[0] for k in (0, 1, 2)]
        assert moments[0] == pytest.approx(1, abs=1e-9)
        assert math.sqrt(moments[2] - moments[1] ** 2) == pytest.approx(length, rel=1e-6)
    assert exponent(12**-0.5) == pytest.approx(0, abs=1e-9) and exponent(0) == math.inf
    for impossible in (-0.01, 0.3, 1.0, math.nan):
        with pytest.raises(UsageError, match="lengths go from 0"):
            exponent(impossible)


@pytest.mark.parametrize("length", [0.0, 0.03, 0.05, 0.2])
def test_the_recursion_is_the_weighted_sum_of_the_whole_history(length: float) -> None:
    walker = Walker()
    (average,) = averages(walker, [length])
    history, times = [], [0]
    for batch, images in walker.walk(83):
        average.update(batch, images)
        history.append(walker.followed.weight.detach().clone())
        times.append(images)
    power = exponent(length) + 1
    edges = torch.tensor([(t / times[-1]) ** power for t in times], dtype=torch.float64)
    explicit = torch.stack(history).T @ edges.diff()
    entries = average.tensors()["average"]
    assert torch.allclose(entries["followed.weight"], explicit, rtol=1e-12, atol=0)
    assert entries.keys() == {"followed.weight", "followed.mean", "followed.count"}
    assert entries["followed.count"] == 83
    steps = 0.25 * torch.arange(1, 84, dtype=torch.float64) @ edges.diff()
    assert torch.allclose(entries["followed.mean"], steps.expand(3), rtol=1e-12)
    assert average.family.followed.weight.data_ptr() == entries["followed.weight"].data_ptr()  # type: ignore


def test_the_closed_form_of_the_overlap_is_the_integral() -> None:
    for t, gamma, other_t, other_gamma in [(1.0, 16.97, 1.0, 6.94), (0.375, 6.94, 1.0, 30.3), (3.0, 0.2, 2.0, 1.5)]:
        product = lambda s, a=(t, gamma), b=(other_t, other_gamma): math.prod(  # noqa: E731
            (g + 1) * s**g / end ** (g + 1) for end, g in (a, b)
        )
        numeric = quad(product, 0, min(t, other_t), epsabs=1e-13)[0]
        assert float(overlap(t, gamma, other_t, other_gamma)) == pytest.approx(numeric, rel=1e-9)
    late = overlap(1e12, exponent(0.002), 0.9e12, exponent(0.001))  # no overflow
    assert math.isfinite(late) and late >= 0


# What is missed, as a share of how far the average lies from the live weights (docs/averages.md has what was measured).
MISSED = {(8, 0.07): 4e-3, (8, 0.15): 4e-3, (8, 0.2): 2e-2, (16, 0.03): 2e-2, (16, 0.15): 1e-3, (16, 0.2): 4e-3}


@pytest.mark.parametrize(("count", "length"), MISSED)
def test_an_average_made_from_snapshots_is_the_one_that_was_followed(count: int, length: float, tmp_path: Path) -> None:
    walker = Walker()
    keeper, followed = averages(walker, [0.05], snapshots=count) + averages(walker, [length])
    rounds = 960
    for index, (batch, images) in enumerate(walker.walk(rounds), 1):
        keeper.update(batch, images)
        followed.update(batch, images)
        if index % (rounds // count) == 0:
            keeper.snapshot(tmp_path, images)
    made, error = reconstruct(tmp_path, length)
    wanted = followed.tensors()["average"]
    live = walker.followed.weight.detach()
    missed = (made["followed.weight"] - wanted["followed.weight"]).norm()
    assert missed < MISSED[count, length] * (live - wanted["followed.weight"]).norm()
    assert made["followed.count"] == 960 and 0 < error < WORST


def test_what_was_kept_comes_back_as_it_was_and_what_never_moved_unmoved(tmp_path: Path) -> None:
    walker = Walker()
    (keeper,) = averages(walker, [0.1], snapshots=4)
    kept: dict[int, dict[str, Tensor]] = {}
    for index, (batch, images) in enumerate(walker.walk(40), 1):
        walker.followed.mean.fill_(1e6)
        keeper.update(batch, images)
        if index % 10 == 0:
            keeper.snapshot(tmp_path, images)
            kept[images] = {name: value.clone() for name, value in keeper.tensors()["average"].items()}
    assert keeper.tensors().keys() == {"average", "short"}  # 0.1, asked for, is not followed twice
    for at, entries in kept.items():
        made, error = reconstruct(tmp_path, 0.1, at)
        assert torch.allclose(made["followed.weight"], entries["followed.weight"], rtol=1e-10)
        assert made["followed.count"] == entries["followed.count"] and error < 1e-6
    made, error = reconstruct(tmp_path, 0.14)
    assert error > 0.01 and torch.allclose(made["followed.mean"], torch.tensor(1e6, dtype=torch.float64), rtol=1e-10)


def test_the_weights_of_the_fit_sum_to_one_and_more_snapshots_fit_better() -> None:
    for length in (0.04, 0.15, 0.25):
        fits = [fit([1000 * (i + 1) // n for i in range(n)], length, 1000) for n in (4, 8, 16, 32)]
        errors = [error for _, error in fits]
        assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 9
        assert [weights.sum() for weights, _ in fits] == pytest.approx([1] * 4, abs=1e-9)
    s = (np.arange(200_000) + 0.5) / 200_000  # the error is what it says: the distance between profiles
    times, length = [250, 500, 750, 1000], 0.15
    weights, error = fit(times, length, 1000)
    profile = lambda t, g: np.where(s < t, (g + 1) * s**g / t ** (g + 1), 0.0)  # noqa: E731
    wanted = profile(1.0, exponent(length))
    rows = [[profile(t / 1000, exponent(own)) for own in KEPT.values()] for t in times]
    reached = np.einsum("sk,skx->x", weights, np.array(rows))
    assert error == pytest.approx(np.linalg.norm(reached - wanted) / np.linalg.norm(wanted), rel=1e-3)


def test_what_cannot_be_made_is_refused_with_what_can(tmp_path: Path) -> None:
    walker = Walker()
    (keeper,) = averages(walker, [0.0], snapshots=8)
    for index, (batch, images) in enumerate(walker.walk(40), 1):
        keeper.update(batch, images)
        if index % 5 == 0:
            keeper.snapshot(tmp_path / "averages", images)
    with pytest.raises(
        UsageError, match=r"miss its profile by 2\d%.*8 snapshots give lengths from 0.035 to 0.21"
    ) as no:
        reconstruct(tmp_path / "averages", 0.02)
    assert no.value.exit_code == 2
    with pytest.raises(UsageError, match="made at the times of the snapshots: 33, 66"):
        reconstruct(tmp_path / "averages", 0.05, at=20)
    with pytest.raises(UsageError, match=r"train with --train.snapshots 8"):
        reconstruct(tmp_path / "nothing", 0.05)
    damaged = sorted((tmp_path / "averages").iterdir())[3] / "long.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(
        CheckpointError, match=r"long.safetensors is damaged.*delete .*000000132 to do without"
    ):  # CK-08
        reconstruct(tmp_path / "averages", 0.07)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Data:
    return open_data("digits", cache=tmp_path_factory.mktemp("cache"))


def train_run(folder: Path, data: Data, settings: TrainSettings, name: str = "vae-mlp") -> Run:
    record = Record(name, Recipe(TINY[name], settings), data.spec, data.describe(), machine.describe(CPU), "test")
    run = Run.open(folder) if folder.exists() else Run.create(folder, record)
    torch.manual_seed(settings.seed)
    training.train(build(TINY[name], data.spec), data.train, settings, run, CPU)
    return run


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_real_run_gives_afterwards_what_it_would_have_followed(
    schedule: Literal["constant", "cosine"], digits: Data, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, schedule=schedule)
    run = train_run(tmp_path / "run", digits, replace(settings, snapshots=16))
    live = vector(load(run.folder, average=0))
    for length in (0.03, 0.07, 0.15, 0.2):
        direct = train_run(tmp_path / f"direct-{length}", digits, replace(settings, snapshots=0, average=length))
        assert not checkpoints.complete(direct.averages)
        wanted, made = load(direct.folder), load(run.folder, average=length)
        assert (wanted.average, wanted.average_error) == (length, 0) and 0 < made.average_error < WORST
        missed, far = (vector(made) - vector(wanted)).norm(), (live - vector(wanted)).norm()
        assert missed < 4e-4 * live.norm()
        assert missed < 0.03 * far or schedule == "cosine"  # where the last weights hardly move
        assert torch.allclose(made.sample(range(5)), wanted.sample(range(5)), atol=0.02)
    weights = checkpoints.newest(run.checkpoints).tensors["weights"]  # type: ignore[union-attr]
    assert torch.equal(live, torch.cat([weights[name].flatten() for name in sorted(weights)]))
    assert torch.equal(vector(load(run.folder, average=0.05)), vector(load(run.folder)))


def vector(trained: Trained) -> Tensor:
    weights = trained.generator.state_dict()
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


def test_a_resumed_run_has_the_snapshots_of_an_unbroken_one(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # RS-01
    whole = train_run(tmp_path / "whole", digits, SETTINGS, "gan")
    original, rounds = training.play_round, 0

    def stop_after_forty(*args, **kwargs):
        nonlocal rounds
        rounds += 1
        if rounds == 40:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(training, "play_round", stop_after_forty)
    with pytest.raises(Interrupted):
        train_run(tmp_path / "broken", digits, SETTINGS, "gan")
    broken = Run.open(tmp_path / "broken")
    assert [int(path.name) for path in checkpoints.complete(broken.averages)] == [37 * 12, 37 * 24, 37 * 36]
    checkpoints.save(
        broken.averages, 37 * 41, {"short": {}, "long": {}}, {}, keep=9
    )  # of a run that went on and crashed
    train_run(broken.folder, digits, SETTINGS, "gan")
    files = [sorted(run.averages.rglob("*")) for run in (whole, broken)]
    assert len(files[0]) == 8 * 4
    assert [p.relative_to(whole.folder) for p in files[0]] == [p.relative_to(broken.folder) for p in files[1]]
    assert all(a.is_dir() or a.read_bytes() == b.read_bytes() for a, b in zip(*files, strict=True))
    rewind(broken.averages, 37 * 30)
    assert [int(path.name) for path in checkpoints.complete(broken.averages)] == [37 * 12, 37 * 24]


def test_other_averages_are_sampled_from_the_command_line_beside_the_measured_ones(
    digits: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENERAMA_CACHE", str(digits.folder.parent))
    run = train_run(tmp_path / "run", digits, SETTINGS)
    assert main(["sample", str(run.folder), "--n", "5", "--average", "0.15", "--name", "longer"]) == 0
    manifest = json.loads((run.folder / "samples" / "longer" / "manifest.json").read_text())
    assert manifest["average"] == 0.15 and 0.01 < manifest["average_error"] < WORST
    with pytest.raises(UsageError, match="cannot be 'main'"):
        sample_run(load(run.folder, average=0.15), range(5))
    assert main(["evaluate", str(run.folder), "--n", "17", "--extractor", "pixels", "--average", "0.15"]) == 0
    measured = run.folder / "samples" / "average-0.15" / "metrics.json"
    assert json.loads(measured.read_text())["n"] == 17
    assert run.samples_made() == 0 and not (run.folder / "metrics.json").exists()
    assert main(["sample", str(run.folder), "--average", "0.01"]) == 2
    assert "8 snapshots give lengths from" in capsys.readouterr().err
    assert json.loads((sample_run(load(run.folder), range(3)) / "manifest.json").read_text())["average"] == 0.05
