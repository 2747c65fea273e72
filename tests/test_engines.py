"""Many runs at once, on a Ray cluster that is started here: real trainings, real kills."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import generama
from generama.__main__ import main
from generama.errors import UsageError

ray = pytest.importorskip("ray")
FEW = {"data": "digits", "samples": 60}


@pytest.fixture(autouse=True, scope="module")
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run in an empty folder, with a cache of this test's own and one thread, as Ray's workers have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("work"))
        patch.setenv("GENERAMA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("PYTHONPATH", str(Path(generama.__file__).parents[1]))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def cluster(own_folder: None) -> Iterator[str]:
    """A cluster of two cores on this machine; its address."""
    ray.init("local", num_cpus=2, object_store_memory=100 * 2**20, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def weights(run: Path) -> dict[str, str]:
    """The SHA-256 of every file of the newest checkpoint."""
    newest = max((run / "checkpoints").iterdir())
    return {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in newest.glob("*.safetensors")}


def status(run: Path) -> dict:
    return json.loads((run / "status.json").read_text())


def summary(report: Path) -> dict:
    return json.loads((report.parent / "compare.json").read_text())


def wait_for(what, seconds: float = 180.0):
    """The first answer of `what` that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := what():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"nothing came within {seconds} s")


def worker_of(name: str) -> int | None:
    """The process that works on the run of that name: Ray names its processes after their tasks."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cmdline").read_bytes().startswith(f"ray::{name}".encode()):
                return int(process.name)
    return None


def in_mid_run(run: Path) -> bool:
    return (run / "log.jsonl").exists() and status(run)["state"] == "running"


def start(*words: str) -> subprocess.Popen:
    """The command line as a process of its own."""
    words = ("compare", *words, "--data", "digits", "--samples", "60", "--engine", "ray")
    command = [sys.executable, "-m", "generama", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def test_ray_trains_the_same_weights_as_this_process_and_a_failed_run_costs_no_other(cluster: str) -> None:
    recipes = ["vae-mlp", "pixelcnn", "gan-mlp"]
    asked = {"data": "moons", "samples": 60, "budget": "320 images"}  # pixelcnn models grey levels, not points
    there = generama.compare(recipes, engine="ray", out=Path("there"), **asked)
    here = generama.compare(recipes, out=Path("here"), **asked)
    assert summary(there)["failed"].keys() == {"pixelcnn-320images-seed0"}
    assert summary(there)["failed"] == summary(here)["failed"]
    for name in ("vae-mlp-320images-seed0", "gan-mlp-320images-seed0"):
        assert weights(there.parent / name) == weights(here.parent / name)
        distances = [
            json.loads((r.parent / name / "metrics.json").read_text())["measures"]["frechet"] for r in (there, here)
        ]
        assert distances[0] == distances[1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_whose_worker_is_killed_or_asked_to_leave_is_taken_up_again(cluster: str, number: int) -> None:
    run = Path(f"killed-{number}") / "vae-30kimages-seed0"
    left: list[str] = []

    def kill() -> None:
        wait_for(lambda: in_mid_run(run))
        worker = wait_for(lambda: worker_of(run.name))
        os.kill(worker, number)
        if number == signal.SIGKILL:
            wait_for(lambda: worker_of(run.name) != worker)
        left.append(status(run)["state"])

    killer = threading.Thread(target=kill)
    killer.start()
    report = generama.compare(["vae"], budget="30k images", engine="ray", out=run.parent, **FEW)
    killer.join()
    assert left and left[0] != "done"
    assert summary(report)["failed"] == {} and (run / "metrics.json").exists()
    assert status(run)["state"] == "done" and status(run)["images"] >= 30_000
    oldest = min(path.name for path in (run / "checkpoints").iterdir())
    assert (oldest == "000000000") == (number == signal.SIGKILL)  # who was asked saved before it left


def test_after_a_killed_driver_only_what_is_missing_is_done(cluster: str) -> None:  # PR-09
    words = ["vae", "--address", cluster, "--out", "driven", "--epochs", "1,20"]
    first, second = Path("driven/vae-1epochs-seed0"), Path("driven/vae-20epochs-seed0")
    core = ray.remote(num_cpus=1)(lambda: time.sleep(1_000)).remote()  # so that the runs go one after the other
    driver = start(*words)
    wait_for(lambda: (first / "metrics.json").exists() and in_mid_run(second))
    driver.kill()
    driver.communicate()
    wait_for(lambda: not worker_of(second.name))
    finished = {p: p.stat().st_mtime_ns for p in first.rglob("*") if p.is_file()}
    assert status(first)["state"] == "done" and status(second)["state"] != "done"
    again = start(*words)
    _, told = again.communicate(timeout=180)
    ray.cancel(core, force=True)
    assert again.returncode == 0 and "1 of 2" not in told and "2 of 2  vae-20epochs-seed0" in told
    assert finished == {p: p.stat().st_mtime_ns for p in first.rglob("*") if p.is_file()}
    assert status(second)["state"] == "done" and (second / "metrics.json").exists()


def test_ctrl_c_saves_the_runs_in_flight_and_ends_the_cluster_that_it_started() -> None:
    run = Path("stopped/vae-1000kimages-seed0")
    driver = start("vae", "--out", "stopped", "--budget", "1000k images")
    wait_for(lambda: in_mid_run(run))
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    _, told = driver.communicate(timeout=60)
    assert driver.returncode == 75 and "the same command again" in told
    assert status(run)["state"] == "interrupted" and weights(run)
    assert not worker_of(run.name)


def test_what_cannot_work_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cluster: str
) -> None:
    with pytest.raises(UsageError, match="unknown engine 'rya'; known: here, ray; did you mean 'ray'"):
        generama.compare(["vae"], engine="rya", **FEW)
    with pytest.raises(UsageError, match="add --engine ray"):
        generama.compare(["vae"], address="127.0.0.1:6379", **FEW)
    with pytest.raises(UsageError, match="--cpus-per-run 1 to 2"):
        generama.compare(["vae"], engine="ray", cpus_per_run=3, **FEW)
    with pytest.raises(UsageError, match="nothing answers"):
        generama.compare(["vae"], engine="ray", address="127.0.0.1:1", **FEW)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["compare", "vae", "--data", "digits", "--engine", "ray"]) == 2
    assert "pip install 'generama[ray]'" in capsys.readouterr().err


def test_equal_time_beside_other_runs_is_told_to_be_unfair(cluster: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = generama.compare(["vae-mlp", "vae-mlp"], "moons", "0.2s", engine="ray", samples=20)
    assert "--budget '200k images' is the fair one" in capsys.readouterr().err
    assert summary(report)["budget"] == "0.2s of training time each, while other runs trained beside it"
    assert summary(report)["runs"] == ["vae-mlp-0.2s-seed0"]  # named twice, trained once
