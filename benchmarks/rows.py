"""What was measured, one row a figure: never without the machine, the versions and the command that repeats it."""

from __future__ import annotations

import importlib.metadata
import json
import operator
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from generama.files import write_json

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    "generama",
    "torch",
    "diffusers",
    "denoising-diffusion-pytorch",
    "torchcfm",
    "torchmetrics",
    "prdc",
    "scikit-learn",
    "scipy",
)
COMPARED = {">=": operator.ge, "<=": operator.le, "<": operator.lt}


@dataclass(frozen=True)
class Row:
    """One figure: `what` was measured of `whom`, the median of `runs`."""

    what: str
    whom: str
    value: float
    unit: str
    runs: list[float]
    machine: dict[str, Any]
    versions: dict[str, str]
    command: str
    target: str = ""  # ">= 2.5", "< 0.4"; empty where none was set
    note: str = ""

    @property
    def limit(self) -> float:
        """The number of the target."""
        return float(self.target.split()[1])

    @property
    def met(self) -> bool:
        """Whether the target was reached."""
        return COMPARED[self.target.split()[0]](self.value, self.limit)


@dataclass
class Sheet:
    """The rows of one benchmark, which share their machine, and the command that repeats them all."""

    name: str  # of the file in benchmarks/results
    command: str
    machine: dict[str, Any]
    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        what: str,
        whom: str,
        runs: Sequence[float],
        unit: str,
        versions: dict[str, str],
        *,
        target: str = "",
        note: str = "",
        command: str = "",
    ) -> float:
        """Add a figure, print it, and return the median of its runs; `command` where it has one of its own."""
        value = statistics.median(runs)
        said = command or self.command
        self.rows.append(Row(what, whom, value, unit, list(runs), self.machine, versions, said, target, note))
        print(f"{what}: {whom}: {value:,.4g} {unit} {f'(target {target})' if target else ''}", flush=True)
        return value

    def beside(self, others: float | None) -> None:
        """Take in the share of the machine that other processes took meanwhile; the rows state the largest."""
        if others is not None:
            self.machine["others"] = max(others, self.machine["others"] or 0.0)

    def save(self) -> None:
        """Write benchmarks/results/INSTRUCTIONS/NAME.json: another kind of machine has results of its own."""
        folder = RESULTS / self.machine["instructions"].lower()
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{self.name}.json", [asdict(row) for row in self.rows])


def read(name: str) -> list[list[Row]]:
    """The rows of benchmarks/results/*/NAME.json, one list for each kind of machine it was run on, the newest first."""
    found = [[Row(**row) for row in json.loads(path.read_text())] for path in RESULTS.glob(f"*/{name}.json")]
    return sorted(found, key=lambda rows: rows[0].machine["date"], reverse=True)


def kept(name: str, machine: dict[str, Any]) -> list[Row]:
    """The rows of NAME.json that were measured on this kind of machine; none where it was not run there."""
    return [row for rows in read(name) for row in rows if row.machine["instructions"] == machine["instructions"]]


def machine(threads: int) -> dict[str, Any]:
    """The machine as every row states it; `others` is the share of it that other processes took (`Sheet.beside`)."""
    import torch

    from generama.machine import describe

    facts = describe(torch.device("cpu"))
    return {
        "processor": facts["processor"],
        "instructions": facts["instructions"],
        "cores": facts["cores"],
        "threads": threads,
        "platform": facts["platform"],
        "others": None,
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def versions() -> dict[str, str]:
    """The versions in this process's environment of what is compared."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
