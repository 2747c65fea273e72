"""The engines: how the runs of a comparison are worked off, one after the other here or many at once as tasks of Ray.

An engine takes the plans, the function that makes one run of a plan, and the settings; it yields each plan when it is
over, with the reason where it failed. It raises Interrupted after a signal, with everything saved.
Ray: Moritz et al. 2018, "Ray: A Distributed Framework for Emerging AI Applications".
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from generama import machine
from generama.errors import Interrupted, ResourceError, UsageError, unknown
from generama.progress import tell
from generama.settings import CompareSettings, budget_fields
from generama.signals import asked_to_stop

if TYPE_CHECKING:
    from generama.comparison import Plan

Attempt = Callable[["Plan"], str | None]  # the reason where it fails
Outcomes = Generator[tuple["Plan", str | None], None, None]
Engine = Callable[[Sequence["Plan"], Attempt, CompareSettings], Outcomes]

RETRIES = 2  # of a run whose worker died; it goes on from its newest checkpoint
SAVING_SECONDS = 60.0  # that interrupted runs are given to save themselves
OBJECT_STORE = 100 * 2**20  # bytes; only sentences travel through it


def engine_for(wanted: CompareSettings) -> Engine:
    """The engine asked for, once it is known that it can work here."""
    if wanted.engine not in ENGINES:
        raise UsageError(unknown("engine", wanted.engine, ENGINES))
    if wanted.engine == "ray":
        import_ray()
    elif wanted.address:
        raise UsageError("an --address is that of a Ray cluster; add --engine ray")
    else:
        machine.pick_device(wanted.device)
    return ENGINES[wanted.engine]


def here(plans: Sequence[Plan], attempt: Attempt, wanted: CompareSettings) -> Outcomes:
    """One run after the other, in this process."""
    for p in plans:
        yield p, attempt(p)


def on_ray(plans: Sequence[Plan], attempt: Attempt, wanted: CompareSettings) -> Outcomes:
    """Many runs at once, each a task with cores (and a GPU where there are some) of its own; as they complete."""
    if not plans:
        return
    ray = import_ray()
    ours = not ray.is_initialized()
    if ours:
        connect(wanted.address)
    try:
        run = ray.remote(**resources(wanted))(in_worker)
        waiting = {run.options(name=p.name).remote(p, attempt, Path.cwd(), wanted.cpus_per_run): p for p in plans}
        with asked_to_stop() as stop:
            while waiting and not stop.is_set():
                finished, _ = ray.wait(list(waiting), timeout=1.0)
                for task in finished:
                    yield waiting.pop(task), outcome(task)
            if waiting:
                cancel(list(waiting))
                raise Interrupted(f"stopped with {len(waiting)} runs to go; the same command again does only those")
    finally:
        if ours:
            ray.shutdown()


def in_worker(p: Plan, attempt: Attempt, folder: Path, cores: int) -> str | None:
    """One attempt in a worker of Ray, from the folder that was asked from and with as many threads as it has cores."""
    if not folder.is_dir():
        return f"{folder} is not there on {platform.node()}; all machines must share it"
    os.chdir(folder)
    torch.set_num_threads(cores)
    machine.keep_freed_memory()
    return attempt(p)


def resources(wanted: CompareSettings) -> dict[str, Any]:
    """What Ray sets aside for each run, and when it tries again; tells the person what that means."""
    ray = import_ray()
    there = ray.cluster_resources()
    cores, gpus = wanted.cpus_per_run, int(there.get("GPU", 0))
    if wanted.device not in (None, "cuda"):
        gpus = 0
    largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if not 1 <= cores <= largest:
        raise UsageError(f"no machine of the cluster can give a run {cores} cores; --cpus-per-run 1 to {largest:g}")
    tell(f"Ray: {there.get('CPU', 0):g} cores and {gpus} GPUs; each run takes {cores} and {min(gpus, 1)}")
    if not wanted.epochs and "minutes" in budget_fields(wanted.budget):
        tell("runs slow each other down, so equal time is not equal work here; --budget '200k images' is the fair one")
    return {
        "num_cpus": cores,
        "num_gpus": min(gpus, 1),
        "max_retries": RETRIES,
        "retry_exceptions": [Interrupted],  # a worker that was asked to leave, not this comparison
    }


def connect(address: str | None) -> None:
    """Join the cluster of that address, or of RAY_ADDRESS; without either start one on this machine, and quietly."""
    ray = import_ray()
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    start: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **(start if address == "local" else {}))
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ResourceError(f"no Ray cluster to be had at '{address}': {str(error).splitlines()[0]}") from error


def outcome(task: Any) -> str | None:
    """What became of a task that is over: the reason where it failed, in one line."""
    ray = import_ray()
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        return f"{type(error.cause).__name__}: {error.cause}"
    except ray.exceptions.RayError as error:
        return f"its worker was lost, also when tried again ({type(error).__name__}); was there too little memory?"


def cancel(tasks: list[Any]) -> None:
    """Ask the tasks to stop as Ctrl-C would, and give those that train the time to save themselves."""
    ray = import_ray()
    tell("stopping: the runs in flight save themselves")
    for task in tasks:
        ray.cancel(task)
    ray.wait(tasks, num_returns=len(tasks), timeout=SAVING_SECONDS)


def import_ray() -> Any:
    """The package `ray`, which sends no usage statistics from here; UsageError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UsageError("--engine ray needs the extra 'ray': pip install 'generama[ray]'") from None
    return ray


ENGINES: dict[str, Engine] = {"here": here, "ray": on_ray}
