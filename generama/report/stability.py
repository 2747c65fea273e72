"""How much a recipe's quality depends on luck and on its learning rate: over seeds, and at other rates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from generama.report.candidates import distance_of, without_folder
from generama.report.records import Comparison
from generama.report.run_folder import read_run
from generama.report.table import Row


@dataclass(frozen=True)
class Stability:
    """Fréchet distances of a recipe's runs that differ in nothing but the seed, or the learning rate."""

    seeds: tuple[float, ...] = ()  # one a seed; infinite where a run failed
    rates: Mapping[float, float] = field(default_factory=dict)  # at other multiples of the rate, with the first seed

    @property
    def failed(self) -> int:
        """How many runs failed."""
        return sum(math.isinf(d) for d in (*self.seeds, *self.rates.values()))

    @property
    def tried(self) -> int:
        """How many there were."""
        return len(self.seeds) + len(self.rates)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds that ended well, as a share of their mean; None with fewer than two."""
        sound = [d for d in self.seeds if math.isfinite(d)]
        return statistics.stdev(sound) / statistics.fmean(sound) if len(sound) > 1 and statistics.fmean(sound) else None

    @property
    def factors(self) -> dict[float, float]:
        """How many times the distance at the recipe's own rate it is at each other rate, the seed being the same."""
        own = self.seeds[0] if self.seeds else math.inf
        return {rate: d / own for rate, d in self.rates.items() if math.isfinite(own) and own > 0}

    @property
    def worst(self) -> float | None:
        """The largest distance over the smallest, of all runs; infinite where one failed, None with fewer than two."""
        every = (*self.seeds, *self.rates.values())
        best = min(every, default=math.inf)
        return None if len(every) < 2 or not best else max(every) / best if math.isfinite(best) else math.inf


def stability_of(row: Row, comparison: Comparison, about: Mapping[str, Any]) -> Stability:
    """What `about`, the content of compare.json, and the folders say of a row's runs."""
    ordered = sorted(row.runs, key=lambda run: run.seed if run.seed is not None else 0)
    seeds = [distance_of(run) for run in ordered] + [math.inf for _ in without_folder(row, comparison)]
    names, rates = {run.folder.name for run in row.runs}, {}
    beside = about.get("stability", {}).get("runs", {})
    for name, entry in beside.items() if isinstance(beside, dict) else ():
        rate = float(entry["rate"])
        if name.replace(f"-rate{rate:g}-", "-") in names:
            folder = comparison.folder / name
            if (folder / "status.json").exists() or name in about.get("failed", {}):
                rates[rate] = distance_of(read_run(folder))
    return Stability(tuple(seeds), dict(sorted(rates.items())))
