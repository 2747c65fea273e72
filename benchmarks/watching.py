"""Watch a training process from outside: how fast its log says images go by, and its memory at the most.

Every contender is timed alike: by the wall clock, from when lines of its log are written, data and logging included.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.rows import ROOT

WARM = 0.25  # share of the logged time that is left out at the start
POLL = 0.02  # seconds
ENDED = (0, 75, -signal.SIGTERM)  # done, interrupted with everything saved, or stopped by us


@dataclass
class Watched:
    """What was seen of a process."""

    marks: list[tuple[float, int]] = field(default_factory=list)  # when a line appeared, images so far
    peak_memory: int = 0  # bytes, VmHWM; 0 where there is no /proc
    seconds: float = 0.0  # from start to end of the process
    others: float | None = None  # share of the machine's CPU time that went elsewhere; None where there is no /proc

    @property
    def speed(self) -> float:
        """Images per second once it is warm."""
        began, ended = self.marks[0][0], self.marks[-1][0]
        warm = [mark for mark in self.marks if mark[0] >= began + WARM * (ended - began)]
        if len(warm) < 3:
            raise SystemExit(f"{len(self.marks)} lines in the log are too few to time; give more --seconds")
        (t0, n0), (t1, n1) = warm[0], warm[-1]
        return (n1 - n0) / (t1 - t0)


def watch(command: Sequence[str], log: Path | None, threads: int, seconds: float = math.inf) -> Watched:
    """Run a command, reading {"images": n} from the last line of its log whenever the log grows.

    It is asked to stop (SIGTERM) so many seconds after its first line, else runs to its end. Raises SystemExit, with
    what it said last, where it fails.
    """
    seen, size, began, others = Watched(), 0, time.perf_counter(), Others()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(threads), stdout=subprocess.DEVNULL, stderr=said)
        while process.poll() is None:
            time.sleep(POLL)
            seen.peak_memory = max(seen.peak_memory, peak_of(process.pid))
            if log and log.exists() and log.stat().st_size > size:
                status = log.stat()
                size = status.st_size
                seen.marks += last_mark(log.read_text(), status.st_mtime)
            if seen.marks and seen.marks[-1][0] - seen.marks[0][0] > seconds:
                process.terminate()
                process.wait()
        seen.seconds = time.perf_counter() - began
        seen.others = others.share()
        if process.returncode not in ENDED:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} failed: {said.read().decode(errors='replace')[-2000:]}")
    return seen


class Others:
    """How much of the machine's CPU time, from here on, neither this process nor its ended children take."""

    def __init__(self) -> None:
        self._began = cpu_seconds()

    def share(self) -> float | None:
        """0 to 1 of all cores; None where there is no /proc. It is told in hundredths of a second: ask after some."""
        ended = cpu_seconds()
        if self._began is None or ended is None:
            return None
        there, busy, ours = (after - before for before, after in zip(self._began, ended, strict=True))
        return min(1.0, max(0.0, busy - ours) / there) if there else 0.0


def cpu_seconds() -> tuple[float, float, float] | None:
    """CPU seconds so far: those that the machine's cores had, those they were busy, those of us and ended children.

    Busy is all but idling and waiting for disks: interrupts count, and what a hypervisor gave to other machines.
    """
    try:
        ticks = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]  # proc(5); guests are in user's
    except OSError:
        return None
    second = os.sysconf("SC_CLK_TCK")
    there = [int(tick) / second for tick in ticks]
    idle, waiting = there[3:5]
    return sum(there), sum(there) - idle - waiting, sum(os.times()[:4])


def environment(threads: int) -> dict[str, str]:
    """The environment of every contender: the same number of threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def last_mark(text: str, when: float) -> list[tuple[float, int]]:
    """The images of the last whole line; none where there is none yet."""
    whole = text[: text.rfind("\n") + 1].splitlines()
    return [(when, json.loads(whole[-1])["images"])] if whole else []


def peak_of(pid: int) -> int:
    """The most memory the process has had so far, bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
