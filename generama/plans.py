"""What a comparison consists of: each recipe under each budget with each seed, and once at other learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from generama.errors import UsageError
from generama.recipes import Recipe, recipe
from generama.settings import CompareSettings, TrainSettings, budget_fields

DEFAULT_RECIPES = ("vae", "dcgan", "realnvp", "pixelcnn", "ddpm", "rectified-flow")
PREVIEWS = 5
KEPT = 200  # pictures at each of them: enough for a kernel distance, few enough for the slowest sampler


@dataclass(frozen=True)
class Plan:
    """One run of a comparison: a recipe with its budget and seed set."""

    name: str  # of the run folder
    recipe_name: str
    recipe: Recipe
    rate: float = 1.0  # multiple of the recipe's own learning rate; the table has only those at 1


def plan(wanted: CompareSettings) -> list[Plan]:
    """The runs of a comparison, all checked by name and budget before the first one starts; those of the table first.

    At other rates each recipe is trained once, with the first seed: that tells how much depends on the rate.
    """
    if wanted.seeds < 1:
        raise UsageError("a comparison needs at least one seed")
    if any(not (0 < rate < math.inf) for rate in wanted.rates):
        raise UsageError("--rates are multiples of the recipe's learning rate, above 0: --rates 0.5,1,2")
    budget = wanted.budget
    limits = {f"{e:g}epochs": {"epochs": e} for e in wanted.epochs} or {budget.replace(" ", ""): budget_fields(budget)}
    tries = [(1.0, seed) for seed in range(wanted.seeds)] + [(rate, 0) for rate in other_rates(wanted)]
    plans = []
    for rate, seed in tries:
        for label, limit in limits.items():
            for name in names(wanted):
                base = recipe(name)
                fixed = {"seed": seed, "rate": base.train.rate * rate, "previews": PREVIEWS, "kept": KEPT}
                settings: TrainSettings = replace(base.train, **limit, **fixed)
                at = "" if rate == 1 else f"-rate{rate:g}"
                plans.append(Plan(f"{name}-{label}{at}-seed{seed}", name, replace(base, train=settings), rate))
    return plans


def names(wanted: CompareSettings) -> list[str]:
    """The recipes to compare, each once: two runs in one folder at the same time would be the end of both."""
    return list(dict.fromkeys(wanted.recipes or DEFAULT_RECIPES))


def other_rates(wanted: CompareSettings) -> list[float]:
    """The multiples of the learning rate that the table does not have, each once."""
    return [rate for rate in dict.fromkeys(wanted.rates) if rate != 1]


def budget_in_words(wanted: CompareSettings) -> str:
    """The budget as the report states it."""
    if wanted.epochs:
        return f"{', '.join(f'{e:g}' for e in wanted.epochs)} epochs each"
    if "minutes" not in budget_fields(wanted.budget):
        return f"{wanted.budget} each"
    beside = ", while other runs trained beside it" if wanted.engine == "ray" else ""
    return f"{wanted.budget} of training time each{beside}"
