"""The engines: how the runs of a comparison are worked off, one after the other here or many at once as tasks of Ray.

An engine takes the plans, the function that makes one run of a plan, and the settings; it yields each plan when it is
over, with the reason where it failed. It raises Interrupted after a signal, with everything saved.
Ray: Moritz et al. 2018, "Ray: A Distributed Framework for Emerging AI Applications".
"""

from __future__ import annotations

import logging
import os
import platform
import socket
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from generama import machine
from generama.errors import Interrupted, UsageError, unknown
from generama.progress import tell
from generama.settings import CompareSettings, budget_fields
from generama.signals import asked_to_stop

if TYPE_CHECKING:
    from generama.plans import Plan

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
        knock(address_of(wanted))
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
        connect(address_of(wanted))
    try:
        each = resources(wanted)
        announce(wanted, each)
        run = ray.remote(**each)(in_worker)
        waiting = {run.options(name=p.name).remote(p, attempt, Path.cwd(), wanted.cpus_per_run): p for p in plans}
        with asked_to_stop() as stop:
            while waiting and not stop.is_set():
                finished, _ = ray.wait(list(waiting), timeout=1.0)
                for task in finished:
                    yield waiting.pop(task), outcome(task)
            if waiting:
                cancel(list(waiting))
                raise Interrupted(f"stopped; runs still to do: {len(waiting)}; the same command again does only those")
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
    """What Ray sets aside for each run, and when it tries one again."""
    ray = import_ray()
    cores = wanted.cpus_per_run
    largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if not 1 <= cores <= largest:
        raise UsageError(f"no machine of the cluster can give a run {cores} cores; --cpus-per-run 1 to {largest:g}")
    return {
        "num_cpus": cores,
        "num_gpus": 1 if wanted.device in (None, "cuda") and ray.cluster_resources().get("GPU") else 0,
        "max_retries": RETRIES,
        "retry_exceptions": [Interrupted],  # a worker that was asked to leave, not this comparison
    }


def announce(wanted: CompareSettings, each: dict[str, Any]) -> None:
    """Say what the runs share, and that seconds are no fair budget among runs that slow each other down."""
    cores = import_ray().cluster_resources().get("CPU", 0)
    tell(f"Ray: {cores:g} cores, of which each run takes {each['num_cpus']}{' and a GPU' if each['num_gpus'] else ''}")
    if not wanted.epochs and "minutes" in budget_fields(wanted.budget):
        tell("runs slow each other down, so equal time is not equal work here; --budget '200k images' is the fair one")


def connect(address: str) -> None:
    """Join the cluster of that address; for "local" start one on this machine that ends with this process, quietly."""
    ray = import_ray()
    start: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **(start if address == "local" else {}))
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"no Ray cluster to be had at '{address}': {str(error).splitlines()[0]}") from error


def address_of(wanted: CompareSettings) -> str:
    """The cluster asked for, else that of RAY_ADDRESS as for any program of Ray, else "local"."""
    return wanted.address or os.environ.get("RAY_ADDRESS") or "local"


def knock(address: str) -> None:
    """UsageError where nobody listens at HOST:PORT: Ray itself would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise UsageError(f"nothing answers at '{address}' ({error}); is a Ray cluster running there?") from error


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
