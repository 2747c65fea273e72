"""The comparison: every recipe trained under one equal budget, sampled and measured alike, on one page."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from generama import machine
from generama.data import Data, open_data
from generama.errors import Busy, GeneramaError, Interrupted, UsageError
from generama.evaluation import evaluate_run
from generama.families import build
from generama.files import write_json
from generama.machine import pick_device
from generama.metrics.cache import cache_folder
from generama.metrics.extractors import extractor_for
from generama.progress import tell
from generama.recipes import Recipe, recipe
from generama.report import write_report
from generama.run import Record, Run, load
from generama.sampling import sample_run
from generama.settings import Spent, TrainSettings, budget_fields
from generama.training import train

DEFAULT_RECIPES = ("vae", "dcgan", "realnvp", "pixelcnn", "ddpm", "rectified-flow")
PREVIEWS = 5


@dataclass(frozen=True)
class Plan:
    """One run of a comparison: a recipe with its budget and seed set."""

    name: str  # of the run folder
    recipe_name: str
    recipe: Recipe


def compare(
    recipes: Sequence[str],
    data: str,
    budget: str,
    epochs: Sequence[float],
    seeds: int,
    samples: int,
    out: Path | None,
    size: int | None,
    grey: bool | None,
    device: str | None,
) -> Path:
    """What `generama.commands.compare` promises. A run that fails is shown as failed and the rest goes on."""
    began = time.perf_counter()
    plans = plan(recipes, budget, epochs, seeds)
    chosen = pick_device(device)
    machine.keep_freed_memory()
    opened = open_data(data, size=size, grey=grey)
    folder = Path(out) if out else Path("runs") / f"compare-{opened.meta.name}"
    folder.mkdir(parents=True, exist_ok=True)
    tell(f"{opened.meta.name}: preparing the features that all will be measured in, once for this data")
    extractor = extractor_for(opened, cache=cache_folder())
    tell(f"{opened.meta.name}: {len(opened.train):,} pictures to learn from; features: {extractor.note}")
    failed: dict[str, str] = {}
    summary = about(opened, budget, epochs, seeds, samples, chosen)
    summary |= {"recipes": list(recipes), "runs": [p.name for p in plans], "failed": failed}
    for p in plans:
        error = attempt(p, opened, folder, samples, chosen)
        if error:
            failed[p.name] = error
            tell(f"{p.name} failed: {error}")
        write_json(folder / "compare.json", {**summary, "seconds": time.perf_counter() - began})
    report = write_report(folder)
    tell(f"{len(plans) - len(failed)} of {len(plans)} runs compared in {_minutes(time.perf_counter() - began)}")
    return report


def about(
    data: Data, budget: str, epochs: Sequence[float], seeds: int, samples: int, device: torch.device
) -> dict[str, Any]:
    """What compare.json says of a comparison as a whole."""
    return {
        "generama": machine.__version__,
        "data": data.describe(),
        "budget": f"{', '.join(f'{e:g}' for e in epochs)} epochs each" if epochs else in_words(budget),
        "budget_kind": "epochs" if epochs else next(iter(budget_fields(budget))),
        "seeds": list(range(seeds)),
        "n": samples,
        "command": command(),
        "machine": machine.describe(device),
        "started": time.strftime("%Y-%m-%d %H:%M"),
    }


def plan(recipes: Sequence[str], budget: str, epochs: Sequence[float], seeds: int) -> list[Plan]:
    """The runs of a comparison, all checked by name and budget before the first one starts."""
    if not recipes or seeds < 1:
        raise UsageError("a comparison needs at least one recipe and one seed")
    limits = {f"{e:g}epochs": {"epochs": e} for e in epochs} or {budget.replace(" ", ""): budget_fields(budget)}
    plans = []
    for label, limit in limits.items():
        for name in recipes:
            for seed in range(seeds):
                base = recipe(name)
                settings: TrainSettings = replace(base.train, **limit, seed=seed, previews=PREVIEWS)
                plans.append(Plan(f"{name}-{label}-seed{seed}", name, replace(base, train=settings)))
    return plans


def attempt(p: Plan, data: Data, folder: Path, samples: int, device: torch.device) -> str | None:
    """Train, sample and measure one run, as far as it is not done yet; the reason where it fails."""
    run: Run | None = None
    try:
        run = open_run(p, data, folder, device)
        if run.read_status().get("state") != "done":
            machine.forget_peak()
            torch.manual_seed(p.recipe.train.seed)
            family = build(run.record.recipe.family, run.record.spec)
            with run.lock():
                run.check(data, device)
                train(family, data.train, run.record.recipe.train, run, device)
        if not measured(run, samples):
            trained = load(run.folder, str(device))
            sample_run(trained, range(samples))
            evaluate_run(run.folder, data=data, generator=trained.generator)
    except Interrupted as stop:
        raise Interrupted("stopped, everything is saved; the same command again goes on where it was") from stop
    except Busy:  # another process trains this very run: nothing here may touch it
        raise
    except Exception as error:  # one family's failure, of whatever kind, must not cost the others their rows
        reason = str(error) if isinstance(error, GeneramaError) else f"{type(error).__name__}: {error}"
        if run and run.read_status().get("state") != "done":
            run.status("failed", Spent(), error=reason)
        return reason
    return None


def open_run(p: Plan, data: Data, folder: Path, device: torch.device) -> Run:
    """The run folder of a plan: the one that is there if it is the same experiment, else a new one."""
    target = folder / p.name
    record = new_record(p.recipe_name, p.recipe, data, device)
    if (target / "recipe.json").exists():
        run = Run.open(target)
        same = run.record.recipe == p.recipe and run.record.data["hash"] == data.meta.hash
        if same and run.read_status().get("state") != "failed":
            return run
        shelf = target.with_name(f"{target.name}.before-{time.strftime('%Y%m%d-%H%M%S')}")
        tell(f"{target.name} is another experiment or failed; it is kept as {shelf.name} and trained anew")
        shutil.move(target, shelf)
    return Run.create(target, record)


def new_record(name: str, chosen: Recipe, data: Data, device: torch.device) -> Record:
    """What is saved with a new run."""
    return Record(name, chosen, data.spec, data.describe(), machine.describe(device), command())


def measured(run: Run, samples: int) -> bool:
    """Whether the run already has its metrics for that many samples."""
    return (run.folder / "metrics.json").exists() and run.samples_made() == samples


def in_words(budget: str) -> str:
    """The budget as the report states it."""
    return f"{budget} of training time each" if "minutes" in budget_fields(budget) else f"{budget} each"


def command() -> str:
    """The command line of this process, as a person would type it again."""
    return " ".join(["generama", *sys.argv[1:]]) if sys.argv[0].endswith(("generama", "__main__.py")) else "Python"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
