"""Steps that must not be applied: numbers that are not finite, and batches that do not fit into the memory."""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import TINY
from torch import Tensor, nn

from generama import checkpoints, machine
from generama.core import Batch, Condition, Family, Noise
from generama.data import Data, open_data
from generama.errors import Diverged, ResourceError
from generama.families import build
from generama.health import PATIENCE, SETBACKS, explain
from generama.recipes import Recipe
from generama.run import Record, Run
from generama.settings import TrainSettings
from generama.state import State, begin, start
from generama.training import train
from generama.turns import play_round

CPU = torch.device("cpu")
SETTINGS = TrainSettings(batch=11, steps=13, previews=0)
every_family = pytest.mark.parametrize("name", TINY)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Data:
    return open_data("digits", cache=tmp_path_factory.mktemp("cache"))


def new_run(folder: Path, name: str, data: Data, settings: TrainSettings = SETTINGS) -> tuple[Run, Family]:
    recipe = Recipe(TINY[name], settings)
    run = Run.create(folder, Record(name, recipe, data.spec, data.describe(), machine.describe(CPU), "test"))
    torch.manual_seed(0)
    return run, build(recipe.family, data.spec)


def poison(family: Family, when: Callable[[int], bool], value: float = math.nan) -> tuple[str, list[int]]:
    """Make the gradient of the last player's first parameter `value` at those calls; its name and the calls so far."""
    calls = [0]

    def spoil(gradient: Tensor) -> Tensor:
        calls[0] += 1
        return torch.full_like(gradient, value) if when(calls[0]) else gradient

    name, parameter = next(iter(list(family.players())[-1].module.named_parameters()))
    parameter.register_hook(spoil)
    return name, calls


def finite(run: Run) -> bool:
    found = checkpoints.newest(run.checkpoints)
    assert found is not None
    return all(v.isfinite().all() for values in found.tensors.values() for v in values.values())


@every_family
def test_a_step_with_an_infinite_gradient_is_left_out_and_the_run_goes_on(  # NF-01, NF-03
    name: str, digits: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, family = new_run(tmp_path / "run", name, digits)
    parameter, _ = poison(family, lambda call: call in (5, 6), math.inf)  # the step, and when it is looked at again
    train(family, digits.train, SETTINGS, run, CPU)
    said = " ".join(capsys.readouterr().err.split())
    assert "was not applied" in said and f"the gradient of {parameter} is not finite" in said
    assert run.read_status()["state"] == "done" and run.read_status()["setbacks"] == 0
    assert finite(run)


def test_a_step_that_is_left_out_changes_no_weight_and_no_moment(digits: Data) -> None:
    family = build(TINY["vae"], digits.spec)
    batch = digits.train.batch(torch.arange(11))
    state = start(family.train(), SETTINGS)
    play_round(state, batch, SETTINGS, rate=1e-3)
    before = [value.clone() for value in tensors(state)]
    poison(family, lambda call: True)
    play_round(state, batch, SETTINGS, rate=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(state), strict=True))
    assert state.health.trouble(2) == (1, 1)


def tensors(state: State) -> list[Tensor]:
    moments = [v for o in state.optimisers.values() for m in o.state_dict()["state"].values() for v in m.values()]
    return [*state.family.state_dict().values(), *moments]


def test_trouble_in_a_row_goes_back_to_the_checkpoint_with_half_the_rate(digits: Data, tmp_path: Path) -> None:
    run, family = new_run(tmp_path / "run", "vae-mlp", digits)
    bad = range(4, 4 + PATIENCE + 2)  # three rounds, and twice the look at one of them
    poison(family, lambda call: call in bad)
    train(family, digits.train, SETTINGS, run, CPU)
    status = run.read_status()
    assert (status["state"], status["step"], status["setbacks"]) == ("done", 13, 1)
    rates = [float(line.split('"rate": ')[1].split(",")[0]) for line in (run.folder / "log.jsonl").open()]
    assert rates[0] == pytest.approx(SETTINGS.rate / 2)


@every_family
def test_trouble_without_end_ends_the_run_with_its_cause(name: str, digits: Data, tmp_path: Path) -> None:  # NF-02
    run, family = new_run(tmp_path / "run", name, digits)
    parameter, calls = poison(family, lambda call: call > 3)
    with pytest.raises(Diverged, match=r"lower --train\.rate") as error:
        train(family, digits.train, SETTINGS, run, CPU)
    assert error.value.exit_code == 6 and parameter in str(error.value)
    turns = list(family.players())[-1].turns
    assert calls[0] <= turns * (3 + PATIENCE + 3 + (PATIENCE + 3) * SETBACKS)  # bounded, the looks included
    assert finite(run)


def test_weights_that_are_not_finite_are_named_and_never_saved(digits: Data, tmp_path: Path) -> None:  # NF-04
    run, family = new_run(tmp_path / "run", "vae", digits)
    with torch.no_grad():
        next(iter(family.parameters())).fill_(math.nan)
    with pytest.raises(Diverged, match="holds a number that is not finite") as error:
        train(family, digits.train, SETTINGS, run, CPU)
    assert error.value.exit_code == 6 and checkpoints.complete(run.checkpoints) == []


def test_the_pictures_that_give_it_are_named(digits: Data) -> None:
    family = build(TINY["vae-mlp"], digits.spec)
    assert isinstance(family, nn.Module)
    marked = 7.0  # a value that no picture has

    def overflow(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output / (inputs[0].flatten(1).amax(1) != marked).float()[:, None]

    family.get_submodule("encoder").register_forward_hook(overflow)
    images = digits.train.batch(torch.arange(5)).images
    images[3] = marked
    label = torch.arange(5) % digits.spec.classes
    cause = explain(family.players()[0], Batch(images, Condition(label)), Noise(0, 5), [40, 41, 42, 43, 44])
    assert cause is not None and "training pictures 43 give it alone" in cause and "the vae's loss is" in cause
    images[3] = 0.0
    assert explain(family.players()[0], Batch(images, Condition(label)), Noise(0, 5), [40, 41, 42, 43, 44]) is None


class Small:
    """A memory that holds so many images at a time."""

    def __init__(self, module: nn.Module, images: int) -> None:
        self.images = images
        module.register_forward_pre_hook(self)

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) > self.images:
            raise torch.OutOfMemoryError("CUDA out of memory.")


def network(family: Family) -> nn.Module:
    assert isinstance(family, nn.Module)
    return next(module for name, module in family.named_modules() if name in ("net", "encoder", "enter"))


@pytest.mark.parametrize("name", ["vae", "flow", "autoregressive", "diffusion"])
def test_a_batch_too_large_for_the_memory_is_taken_in_parts_with_the_same_gradients(name: str, digits: Data) -> None:
    batch = digits.train.batch(torch.arange(11))  # NF-10
    results = []
    for images in (11, 4):
        torch.manual_seed(0)
        family = build(TINY[name], digits.spec)
        begin(family, SETTINGS, batch)
        state = start(family.train(), SETTINGS)
        Small(network(family), images)
        logs = play_round(state, batch, replace(SETTINGS, clip=0), rate=1e-3)
        results.append((state.parts, logs, [p.grad for p in family.parameters()]))
    (one, logs, whole), (parts, again, summed) = results
    assert (one, parts) == (1, 4)
    assert all(torch.allclose(again[k], logs[k], rtol=1e-5) for k in logs if k.startswith("loss"))
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(whole, summed, strict=True))


def test_a_memory_too_small_for_one_image_ends_with_what_to_change(digits: Data, tmp_path: Path) -> None:
    run, family = new_run(tmp_path / "run", "diffusion", digits)
    Small(network(family), 0)
    with pytest.raises(ResourceError, match=r"out of memory with 1 images at a time.*lower --train\.batch") as error:
        train(family, digits.train, replace(SETTINGS, previews=0), run, CPU)
    assert error.value.exit_code == 5 and finite(run)


# Slow, because not yet dependable: with MALLOC_ARENA_MAX=1, or on a busy machine, the main heap does not give back
# what the first, too large attempt took, and one image is too many as well. Alone on a quiet machine it passes in 11 s.
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS limits memory on Linux alone")
def test_a_real_lack_of_memory_is_survived(tmp_path: Path) -> None:  # NF-10
    words = "train ddpm --data digits --train.batch 4000 --train.steps 1 --train.previews 0 --run"
    command = [sys.executable, "-m", "generama", *words.split(), str(tmp_path / "run")]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000, 1_500_000_000))

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, preexec_fn=limit, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "out of memory: from here on a batch is taken in 2 parts; the gradients stay the same" in done.stderr
    assert Run.open(tmp_path / "run").read_status()["state"] == "done"
