"""The loop and the run folder: exact resume, whole checkpoints, budgets, averages, divergence."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import TINY

from generama import checkpoints, machine
from generama.core import seed_of
from generama.data import Data, open_data
from generama.errors import CheckpointError, Diverged, Interrupted, UsageError
from generama.families import build
from generama.recipes import Recipe
from generama.run import Record, Run, load
from generama.settings import Spent, TrainSettings, budget_fields, count, learning_rate, progress
from generama.state import start
from generama.training import train
from generama.turns import play_round

SETTINGS = TrainSettings(batch=37, images=37 * 12, previews=2)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Data:
    return open_data("digits", cache=tmp_path_factory.mktemp("cache"))


def new_run(folder: Path, name: str, data: Data, settings: TrainSettings = SETTINGS) -> Run:
    recipe = Recipe(TINY[name], settings, {"steps": 2} if name.startswith("diffusion") else {})
    return Run.create(folder, Record(name, recipe, data.spec, data.describe(), machine.describe(CPU), "test"))


def train_run(run: Run, data: Data) -> None:
    torch.manual_seed(run.record.recipe.train.seed)
    train(build(run.record.recipe.family, run.record.spec), data.train, run.record.recipe.train, run, CPU)


def newest_tensors(run: Run) -> dict[str, torch.Tensor]:
    checkpoint = checkpoints.newest(run.checkpoints)
    assert checkpoint is not None
    return {f"{kind}/{name}": value for kind, values in checkpoint.tensors.items() for name, value in values.items()}


@pytest.mark.parametrize("name", ["vae", "gan-mlp", "flow", "autoregressive", "diffusion"])
def test_a_stopped_and_resumed_run_is_bit_identical_to_an_unbroken_one(
    name: str, digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # RS-01
    whole, broken = new_run(tmp_path / "whole", name, digits), new_run(tmp_path / "broken", name, digits)
    train_run(whole, digits)
    rounds = 0

    def stop_after_five(*args, **kwargs):
        nonlocal rounds
        rounds += 1
        if rounds == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    from generama import training

    original = training.play_round
    monkeypatch.setattr(training, "play_round", stop_after_five)
    with pytest.raises(Interrupted, match="generama resume") as stopped:
        train_run(broken, digits)
    assert stopped.value.exit_code == 75 and broken.read_status()["state"] == "interrupted"
    assert broken.read_status()["step"] == 5
    torch.manual_seed(999)
    train_run(broken, digits)
    assert broken.read_status()["state"] == "done"
    tensors, again = newest_tensors(whole), newest_tensors(broken)
    assert tensors.keys() == again.keys()
    assert all(torch.equal(tensors[key], again[key]) for key in tensors)
    last = [Image.open(run.folder / "previews" / "000000444.png").tobytes() for run in (whole, broken)]
    assert last[0] == last[1]
    steps = [json.loads(line)["step"] for line in (broken.folder / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))  # RS-03


def test_the_same_seed_gives_the_same_files_and_looking_changes_nothing(digits: Data, tmp_path: Path) -> None:
    files = []  # RS-07, RS-10
    for name, previews in (("one", 0), ("again", 0), ("watched", 4)):
        run = new_run(tmp_path / name, "vae", digits, replace(SETTINGS, previews=previews))
        train_run(run, digits)
        newest = checkpoints.complete(run.checkpoints)[-1]
        files.append({path.name: path.read_bytes() for path in newest.glob("*.safetensors")})
    assert len(files[0]) == 3 and files[0] == files[1] == files[2]


def test_loading_gives_the_averaged_weights(digits: Data, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", "vae", digits)
    train_run(run, digits)
    trained = load(run.folder)
    checkpoint = checkpoints.newest(run.checkpoints)
    assert checkpoint is not None
    state = trained.generator.state_dict()
    assert all(torch.equal(state[name], value) for name, value in checkpoint.tensors["average"].items())
    assert any(not torch.equal(state[name], value) for name, value in checkpoint.tensors["weights"].items())
    assert torch.allclose(trained.sample([3, 4])[1], trained.sample([4])[0], atol=1e-5)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(digits: Data, tmp_path: Path) -> None:  # CK-08
    for step in (3, 7):
        checkpoints.save(tmp_path, step, {"weights": {"a": torch.arange(step).float()}}, {"step": step})
    newest = tmp_path / "000000007" / "weights.safetensors"
    content = newest.read_bytes()
    for damaged in (content[:-1], b"", content[:-1] + bytes([content[-1] ^ 1])):
        newest.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="000000007"):
            checkpoints.read(newest.parent)
        found = checkpoints.newest(tmp_path)
        assert found is not None and found.facts == {"step": 3}
    (tmp_path / "000000003" / "weights.safetensors").unlink()  # CK-10
    with pytest.raises(CheckpointError, match="000000003"):
        checkpoints.newest(tmp_path)


def test_only_complete_checkpoints_are_seen_and_two_are_kept(tmp_path: Path) -> None:  # CK-16
    for step in range(1, 6):
        checkpoints.save(tmp_path, step, {"weights": {"a": torch.ones(2)}}, {})
    (tmp_path / "000000009").mkdir()  # a folder without its manifest was never published
    assert [p.name for p in checkpoints.complete(tmp_path)] == ["000000004", "000000005"]
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_number_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:  # NF-04
    with pytest.raises(Diverged, match="'b'"):
        checkpoints.save(tmp_path, 1, {"weights": {"b": torch.tensor([1.0, math.inf])}}, {})
    assert checkpoints.complete(tmp_path) == []


def test_a_run_that_is_not_there_is_refused(tmp_path: Path) -> None:  # CK-12
    with pytest.raises(CheckpointError, match="is not a run"):
        load(tmp_path / "nothing")


def test_a_run_folder_is_never_overwritten(digits: Data, tmp_path: Path) -> None:
    new_run(tmp_path / "run", "vae", digits)
    with pytest.raises(UsageError, match="generama resume"):
        new_run(tmp_path / "run", "vae", digits)


def test_a_finished_run_reloads_as_the_recipe_that_was_written(digits: Data, tmp_path: Path) -> None:
    for name in TINY:
        run = new_run(tmp_path / name, name, digits)
        assert Run.open(run.folder).record.recipe == run.record.recipe


def test_two_time_scales_turns_and_lazy_players_are_respected(digits: Data) -> None:
    family = build(TINY["gan-mlp"], digits.spec)
    settings = TrainSettings()
    state = start(family.train(), settings)
    generator, critic = sorted(state.players, key=lambda p: p.average, reverse=True)
    state.players = [replace(generator, turns=2, every=3), critic]
    batch = digits.train.batch(torch.arange(5))
    for _ in range(6):
        play_round(state, batch, settings, rate=1e-4)
    made = {p.name: state.optimisers[p.name].state_dict()["state"][0]["step"].item() for p in state.players}
    assert made == {generator.name: 4, critic.name: 6}


def test_budgets_end_where_they_say() -> None:
    spent = Spent(step=10, images=640, seconds=30, flops=5e9)
    assert progress(TrainSettings(epochs=2), spent, epoch=640) == 0.5
    assert progress(TrainSettings(minutes=1), spent, epoch=640) == 0.5
    assert progress(TrainSettings(images=1280), spent, epoch=640) == 0.5
    assert progress(TrainSettings(steps=40), spent, epoch=640) == 0.25
    assert progress(TrainSettings(flops=1e10, minutes=0.1), spent, epoch=640) == 1.0
    assert progress(TrainSettings(), Spent(seconds=150), epoch=640) == 0.5  # five minutes where nothing is said


def test_a_cosine_ends_at_zero_whatever_the_budget() -> None:
    settings = TrainSettings(rate=0.1, warmup=128)
    assert learning_rate(settings, Spent(), 0.0) == 0.05
    assert learning_rate(settings, Spent(images=640), 0.5) == pytest.approx(0.05)
    assert learning_rate(settings, Spent(images=640), 1.0) == pytest.approx(0.0)
    assert learning_rate(replace(settings, schedule="constant"), Spent(images=640), 1.0) == 0.1


def test_amounts_are_read_as_people_write_them() -> None:
    assert (count("20k"), count("1.5M"), count("7")) == (20_000, 1_500_000, 7)
    assert budget_fields("35s") == {"minutes": pytest.approx(35 / 60)}
    assert budget_fields("200k images") == {"images": 200_000}
    assert budget_fields("1e15 flops") == {"flops": 1e15}
    assert budget_fields("10 epochs") == {"epochs": 10.0}
    with pytest.raises(UsageError, match="is not a budget; write 35s"):
        budget_fields("five minutes")


def test_the_noise_of_a_turn_depends_on_all_that_names_it() -> None:
    seeds = {seed_of(s, t, p, k) for s in (0, 1) for t in (0, 1) for p in ("a", "b") for k in (0, 1)}
    assert len(seeds) == 16


def test_training_outside_the_main_thread_works(digits: Data, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", "vae", digits)
    thread = threading.Thread(target=train_run, args=(run, digits))
    thread.start()
    thread.join()
    assert run.read_status()["state"] == "done"


def test_no_preview_is_drawn_where_none_is_asked_for(digits: Data, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", "vae", digits, replace(SETTINGS, images=37 * 3, previews=0))
    train_run(run, digits)
    assert not list((run.folder / "previews").glob("*"))
