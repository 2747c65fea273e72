"""Two processes train as one does: real ones, started by torchrun, with copied (DDP) and shared (FSDP2) weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY
from torch import nn
from two_processes import CPU, NAMES, train_tiny

from generama import checkpoints, world
from generama.__main__ import main
from generama.errors import CheckpointError, UsageError
from generama.run import Run, load

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def torchrun(*words: str) -> list[str]:
    """The command that starts two processes, at a port of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port, *words]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The runs of two processes, NAME-copied and NAME-shared, and those of one, NAME."""
    folder, cache = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("cache")
    script = Path(__file__).with_name("two_processes.py")
    command = torchrun(str(script), str(folder), str(cache))
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in NAMES:
        train_tiny(folder / name, name, False, cache)
    torch.set_num_threads(threads)
    return folder


HANG = """
import time
from datetime import timedelta
import torch
from generama import world

world.PATIENCE = timedelta(seconds=3)
with world.joined(torch.device("cpu")):
    world.by_first("saving", lambda: time.sleep(60))
"""


def log(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def tensors(run: Path) -> dict[str, torch.Tensor]:
    found = checkpoints.newest(run / "checkpoints")
    assert found is not None
    return {f"{kind}/{name}": value for kind, values in found.tensors.items() for name, value in values.items()}


@pytest.mark.parametrize("weights", ["copied", "shared"])
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_have_the_losses_of_one(name: str, weights: str, runs: Path) -> None:
    one, two = log(runs / name), log(runs / f"{name}-{weights}")
    assert [row["images"] for row in one] == [row["images"] for row in two] == [26 * (i + 1) for i in range(20)]
    losses = [key for key in one[0] if key.startswith("loss/")]
    assert len(losses) == (2 if name.startswith("gan") else 1)
    for mine, theirs in zip(one, two, strict=True):
        for key in losses:
            assert theirs[key] == pytest.approx(mine[key], rel=1e-5, abs=1e-5), (mine["step"], key)


@pytest.mark.parametrize("weights", ["copied", "shared"])
@pytest.mark.parametrize("name", NAMES)
def test_their_checkpoints_are_those_of_one_process(name: str, weights: str, runs: Path) -> None:
    one, two = tensors(runs / name), tensors(runs / f"{name}-{weights}")
    assert {key: value.shape for key, value in one.items()} == {key: value.shape for key, value in two.items()}
    assert all(torch.allclose(two[key], one[key], rtol=1e-3, atol=2e-3) for key in one if key.startswith("average/"))
    images = load(runs / f"{name}-{weights}", "cpu").sample(range(3))
    assert torch.allclose(images, load(runs / name, "cpu").sample(range(3)), atol=0.02)
    kept = [checkpoints.read(path) for path in checkpoints.complete(runs / f"{name}-{weights}" / "averages")]
    assert len(kept) == 1 and kept[0].facts["images"] == 26 * 20


def test_a_killed_process_takes_all_down_and_the_restart_goes_on_from_one_step(tmp_path: Path) -> None:  # PR-05
    words = (
        "train vae-mlp --data digits --train.batch 26 --train.steps 400 --train.previews 0 --train.save-minutes 0.005"
    )
    command = ["-m", "--", "generama", *words.split(), "--train.save-minutes", "0.005", "--run"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(torchrun(*command, str(whole)), env=ENVIRONMENT, check=True, capture_output=True, timeout=300)
    patient = ["--max-restarts", "1", "--shutdown-timeout", "3"]
    words = torchrun(*patient, *command, str(broken))
    going = subprocess.Popen(words, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not (killed_at := saved_step(broken)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process_of_rank(1, going.pid), signal.SIGKILL)
    _, said = going.communicate(timeout=200)
    assert going.returncode == 0, said[-3000:]
    status = Run.open(broken).read_status()
    assert status["state"] == "done" and 0 < killed_at < 400 == status["step"]
    expected = tensors(whole)
    assert all(torch.equal(value, expected[key]) for key, value in tensors(broken).items())
    steps = [row["step"] for row in log(broken)]
    assert steps == sorted(set(steps)) == [row["step"] for row in log(whole)]


def test_one_process_goes_on_where_two_were(runs: Path, tmp_path: Path) -> None:  # RS-09
    broken = tmp_path / "broken"
    shutil.copytree(runs / "vae-shared", broken)
    checkpoints.discard(broken / "checkpoints" / "000000020")
    (broken / "status.json").unlink()
    assert saved_step(broken) == 19 and main(["resume", str(broken)]) == 0
    expected = tensors(runs / "vae")
    assert all(torch.allclose(value, expected[key], rtol=1e-3, atol=1e-3) for key, value in tensors(broken).items())
    assert [row["step"] for row in log(broken)] == list(range(1, 21))


def test_a_process_that_hangs_is_named_and_not_waited_for_for_ever(tmp_path: Path) -> None:  # PR-07
    script = tmp_path / "hang.py"
    script.write_text(HANG)
    began = time.monotonic()
    done = subprocess.run(torchrun(str(script)), env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and time.monotonic() - began < 60
    assert "process 0 did not answer within 0:00:03 while saving; look at its log" in done.stderr


def test_two_processes_draw_the_images_of_one(runs: Path) -> None:
    two = runs / "diffusion-rectified-flow-copied"
    words = ["sample", str(two), "--n", "70", "--batch", "13", "--name"]
    command = torchrun("-m", "--", "generama", *words)
    done = subprocess.run([*command, "both"], env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [str(two / "samples" / "both")]
    assert main([*words, "alone"]) == 0
    both, alone = (np.load(two / "samples" / name / "samples.npz") for name in ("both", "alone"))
    assert all(np.array_equal(both[key], alone[key]) for key in ("images", "seeds", "labels"))


def saved_step(folder: Path) -> int:
    found = checkpoints.complete(folder / "checkpoints")
    return int(found[-1].name) if found else 0


def process_of_rank(rank: int, parent: int) -> int:
    """The child of torchrun with that rank, by its environment."""
    for folder in Path("/proc").iterdir():
        try:
            child = folder.name.isdigit() and f"PPid:\t{parent}\n" in (folder / "status").read_text()
            if child and f"RANK={rank}" in (folder / "environ").read_bytes().decode().split("\0"):
                return int(folder.name)
        except (OSError, UnicodeDecodeError):
            continue
    raise AssertionError(f"no process of rank {rank} below {parent}")


def test_alone_every_question_has_a_plain_answer() -> None:
    assert (world.rank(), world.size(), world.rows(11)) == (0, 1, slice(0, 11))
    assert world.agree(1.5, True) == [1.5, True]
    assert world.by_first("nothing", lambda: 3) == world.first_then_all(lambda: 3) == 3
    with world.joined(CPU):
        assert world.size() == 1


def test_a_batch_that_cannot_be_shared_alike_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "size", lambda: 3)
    with pytest.raises(UsageError, match=r"a batch of 64 cannot be shared by 3 processes alike; try --train.batch 63"):
        world.rows(64)


def test_a_failure_of_the_first_process_is_everyones() -> None:
    def fail() -> None:
        raise CheckpointError("the disk is full")

    with pytest.raises(CheckpointError, match="the disk is full"):
        world.by_first("saving", fail)


def test_every_family_is_trained_by_two_processes_somewhere_above() -> None:
    assert {TINY[name].kind for name in NAMES} == {config.kind for config in TINY.values()}


def test_alone_a_batch_norm_is_torchs_own() -> None:
    norm = nn.Sequential(nn.BatchNorm2d(3))
    world.share_batch_norms(norm)  # type: ignore[arg-type]
    assert type(norm[0]) is nn.BatchNorm2d
