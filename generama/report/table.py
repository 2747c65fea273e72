"""Runs -> the rows, columns and cells of the one table; several seeds of one recipe make one row."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from generama.report.numbers import show, show_interval
from generama.report.records import Comparison, Reading, Run
from generama.report.uncertainty import interval


@dataclass(frozen=True)
class Column:
    """A column: what it is called, how it is written, and which end of it is good."""

    key: str
    group: str
    name: str  # {features} stands for the extractor's name
    unit: Literal["number", "share", "seconds", "count", "bytes"]
    better: Literal["lower", "higher", ""]  # "" where neither end is good in itself
    what: str  # one line for the method section
    source: str = ""
    published: str = ""  # its name with Inception features, which alone give the number of the papers
    headline: bool = False  # drawn with its intervals


COLUMNS = (
    Column("frechet", "Quality", "Fréchet distance ({features})", "number", "lower",
            "distance between two Gaussians, one fitted to the features of samples, one to those of training pictures",
            "Heusel et al. 2017, arXiv 1706.08500", "FID (inception)", True),
    Column("frechet_infinity", "Quality", "Fréchet distance for n → ∞ ({features})", "number", "lower",
            "the same distance, carried on to endlessly many samples by a line through several n",
            "Chong & Forsyth 2020, arXiv 1911.07023", "FID∞ (inception)"),
    Column("kid", "Quality", "Kernel distance ({features})", "number", "lower",
            "squared maximum mean discrepancy of the same features under a cubic polynomial kernel, without bias",
            "Bińkowski et al. 2018, arXiv 1801.01401", "KID (inception)", True),
    Column("mind", "Quality", "Monge distance ({features})", "number", "lower",
            "optimal transport between the same features along random lines, where it is only sorting",
            "Berthet et al. 2026, arXiv 2605.06797", "MIND (inception)", True),
    Column("precision", "Quality", "Precision ({features})", "share", "higher",
            "share of samples that lie among the real pictures", "Kynkäänniemi et al. 2019, arXiv 1904.06991", "",
            True),
    Column("density", "Quality", "Density ({features})", "number", "higher",
            "how deep samples lie among the real pictures; about 1 for real ones",
            "Naeem et al. 2020, arXiv 2002.09797"),
    Column("inception_score", "Quality", "Inception-style score ({features})", "number", "higher",
            "exp of how much the classes of single samples say beyond the classes of all of them",
            "Salimans et al. 2016, arXiv 1606.03498, with another classifier"),
    Column("confidence", "Quality", "Classifier confidence", "share", "",
            "mean probability of the classifier's first choice; high for clear and for exaggerated pictures alike"),
    Column("recall", "Diversity", "Recall ({features})", "share", "higher",
            "share of real pictures that lie among the samples", "Kynkäänniemi et al. 2019, arXiv 1904.06991", "",
            True),
    Column("coverage", "Diversity", "Coverage ({features})", "share", "higher",
            "share of real pictures with a sample in their neighbourhood", "Naeem et al. 2020, arXiv 2002.09797", "",
            True),
    Column("class_entropy", "Diversity", "Class entropy", "number", "higher",
            "entropy of the classes the classifier sees in the samples"),
    Column("missing_classes", "Diversity", "Missing classes", "count", "lower",
            "classes that the classifier (nearly) never sees in the samples"),
    Column("memorised", "Copying", "Memorised", "share", "",
            "share of samples suspiciously close to a training picture; compare it with its floor"),
    Column("authentic", "Copying", "Authentic", "share", "",
            "share of samples farther from their nearest training picture than that is from its own nearest neighbour",
            "Alaa et al. 2022, arXiv 2102.08921"),
    Column("duplicates", "Copying", "Duplicates", "share", "",
            "share of samples with another sample far nearer than any held-out picture; compare it with its floor"),
    Column("conditional_accuracy", "Control", "Asked-for class", "share", "higher",
            "share of samples in which the classifier sees the class that was asked for", "", "", True),
    Column("bits_per_dim", "Likelihood", "Bits per dimension", "number", "lower",
            "negative log-likelihood of held-out pictures, per colour value, base 2; a bound where it says so",
            "Theis et al. 2016, arXiv 1511.01844", "", True),
    Column("seconds_per_image", "Sampling", "Time per image", "seconds", "lower",
            "wall-clock for all samples, in batches, divided by their number"),
    Column("seconds_one", "Sampling", "One image alone", "seconds", "lower", "wall-clock for one image, batch of one"),
    Column("evaluations", "Sampling", "Network evaluations", "count", "lower",
            "network evaluations that must follow one another for one image"),
    Column("parameters", "Cost", "Parameters", "count", "", "numbers that training moves, every player's"),
    Column("train_seconds", "Cost", "Training time", "seconds", "", "wall-clock of training"),
    Column("images_seen", "Cost", "Images seen", "count", "", "training pictures shown, repeats counted"),
    Column("train_flops", "Cost", "Training operations", "count", "", "floating-point operations of training"),
    Column("peak_memory", "Cost", "Peak memory", "bytes", "lower", "most memory held while training"),
    Column("seconds_to_quality", "Cost", "Time to quality", "seconds", "lower",
            "training time until the quality that every recipe of this comparison reached"),
)  # fmt: skip
MEASURED = ("Quality", "Diversity", "Copying", "Control", "Likelihood")  # groups that depend on how it was measured
SPREAD = (*MEASURED, "Sampling")  # groups whose interval is worth ink
SIGNED = ("kid", "frechet_infinity")  # estimates that may fall below 0
BY_KEY = {column.key: column for column in COLUMNS}


@dataclass(frozen=True)
class Cell:
    """One measure of one row: the values of its seeds, and what they say together."""

    values: tuple[float, ...] = ()  # one a seed with a finite value
    measured: tuple[tuple[float, float], ...] = ()  # their own 95 % intervals; () unless each has one
    floor: float | None = None
    note: str = ""
    broken: bool = False  # a value was measured and is not a number
    timed: bool = False  # a time or a cost, which seeds do not draw from one distribution

    @property
    def mean(self) -> float | None:
        """Over seeds; None where no seed has a finite value."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None with fewer than two."""
        return statistics.stdev(self.values) if self.n > 1 else None

    @property
    def n(self) -> int:
        """Seeds with a finite value."""
        return len(self.values)


@dataclass(frozen=True)
class Row:
    """One recipe under one budget: all its seeds."""

    label: str
    runs: tuple[Run, ...]
    colour: int  # the same recipe has the same colour everywhere
    cells: dict[str, Cell]

    @property
    def first(self) -> Run:
        """The run whose pictures are shown: the first seed with samples, or simply the first."""
        return next((run for run in self.runs if (run.samples / "samples.npz").exists()), self.runs[0])

    @property
    def protocol(self) -> dict[str, Any]:
        """How its runs were measured; {} where none was."""
        return next((run.protocol for run in self.runs if run.protocol), {})

    @property
    def extractor(self) -> str:
        """The name of the features it was measured with; "" where it was not."""
        return next((run.extractor for run in self.runs if run.extractor), "")

    @property
    def state(self) -> str:
        """ "done" where every seed is done, else the first state that is not."""
        return next((run.state for run in self.runs if run.state != "done"), "done")

    def cell(self, key: str) -> Cell:
        """The cell of a measure; an empty one where it was not measured."""
        return self.cells.get(key, Cell())


def rows_of(comparison: Comparison) -> list[Row]:
    """Group runs that differ in their seed alone and were measured alike, in the order of the comparison."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in sorted(comparison.runs, key=lambda run: not run.protocol):  # what was not measured joins its siblings
        same = (run.recipe, run.budget, _settings(run.config))
        known = next((key for key in groups if key[:3] == same), None) if not run.protocol else None
        groups.setdefault(known or (*same, json.dumps(run.protocol, sort_keys=True, default=str)), []).append(run)
    order = list(dict.fromkeys(run.recipe for run in comparison.runs))
    place = {id(run): i for i, run in enumerate(comparison.runs)}
    together = [sorted(runs, key=lambda run: place[id(run)]) for runs in groups.values()]
    budgets = {recipe: {runs[0].budget for runs in together if runs[0].recipe == recipe} for recipe in order}
    rows: list[Row] = []
    for runs in sorted(together, key=lambda runs: (order.index(runs[0].recipe), place[id(runs[0])])):
        recipe, budget = runs[0].recipe, runs[0].budget
        label = f"{recipe} ({budget})" if len(budgets[recipe]) > 1 and budget else recipe
        if any(row.label == label for row in rows):
            label = f"{label} ({runs[0].folder.name})"
        rows.append(Row(label, tuple(runs), order.index(recipe), cells_of(runs)))
    return rows


def _settings(config: dict[str, Any]) -> str:
    """The recipe as text, without the seed."""
    train = config.get("train")
    kept = {name: value for name, value in train.items() if name != "seed"} if isinstance(train, dict) else train
    return json.dumps({**config, "train": kept}, sort_keys=True, default=str)


def cells_of(runs: Sequence[Run]) -> dict[str, Cell]:
    """A cell for each measure that at least one of the runs, which differ in their seed alone, has."""
    keys = dict.fromkeys(key for run in runs for key in run.readings)
    return {key: _cell(key, [run.readings[key] for run in runs if key in run.readings]) for key in keys}


def _cell(key: str, readings: list[Reading]) -> Cell:
    finite = [r for r in readings if r.value is not None and math.isfinite(r.value)]
    own = tuple((r.low, r.high) for r in finite if r.low is not None and r.high is not None)
    floors = [r.floor for r in readings if r.floor is not None and math.isfinite(r.floor)]
    return Cell(
        values=tuple(r.value for r in finite if r.value is not None),
        measured=own if len(own) == len(finite) else (),
        floor=statistics.fmean(floors) if floors else None,
        note=next((r.note for r in readings if r.note), ""),
        broken=any(r.broken for r in readings),
        timed=key in BY_KEY and BY_KEY[key].group not in MEASURED,
    )


def columns_of(rows: list[Row]) -> list[Column]:
    """The measures that at least one row has a value for."""
    return [m for m in COLUMNS if any(row.cell(m.key).mean is not None for row in rows)]


def title(column: Column, rows: list[Row]) -> str:
    """The column's name with the features in it; only Inception's may bear the names of the papers."""
    extractor = next((row.extractor for row in rows if row.extractor), "features not named")
    if column.published and extractor == "inception":
        return column.published
    return column.name.format(features=extractor)


def floor_of(rows: list[Row], key: str) -> float | None:
    """The mean train-versus-test floor of a measure."""
    floors = [floor for row in rows if (floor := row.cell(key).floor) is not None]
    return statistics.fmean(floors) if floors else None


def written(cell: Cell, column: Column) -> str:
    """The mean as it is printed, "≤" before a bound."""
    bound = column.key == "bits_per_dim" and kind_of(cell) == "bound" and cell.mean is not None
    return ("≤ " if bound else "") + show(cell.mean, column.unit)


def around(cell: Cell, column: Column) -> str:
    """The interval as it is printed; "" where there is none worth ink."""
    ends = ends_of(cell, column) if column.group in SPREAD else None
    return "" if ends is None or ends[0] == ends[1] else show_interval(*ends, column.unit)


def ends_of(cell: Cell, column: Column) -> tuple[float, float] | None:
    """The interval of a cell inside what the measure can be."""
    ends = interval(cell)
    if ends is None:
        return None
    low = ends[0] if column.key in SIGNED else max(ends[0], 0.0)
    return low, min(ends[1], 1.0) if column.unit == "share" else ends[1]


def kind_of(cell: Cell) -> str:
    """ "exact", "bound" or "": what the note of a likelihood says it is."""
    note = cell.note.lower()
    return "bound" if "bound" in note else "exact" if "exact" in note else ""
