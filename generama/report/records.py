"""What a report is made from: runs, what was measured of them, and the comparison they stand in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

JUDGED = "judged"  # the `kind` of a folder of pictures from elsewhere: there is no training to ask for


@dataclass(frozen=True)
class Reading:
    """One measure of one run; `value` is None where it is not defined, and `note` then says why."""

    value: float | None
    floor: float | None = None  # the same measure between training and held-out pictures, at the same n
    note: str = ""
    low: float | None = None  # 95 % interval of the value over the pictures that were drawn; None where there is none
    high: float | None = None

    @property
    def broken(self) -> bool:
        """True where something was measured and came out as no number."""
        return self.note.startswith("not finite") or (self.value is not None and not math.isfinite(self.value))


@dataclass(frozen=True)
class Neighbour:
    """A sample beside the training picture nearest to it."""

    sample: int  # row in samples.npz
    train: int  # row in the training split
    distance: float
    held_out_distance: float | None


@dataclass(frozen=True)
class Twins:
    """Two samples of one run that are most alike."""

    a: int  # rows in samples.npz
    b: int
    distance: float


@dataclass(frozen=True)
class Finding:
    """One thing that a diagnosis found in a run."""

    key: str  # the same for the same ailment in every run
    severity: str  # problem | warning | note
    title: str
    evidence: str
    advice: str


@dataclass(frozen=True)
class Progress:
    """The quality of a run at several points of its training, at a smaller n than its final numbers."""

    n: int | None
    points: list[dict[str, float]]  # seconds, images, share, and measures by key; finite numbers alone


@dataclass(frozen=True)
class Run:
    """One run folder, as far as it could be read."""

    folder: Path
    recipe: str
    family: str  # the `kind` of its configuration; JUDGED for pictures from elsewhere
    config: dict[str, Any]  # the whole recipe as it was saved
    seed: int | None
    budget: str
    state: str  # running | done | failed | interrupted | unknown
    error: str
    conditional: bool | None  # True where the family was given labels
    data: dict[str, Any]
    spec: dict[str, Any]
    machine: dict[str, Any]
    command: str
    version: str
    readings: dict[str, Reading]
    extractor: str
    extractor_note: str
    n: int | None
    protocol: dict[str, Any]  # how it was measured; runs that differ in it are never ranked together
    options: dict[str, Any]  # what the samples were asked for
    histogram: list[float]
    per_class: dict[str, list[float | None]]
    neighbours: list[Neighbour]
    twins: list[Twins]
    progress: Progress
    findings: list[Finding] | None  # None where nobody looked
    log: list[dict[str, Any]]
    previews: list[tuple[int, Path]]  # (images seen, picture)
    notes: list[str] = field(default_factory=list)

    @property
    def samples(self) -> Path:
        """The folder of the samples everything was measured on."""
        return self.folder / "samples" / "main"


@dataclass(frozen=True)
class Comparison:
    """Everything a report is made from."""

    title: str
    folder: Path
    runs: list[Run]
    data: dict[str, Any]
    budget: str
    recipes: list[str]  # their names
    seeds: list[int]
    n: int | None
    command: str
    machine: dict[str, Any]
    version: str
    stability: dict[str, Any]  # runs at other learning rates, which are no rows of the table
    remarks: list[str]  # what the comparison says of all its rows
    failed: dict[str, str]  # runs that left no folder, and why
    notes: list[str]
