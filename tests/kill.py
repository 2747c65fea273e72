"""A process that saves and kills itself on the way: run by test_checkpoints.py, which reads what it prints.

It forks a child for every file-system call of a save; the child dies by SIGKILL at that call, and the parent looks at
what is left. So nothing in the package needs a hook.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from generama import checkpoints
from generama.errors import CheckpointError
from generama.files import HIDDEN, tidy, whole_folder

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "shutil.rmtree"}
CALLS = {"write", "fsync"}


def save(folder: Path, step: int, keep: int = 2, size: int = 101) -> None:
    """A checkpoint whose tensors say which step they are of."""
    values = {"a": torch.full((size,), float(step)), "b": torch.full((3, 5), float(step))}
    checkpoints.save(folder, step, {"weights": values, "average": values}, {"step": step}, keep)


def damage(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"")


def draw(folder: Path, tag: str) -> None:
    """Samples and their manifest, which must always be of the same draw."""
    with whole_folder(folder / "main") as draft:
        (draft / "samples.npz").write_text(tag)
        (draft / "manifest.json").write_text(tag)


def killed_at(count: int, work: Callable[[], object]) -> bool:
    """Do the work in a child that dies at its `count`-th file-system call; False where it ended before."""
    child = os.fork()
    if child == 0:
        left = count

        def note(happens: bool) -> None:
            nonlocal left
            left -= happens
            if happens and left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(lambda event, _: note(event in EVENTS))
        sys.setprofile(lambda _, event, what: note(event in ("c_call", "c_return") and what.__name__ in CALLS))
        work()
        sys.setprofile(None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the save itself failed"
    return os.WIFSIGNALED(status)


def look(folder: Path) -> dict[str, object]:
    """What a new process would find."""
    found = checkpoints.newest(folder)
    broken = []
    for path in checkpoints.complete(folder):
        try:
            checkpoints.read(path)
        except CheckpointError:
            broken.append(path.name)
    stray = [p.name for p in folder.iterdir() if p not in checkpoints.complete(folder) and not HIDDEN.fullmatch(p.name)]
    tidy(folder)
    left = [p.name for p in folder.iterdir() if p.name.startswith(".")]
    return {"step": found and found.facts["step"], "broken": broken, "stray": stray, "left": left}


def every_kill(root: Path) -> None:
    """Kill each scenario at each of its calls; a line of JSON for every kill."""
    scenarios: dict[str, tuple[list[int], Callable[[Path], object]]] = {
        "purge": ([3, 5], lambda folder: save(folder, 7)),
        "keep-one": ([7], lambda folder: save(folder, 9, keep=1)),
        "same-step": ([3, 7], lambda folder: save(folder, 7)),
        "after-damage": ([3, 9], lambda folder: (damage(folder / "000000009"), save(folder, 5, keep=1))),
    }
    for name, (before, work) in scenarios.items():
        start, folder = root / "start", root / name
        start.mkdir()
        for step in before:
            save(start, step)
        killed, count = True, 0
        while killed:
            count += 1
            shutil.copytree(start, folder)
            killed = killed_at(count, lambda folder=folder, work=work: work(folder))
            print(json.dumps({"scenario": name, "killed": killed, "count": count, **look(folder)}))
            shutil.rmtree(folder)
        shutil.rmtree(start)


def every_swap(root: Path) -> None:
    """The same for samples that take the place of older ones."""
    folder, killed, count = root / "samples", True, 0
    while killed:
        count += 1
        draw(folder, "old")
        killed = killed_at(count, lambda: draw(folder, "new"))
        tags = [p.read_text() for p in sorted((folder / "main").glob("*"))]
        tidy(folder)
        left = [p.name for p in folder.iterdir() if p.name != "main"]
        print(json.dumps({"scenario": "samples", "killed": killed, "tags": tags, "left": left}))


def random_kills(root: Path, kills: int = 60) -> None:
    """Kill a loop of saves at random times; a line of JSON for every kill."""
    chance = random.Random(0)
    for _ in range(kills):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            found = checkpoints.newest(root)
            step = found.facts["step"] if found else 0
            while True:
                step += 1
                save(root, step, size=250_007)
                os.write(writer, f"{step}\n".encode())
        os.close(writer)
        time.sleep(chance.uniform(0.02, 0.4))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader) as told:
            steps = [int(line) for line in told]
        hidden = sum(p.name.startswith(".") for p in root.iterdir())
        print(json.dumps({"saved": max(steps, default=None), "hidden": hidden, **look(root)}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "calls":
        every_kill(where)
        every_swap(where)
    else:
        random_kills(where)
