"""Runs -> the rows, columns and cells of the one table; several seeds of one recipe make one row."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from typing import Any, Literal

from generama.report.collect import Comparison, Reading, Run


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


COLUMNS = (
    Column("frechet", "Quality", "Fréchet distance ({features})", "number", "lower",
            "distance between two Gaussians, one fitted to the features of samples, one to those of training pictures",
            "Heusel et al. 2017, arXiv 1706.08500, with other features"),
    Column("kid", "Quality", "Kernel distance ({features})", "number", "lower",
            "squared maximum mean discrepancy of the same features under a cubic polynomial kernel, without bias",
            "Bińkowski et al. 2018, arXiv 1801.01401, with other features"),
    Column("precision", "Quality", "Precision", "share", "higher",
            "share of samples that lie among the real pictures", "Kynkäänniemi et al. 2019, arXiv 1904.06991"),
    Column("density", "Quality", "Density", "number", "higher",
            "how deep samples lie among the real pictures; about 1 for real ones",
            "Naeem et al. 2020, arXiv 2002.09797"),
    Column("inception_score", "Quality", "Inception-style score ({features})", "number", "higher",
            "exp of how much the classes of single samples say beyond the classes of all of them",
            "Salimans et al. 2016, arXiv 1606.03498, with another classifier"),
    Column("confidence", "Quality", "Classifier confidence", "share", "",
            "mean probability of the classifier's first choice; high for clear and for exaggerated pictures alike"),
    Column("recall", "Diversity", "Recall", "share", "higher",
            "share of real pictures that lie among the samples", "Kynkäänniemi et al. 2019, arXiv 1904.06991"),
    Column("coverage", "Diversity", "Coverage", "share", "higher",
            "share of real pictures with a sample in their neighbourhood", "Naeem et al. 2020, arXiv 2002.09797"),
    Column("class_entropy", "Diversity", "Class entropy", "number", "higher",
            "entropy of the classes the classifier sees in the samples"),
    Column("missing_classes", "Diversity", "Missing classes", "count", "lower",
            "classes that the classifier (nearly) never sees in the samples"),
    Column("memorised", "Diversity", "Memorised", "share", "",
            "share of samples suspiciously close to a training picture; compare it with its floor"),
    Column("conditional_accuracy", "Control", "Asked-for class", "share", "higher",
            "share of samples in which the classifier sees the class that was asked for"),
    Column("bits_per_dim", "Likelihood", "Bits per dimension", "number", "lower",
            "negative log-likelihood of held-out pictures, per colour value, base 2; a bound where it says so",
            "Theis et al. 2016, arXiv 1511.01844"),
    Column("seconds_per_image", "Sampling", "Time per image", "seconds", "lower",
            "wall-clock for all samples, in batches, divided by their number"),
    Column("seconds_one", "Sampling", "One image alone", "seconds", "lower", "wall-clock for one image, batch of one"),
    Column("evaluations", "Sampling", "Network evaluations", "count", "lower",
            "network evaluations that must follow one another for one image"),
    Column("parameters", "Cost", "Parameters", "count", "", "numbers that training moves, every player's"),
    Column("train_seconds", "Cost", "Training time", "seconds", "", "wall-clock of training"),
    Column("images_seen", "Cost", "Images seen", "count", "", "training pictures shown, repeats counted"),
    Column("peak_memory", "Cost", "Peak memory", "bytes", "lower", "most memory held while training"),
)  # fmt: skip
SPREAD = ("Quality", "Diversity", "Control", "Likelihood")  # groups whose spread over seeds is worth ink
BY_KEY = {column.key: column for column in COLUMNS}


@dataclass(frozen=True)
class Cell:
    """One measure of one row: the mean over its seeds."""

    mean: float | None = None  # None where no seed has a finite value
    spread: float | None = None  # standard deviation over seeds; None with fewer than two
    n: int = 0  # seeds with a finite value
    floor: float | None = None
    note: str = ""
    broken: bool = False  # a value was measured and is not a number


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
    def state(self) -> str:
        """ "done" where every seed is done, else the first state that is not."""
        return next((run.state for run in self.runs if run.state != "done"), "done")

    def cell(self, key: str) -> Cell:
        """The cell of a measure; an empty one where it was not measured."""
        return self.cells.get(key, Cell())


def rows_of(comparison: Comparison) -> list[Row]:
    """Group runs that differ in their seed alone, in the order of the comparison."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in comparison.runs:
        groups.setdefault((run.recipe, run.budget, _settings(run.config)), []).append(run)
    budgets = {recipe: {b for r, b, _ in groups if r == recipe} for recipe, _, _ in groups}
    colours = {recipe: i for i, recipe in enumerate(dict.fromkeys(recipe for recipe, _, _ in groups))}
    order = list(colours)
    rows: list[Row] = []
    for (recipe, budget, _), runs in sorted(groups.items(), key=lambda item: order.index(item[0][0])):
        label = f"{recipe} ({budget})" if len(budgets[recipe]) > 1 and budget else recipe
        if any(row.label == label for row in rows):
            label = f"{label} ({runs[0].folder.name})"
        rows.append(Row(label, tuple(runs), colours[recipe], _cells(runs)))
    return rows


def _settings(config: dict[str, Any]) -> str:
    """The recipe as text, without the seed."""
    train = config.get("train")
    kept = {name: value for name, value in train.items() if name != "seed"} if isinstance(train, dict) else train
    return json.dumps({**config, "train": kept}, sort_keys=True, default=str)


def _cells(runs: list[Run]) -> dict[str, Cell]:
    keys = dict.fromkeys(key for run in runs for key in run.readings)
    return {key: _cell([run.readings[key] for run in runs if key in run.readings]) for key in keys}


def _cell(readings: list[Reading]) -> Cell:
    values = [r.value for r in readings if r.value is not None and math.isfinite(r.value)]
    floors = [r.floor for r in readings if r.floor is not None and math.isfinite(r.floor)]
    return Cell(
        mean=statistics.fmean(values) if values else None,
        spread=statistics.stdev(values) if len(values) > 1 else None,
        n=len(values),
        floor=statistics.fmean(floors) if floors else None,
        note=next((r.note for r in readings if r.note), ""),
        broken=any(r.broken for r in readings),
    )


def columns_of(rows: list[Row]) -> list[Column]:
    """The measures that at least one row has a value for."""
    return [m for m in COLUMNS if any(row.cell(m.key).mean is not None for row in rows)]


def title(column: Column, comparison: Comparison) -> str:
    """The column's name with the extractor in it."""
    extractor = next((run.extractor for run in comparison.runs if run.extractor), "features not named")
    return column.name.format(features=extractor)


def best(rows: list[Row], key: str) -> set[str]:
    """Labels of the rows with the best value as it is written; none where all are equal or there is no good end."""
    column = BY_KEY[key]
    shown = {row.label: row.cell(key).mean for row in rows if row.cell(key).mean is not None}
    means = [mean for mean in shown.values() if mean is not None]
    if not column.better or len(means) < 2:
        return set()
    target = show(min(means) if column.better == "lower" else max(means), column.unit)
    winners = {label for label, mean in shown.items() if show(mean, column.unit) == target}
    return winners if len(winners) < len(means) else set()


def floor_of(rows: list[Row], key: str) -> float | None:
    """The mean train-versus-test floor of a measure."""
    floors = [floor for row in rows if (floor := row.cell(key).floor) is not None]
    return statistics.fmean(floors) if floors else None


def show(value: float | None, unit: str = "number", spread: float | None = None) -> str:
    """A number as a person reads it: 0.0123 s -> "12.3 ms", 0.345 as a share, spread 0.01 -> "34.5 ± 1.0 %"."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not a number"
    size, suffix, places = _style(value, unit)
    around = f" ± {spread / size:,.{places}f}" if spread is not None else ""
    return f"{value / size:,.{places}f}{around}{suffix}".replace("-", "−")


def _style(value: float, unit: str) -> tuple[float, str, int]:
    """What to divide by, what to write behind, and how many decimal places."""
    if unit == "share":
        return 0.01, " %", 1
    if unit == "seconds":
        return _measured(
            value, ((3600, " h", 7200), (60, " min", 120), (1, " s", 1), (1e-3, " ms", 1e-3), (1e-6, " µs", 0))
        )
    if unit == "bytes":
        return _measured(value, ((2**30, " GiB", 2**30), (2**20, " MiB", 0)))
    if unit == "count" and value < 1e6:
        return 1.0, "", 0 if float(value).is_integer() or value >= 100 else 1
    return _measured(value, ((1e6, " M", 1e6), (1.0, "", 0)) if unit == "count" else ((1.0, "", 0),))


def _measured(value: float, sizes: tuple[tuple[float, str, float], ...]) -> tuple[float, str, int]:
    """Three significant digits in the first of the (size, suffix, from) that fits."""
    size, suffix, _ = next((one for one in sizes if value >= one[2]), sizes[-1])
    digits = math.floor(math.log10(abs(value / size))) if value else 2
    return size, suffix, min(max(2 - digits, 0), 6)
