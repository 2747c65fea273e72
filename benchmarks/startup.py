"""How long `generama --help` and `import generama` take: whole processes, the start of Python included."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.rows import ROOT, Sheet, machine, versions
from benchmarks.watching import Others

WAYS = {
    "generama --help": (["-m", "generama", "--help"], "< 0.4"),
    "import generama": (["-c", "import generama"], "< 0.15"),
    "a Python that does nothing": (["-c", "pass"], ""),
}


def measure(rounds: int, threads: int) -> Sheet:
    """The median time of each, in turns, after one run that nobody counts."""
    sheet = Sheet("startup", "make bench", machine(threads))
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    others = Others()
    for turn in range(rounds + 1):
        for name, (words, _) in WAYS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            if turn:
                times[name].append(time.perf_counter() - began)
    sheet.beside(others.share())
    for name, (_, target) in WAYS.items():
        sheet.add("start", name, times[name], "s", versions(), target=target)
    return sheet
