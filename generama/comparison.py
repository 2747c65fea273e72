"""The comparison: every recipe trained under one equal budget, sampled and measured alike, on one page."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from generama import machine
from generama.data import Data, open_data
from generama.diagnosis import diagnose
from generama.engines import engine_for
from generama.errors import Busy, DataError, GeneramaError, Interrupted
from generama.evaluation import evaluate_run
from generama.files import write_json
from generama.machine import pick_device
from generama.metrics.cache import cache_folder
from generama.metrics.extractors import extractor_for
from generama.plans import Plan, budget_in_words, names, other_rates, plan
from generama.progress import tell
from generama.recipes import Recipe
from generama.report import write_report
from generama.run import Record, Run, begun, load
from generama.sampling import sample_run
from generama.settings import CompareSettings, Spent, budget_fields
from generama.training import train


@dataclass(frozen=True)
class Shared:
    """What the runs of a comparison share, small enough to be sent to another machine: data go by path and hash."""

    folder: Path  # of the comparison
    data: Path  # prepared
    hash: str  # of the data's content
    cache: Path  # of the classifier and of features
    samples: int
    device: str | None
    command: str


def compare(wanted: CompareSettings) -> Path:
    """What `generama.commands.compare` promises. A run that fails is shown as failed and the rest goes on."""
    began = time.perf_counter()
    plans, engine = plan(wanted), engine_for(wanted)
    machine.keep_freed_memory()
    opened = open_data(wanted.data, size=wanted.size, grey=wanted.grey)
    folder = Path(wanted.out) if wanted.out else Path("runs") / f"compare-{opened.meta.name}"
    folder.mkdir(parents=True, exist_ok=True)
    tell(f"{opened.meta.name}: preparing the features that all will be measured in, once for this data")
    extractor = extractor_for(opened, cache=cache_folder())
    tell(f"{opened.meta.name}: {len(opened.train):,} pictures to learn from; features: {extractor.note}")
    shared = Shared(
        folder, opened.folder, opened.meta.hash, cache_folder(), wanted.samples, wanted.device, typed_command()
    )
    failed: dict[str, str] = {}
    summary = {**about(wanted, opened), **listed(wanted, plans), "failed": failed}
    write_json(folder / "compare.json", summary)
    missing = [p for p in plans if not done(p, shared)]
    with closing(engine(missing, partial(attempt, shared=shared), wanted)) as outcomes:
        for number, (p, error) in enumerate(outcomes, start=len(plans) - len(missing) + 1):
            if error:
                failed[p.name] = error
            tell(f"{number} of {len(plans)}  {p.name} {f'failed: {error}' if error else found(folder / p.name)}")
            write_json(folder / "compare.json", summary)
    report = write_report(folder)
    tell(f"{len(plans) - len(failed)} of {len(plans)} runs compared in {_minutes(time.perf_counter() - began)}")
    return report


def about(wanted: CompareSettings, data: Data) -> dict[str, Any]:
    """What compare.json says of a comparison as a whole."""
    kind = "epochs" if wanted.epochs else next(iter(budget_fields(wanted.budget)))
    return {
        "generama": machine.__version__,
        "recipes": names(wanted),
        "data": data.describe(),
        "budget": budget_in_words(wanted),
        "budget_kind": kind,
        "seeds": list(range(wanted.seeds)),
        "n": wanted.samples,
        "quality": wanted.quality,
        "engine": wanted.engine,
        "command": typed_command(),
        "started": time.strftime("%Y-%m-%d %H:%M"),
    }


def listed(wanted: CompareSettings, plans: list[Plan]) -> dict[str, Any]:
    """The runs by name: those of the table, and apart from them those at other learning rates."""
    beside = {
        p.name: {"recipe": p.recipe_name, "seed": p.recipe.train.seed, "rate": p.rate} for p in plans if p.rate != 1
    }
    rates = sorted({1.0, *other_rates(wanted)})
    return {"runs": [p.name for p in plans if p.rate == 1], "stability": {"rates": rates, "runs": beside}}


def done(p: Plan, shared: Shared) -> bool:
    """Whether a run is trained and measured already; one of another experiment, or a failed one, is put aside."""
    target = shared.folder / p.name
    if not (target / "recipe.json").exists():
        return False
    run = Run.open(target)
    state = run.read_status().get("state")
    if run.record.recipe == p.recipe and run.record.data["hash"] == shared.hash and state != "failed":
        return state == "done" and measured(run, shared.samples)
    shelf = target.with_name(f"{target.name}.before-{time.strftime('%Y%m%d-%H%M%S')}")
    tell(f"{target.name} is another experiment or failed; it is kept as {shelf.name} and trained anew")
    shutil.move(target, shelf)
    return False


def attempt(p: Plan, shared: Shared) -> str | None:
    """Train, sample and measure one run, as far as it is not done yet; the reason where it fails."""
    run: Run | None = None
    try:
        data, device = open_data(shared.data), pick_device(shared.device)
        if data.meta.hash != shared.hash:
            raise DataError(f"{shared.data} holds other data here than where the comparison was asked for")
        run = open_run(p, shared, data, device)
        if run.read_status().get("state") != "done":
            machine.forget_peak()
            family = begun(run)
            with run.lock():
                run.check(data, device)
                train(family, data.train, run.record.recipe.train, run, device)
        if not measured(run, shared.samples):
            trained = load(run.folder, str(device))
            sample_run(trained, range(shared.samples))
            evaluate_run(run.folder, data=data, generator=trained.generator, cache=shared.cache)
            diagnose(run.folder, data)
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


def open_run(p: Plan, shared: Shared, data: Data, device: torch.device) -> Run:
    """The run folder of a plan: the one that was begun, else a new one."""
    target = shared.folder / p.name
    if (target / "recipe.json").exists():
        return Run.open(target)
    return Run.create(target, new_record(p.recipe_name, p.recipe, data, device, shared.command))


def new_record(name: str, chosen: Recipe, data: Data, device: torch.device, command: str) -> Record:
    """What is saved with a new run."""
    return Record(name, chosen, data.spec, data.describe(), machine.describe(device), command)


def measured(run: Run, samples: int) -> bool:
    """Whether the run already has its metrics for that many samples."""
    return (run.folder / "metrics.json").exists() and run.samples_made() == samples


def found(run: Path) -> str:
    """How a measured run did, in a few words."""
    measures = json.loads((run / "metrics.json").read_text())["measures"]
    frechet, seconds = measures["frechet"]["value"], measures["train_seconds"]["value"]
    distance = "not a number" if frechet is None else f"{frechet:.3g}"
    return f"trained for {_minutes(seconds)}, Fréchet distance {distance}"


def typed_command() -> str:
    """The command line of this process, as a person would type it again."""
    return shlex.join(["generama", *sys.argv[1:]]) if sys.argv[0].endswith(("generama", "__main__.py")) else "Python"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
