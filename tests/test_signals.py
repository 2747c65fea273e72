"""Signals: training saves and says how to go on, other work leaves nothing half-written, SLURM jobs are requeued."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import generama
from generama import checkpoints, slurm
from generama.__main__ import main
from generama.files import whole_folder
from generama.signals import Terminated, asked_to_stop, terminated_cleanly

TRAIN = ["train", "vae-mlp", "--data", "digits", "--train.steps", "20000", "--train.batch", "16", "--run", "tiny"]
ENV = os.environ | {"PYTHONPATH": str(Path(generama.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
SECONDS = 60  # for anything to happen on a busy machine


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder to work in, with a cache beside it; it holds the run "tiny", which SIGTERM stopped."""
    folder = tmp_path_factory.mktemp("work")
    ENV["GENERAMA_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    train_until(signal.SIGTERM, TRAIN, folder)
    return folder


def train_until(number: signal.Signals, words: list[str], folder: Path, **env: str) -> str:
    """Train, and once it logs send a signal; returns what was said. The state must then be saved."""
    run = folder / "runs" / "tiny"
    before = rows(run)
    process = begin(words, folder, **env)
    wait_for(lambda: rows(run) > before, process)
    process.send_signal(number)
    code, said = ended(process)
    assert code == 75 and "everything is saved; go on with: generama resume" in said and "Traceback" not in said
    return said


def begin(words: list[str], folder: Path, **env: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "generama", *words]
    return subprocess.Popen(command, cwd=folder, env=ENV | env, text=True, stderr=subprocess.PIPE)


def wait_for(happens: Callable[[], object], process: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    while not happens():
        assert process.poll() is None and time.monotonic() - began < SECONDS, process.communicate()
        time.sleep(0.005)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said = process.communicate(timeout=SECONDS)[1]
    return process.returncode, said


def rows(run: Path) -> int:
    log = run / "log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def check_saved(run: Path) -> int:
    """The step that both the status and a whole checkpoint have."""
    status, found = json.loads((run / "status.json").read_text()), checkpoints.newest(run / "checkpoints")
    assert found is not None and status["state"] == "interrupted"
    assert found.facts["spent"]["step"] == status["step"] > 0
    assert not [p for p in run.rglob(".*") if p.name.startswith((".incomplete", ".trash", ".holder"))]
    return status["step"]


def test_training_saves_at_each_signal_and_goes_on_from_there(work: Path) -> None:  # PR-01
    run = work / "runs" / "tiny"
    first = check_saved(run)  # after SIGTERM
    train_until(signal.SIGINT, ["resume", "tiny"], work)
    assert check_saved(run) > first


def test_a_second_ctrl_c_harms_nothing(work: Path) -> None:  # PR-01
    run = work / "runs" / "tiny"
    step, before = check_saved(run), rows(run)
    process = begin(["resume", "tiny"], work)
    wait_for(lambda: rows(run) > before, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    code, said = ended(process)
    assert code in (75, 130) and "Traceback" not in said
    found = checkpoints.newest(run / "checkpoints")
    assert found is not None and found.facts["spent"]["step"] >= step
    assert not [p for p in run.rglob(".*") if p.name.startswith((".incomplete", ".holder"))]


def test_sampling_that_is_told_to_go_leaves_nothing_half_written(work: Path) -> None:  # PR-03
    samples = work / "runs" / "tiny" / "samples"
    process = begin(["sample", "tiny", "--n", "20000", "--batch", "5000", "--singles"], work)
    wait_for(lambda: list(samples.glob(".incomplete-*/000*.png")), process)
    process.send_signal(signal.SIGTERM)
    code, said = ended(process)
    assert code == 75 and "stopped by SIGTERM; nothing is left half-written" in said and "Traceback" not in said
    assert list(samples.iterdir()) == []


def test_measuring_that_is_told_to_go_writes_no_metrics(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # PR-03
    monkeypatch.chdir(work)
    monkeypatch.setenv("GENERAMA_CACHE", ENV["GENERAMA_CACHE"])
    from generama.families.vae import VAE

    bound = VAE.log_prob

    def interrupted(*args, **options):
        signal.raise_signal(signal.SIGTERM)
        return bound(*args, **options)

    monkeypatch.setattr(VAE, "log_prob", interrupted)
    assert main(["evaluate", "tiny", "--n", "53", "--extractor", "pixels"]) == 75
    assert "stopped by SIGTERM" in capsys.readouterr().err
    assert not (work / "runs" / "tiny" / "metrics.json").exists()


def save(folder: Path, step: int) -> None:
    checkpoints.save(folder, step, {"weights": {"a": torch.full((7,), float(step))}}, {"step": step})


def in_the_middle(monkeypatch: pytest.MonkeyPatch, *numbers: signal.Signals) -> None:
    """Send these signals to this process while its next file is flushed."""
    left, flush = list(numbers), os.fsync

    def flush_and_signal(handle: int) -> None:
        flush(handle)
        while left:
            signal.raise_signal(left.pop(0))

    monkeypatch.setattr(os, "fsync", flush_and_signal)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_during_a_save_lets_it_finish(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # PR-02
    save(tmp_path, 3)
    in_the_middle(monkeypatch, number, signal.SIGTERM, signal.SIGUSR1)
    with asked_to_stop() as stop:
        assert not stop.is_set()
        save(tmp_path, 7)
    assert stop.is_set() and stop.signal is number  # the first that asked
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert checkpoints.read(tmp_path / "000000007").facts == {"step": 7}


def test_a_second_ctrl_c_during_a_save_drops_it_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # PR-01
    save(tmp_path, 3)
    in_the_middle(monkeypatch, signal.SIGTERM, signal.SIGINT, signal.SIGINT)
    with asked_to_stop(), pytest.raises(KeyboardInterrupt):
        save(tmp_path, 7)
    assert [p.name for p in tmp_path.iterdir()] == ["000000003"]


def test_handlers_are_put_back_and_nest() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with terminated_cleanly():
        with asked_to_stop() as stop:
            signal.raise_signal(signal.SIGUSR1)
        assert stop.signal is signal.SIGUSR1
        with pytest.raises(Terminated) as left:
            signal.raise_signal(signal.SIGTERM)
        assert left.value.signal is signal.SIGTERM and not isinstance(left.value, Exception)
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]


def test_outside_the_main_thread_nothing_asks() -> None:
    asked = []

    def work() -> None:
        with terminated_cleanly(), asked_to_stop() as stop:
            asked.append(stop.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [False]


def test_a_folder_that_ctrl_c_interrupts_is_not_there(tmp_path: Path) -> None:  # PR-03
    for target in (tmp_path / "new", tmp_path / "old"):
        if target.name == "old":
            with whole_folder(target) as draft:
                (draft / "a").write_text("old")
        with pytest.raises(KeyboardInterrupt), whole_folder(target) as draft:
            (draft / "a").write_text("half")
            raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["old"] and (tmp_path / "old" / "a").read_text() == "old"


# SLURM

ARRAY = {"SLURM_ARRAY_JOB_ID": "71", "SLURM_ARRAY_TASK_ID": "5"}


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Outside any job, with an scontrol that writes down what it is asked, and fails for job 13."""
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "RANK"):
        monkeypatch.delenv(name, raising=False)
    asked = tmp_path / "asked"
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n[ "$2" != 13 ] || {{ echo "not allowed" >&2; exit 1; }}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    asked.touch()
    return asked


@pytest.mark.parametrize(
    ("env", "number", "asks"),
    [
        ({"SLURM_JOB_ID": "71"}, signal.SIGUSR1, "requeue 71\n"),
        (
            {"SLURM_JOB_ID": "73", "SLURM_ARRAY_JOB_ID": "71", "SLURM_ARRAY_TASK_ID": "5"},
            signal.SIGUSR1,
            "requeue 71_5\n",
        ),
        ({"SLURM_JOB_ID": "71", "RANK": "0"}, signal.SIGUSR1, "requeue 71\n"),
        ({"SLURM_JOB_ID": "71", "RANK": "3"}, signal.SIGUSR1, ""),
        ({"SLURM_JOB_ID": "71"}, signal.SIGTERM, ""),
        ({"SLURM_JOB_ID": "71"}, signal.SIGINT, ""),
        ({"SLURM_JOB_ID": "71"}, None, ""),
        ({}, signal.SIGUSR1, ""),
    ],
)
def test_only_sigusr1_requeues_the_job(
    env: dict[str, str], number: signal.Signals | None, asks: str, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # PR-04
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    slurm.requeue(number)
    assert queue.read_text() == asks


def test_a_refused_requeue_is_told(
    queue: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:  # PR-04
    monkeypatch.setenv("SLURM_JOB_ID", "13")
    slurm.requeue(signal.SIGUSR1)
    assert "warning: SLURM job 13 could not be requeued (not allowed); submit it again" in capfd.readouterr().err
    monkeypatch.setenv("PATH", str(queue.parent))
    slurm.requeue(signal.SIGUSR1)
    assert "could not be requeued ([Errno 2] No such file" in capfd.readouterr().err


def test_a_preempted_run_is_saved_and_requeued_once(work: Path, queue: Path) -> None:  # PR-04
    said = train_until(signal.SIGUSR1, ["resume", "tiny"], work, PATH=os.environ["PATH"], SLURM_JOB_ID="13")
    assert "warning: SLURM job 13 could not be requeued" in said  # and the exit code is still 75
    assert queue.read_text() == "requeue 13\n"
    check_saved(work / "runs" / "tiny")
