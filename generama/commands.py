"""What Generama can be asked to do: one function a word, the same for Python and the command line.

Nothing heavy is imported before a word is spoken, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from generama.settings import CompareSettings, EditSettings, EvaluateSettings, How, Need

if TYPE_CHECKING:
    from generama.data import Data
    from generama.diagnosis import Diagnosis
    from generama.judging import Judgement
    from generama.noise_levels import NoiseLevels
    from generama.recipes import Recipe
    from generama.report.recommendation import Recommendation
    from generama.run import Run, Trained


def prepare(
    source: str,
    size: int | None = None,
    grey: bool | None = None,
    out: Path | None = None,
    on_bad: Literal["error", "skip"] = "error",
    bad_limit: float = 0.01,
) -> Data:
    """Turn a source of pictures into a memory-mapped data set, cached unless `out` says where it goes.

    `on_bad="skip"` leaves unreadable files out and counts them, up to the share `bad_limit`.
    """
    from generama import data

    return data.prepare(source, size=size, grey=grey, out=out, on_bad=on_bad, bad_limit=bad_limit)


def train(
    recipe: str | Recipe,
    data: str = "mnist5k",
    run: str | None = None,
    size: int | None = None,
    grey: bool | None = None,
    device: str | None = None,
    name: str = "custom",
    **settings: Any,
) -> Trained:
    """Train a recipe, by its name or as an object with a `name` for the run; settings are those of TrainSettings.

    The run folder is runs/RUN (by default RECIPE-DATA), or the path given. Returns the trained generator.
    """
    from generama import recipes, world
    from generama.comparison import new_record, typed_command
    from generama.data import open_data
    from generama.machine import pick_device
    from generama.run import Run

    name, chosen = (recipe, recipes.recipe(recipe)) if isinstance(recipe, str) else (name, recipe)
    chosen = replace(chosen, train=replace(chosen.train, **settings))
    with world.joined(pick_device(device)):
        opened = world.first_then_all(lambda: open_data(data, size=size, grey=grey))
        folder = run_folder(run or f"{name}-{opened.meta.name}")
        record = new_record(name, chosen, opened, pick_device(device), typed_command())
        if not world.restarted():
            world.by_first("making the run folder", lambda: Run.create(folder, record))
        return _train(Run.open(folder), opened, device)


def resume(run: str, device: str | None = None) -> Trained:
    """Go on with a run from its last checkpoint, until its budget is used; a finished one is left as it is."""
    from generama import world
    from generama.machine import pick_device
    from generama.run import Run

    opened = Run.open(run_folder(run))
    with world.joined(pick_device(device)):
        return _train(opened, world.first_then_all(opened.data), device)


def reflow(
    teacher: str,
    run: str | None = None,
    n: int = 20_000,
    distil: bool = False,
    couplings: str | None = None,
    device: str | None = None,
    **settings: Any,
) -> Trained:
    """Train a rectified flow again, on `n` pairs of noise and the image that it makes of it (Liu et al. 2022).

    The new run (by default TEACHER-reflow or TEACHER-distilled) begins with the teacher's weights; `distil` learns to
    go in one step. The pairs are the samples "couplings" of the run `couplings`, by default the teacher, drawn now as
    its recipe says where there are fewer than n of them; draw them with `sample` for other options. Settings are those
    of TrainSettings.
    """
    from generama import world
    from generama.machine import pick_device
    from generama.recipes.reflow import reflowed
    from generama.sampling import coupled

    with world.joined(pick_device(device)):
        trained = load(teacher, device)
        record, folder = trained.run.record, trained.run.folder
        recipe = reflowed(record.recipe, str(folder.resolve()), distil)
        source = load(couplings, device) if couplings else trained
        reflowed(source.run.record.recipe, source.run.folder.name, distil)  # refuses what has no such couplings
        word = "distilled" if distil else "reflow"
        pictures = {"size": record.spec.size, "grey": record.spec.channels == 1} if record.spec.levels else {}
        return train(
            recipe,
            data=str(coupled(source, record.spec, n)),
            run=run or f"{folder.name}-{word}",
            device=device,
            name=f"{record.name}-{word}",
            **pictures,
            **settings,
        )


def load(
    run: str | Path, device: str | None = None, average: float | None = None, earlier: float | None = None
) -> Trained:
    """The trained generator of a run: `load("runs/vae-digits").sample(seeds=range(16))` draws images.

    `average` asks for an average of the weights of another length, and `earlier` for the state after that share of the
    run as well, to guide the generator by. Both need a run that kept snapshots.
    """
    from generama import machine
    from generama.run import load as load_run

    machine.keep_freed_memory()
    return load_run(run_folder(run), device, average, earlier)


def sample(
    run: str | Trained,
    seeds: Sequence[int] = range(64),
    label: int | None = None,
    name: str = "drawn",
    batch: int = 64,
    singles: bool = False,
    device: str | None = None,
    average: float | None = None,
    earlier: float | None = None,
    **options: Any,
) -> Path:
    """Draw an image per seed into the run's samples/NAME; options are those of the family's own `sample`.

    `main` is the name of the samples that `evaluate` and `compare` measure: leave it to them.
    """
    from generama import world
    from generama.machine import pick_device
    from generama.sampling import sample_run

    with world.joined(pick_device(device)):
        trained = load(run, device, average, earlier) if isinstance(run, str) else run
        return sample_run(trained, seeds, label, name, batch, singles, **options)


def edit(
    run: str | Trained,
    pictures: str | Path | Sequence[str | Path] = (),
    how: How = "img2img",
    device: str | None = None,
    average: float | None = None,
    **options: Any,
) -> Path:
    """Edit pictures with a run that was trained for none of it, into the run's edits/NAME; returns that folder.

    Options are those of EditSettings (`held_out=4`, `strength=0.6`, `box=(0, 0, 14, 28)`, `seeds=(0, 1)`) and of the
    family's own `sample`. A family whose way from noise to picture cannot be entered in the middle is refused.
    """
    from generama import world
    from generama.editing.edits import edit_run
    from generama.machine import pick_device

    several = (pictures,) if isinstance(pictures, str | Path) else pictures
    known = EditSettings.__dataclass_fields__
    own = {name: value for name, value in options.items() if name in known}
    ask = EditSettings(tuple(str(picture) for picture in several), how, **own)
    rest = {name: value for name, value in options.items() if name not in known}
    with world.joined(pick_device(device)):
        trained = load(run, device, average) if isinstance(run, str) else run
        return world.by_first("editing", lambda: edit_run(trained, ask, rest))


def show(run: str | Trained, device: str | None = None) -> tuple[Path, NoiseLevels]:
    """At which noise levels a denoiser errs, on held-out pictures: numbers and a plot in the run's process folder."""
    from generama.noise_levels import show_run

    return show_run(load(run, device) if isinstance(run, str) else run)


def evaluate(
    subjects: str | Path | Sequence[str | Path], against: str | Path | None = None, **settings: Any
) -> Judgement:
    """Measure runs, or pictures of any program (a folder, a zip, an .npz), against the real pictures `against`.

    A run is measured against what it learned from unless told otherwise: its main samples, drawn now where there are
    fewer than n, its likelihood and its cost. Pictures are brought to the size of the real ones, and a folder with a
    page is written. All subjects are measured at one n. Settings are those of EvaluateSettings.
    """
    from generama import judging

    several = (subjects,) if isinstance(subjects, str | Path) else subjects
    names = tuple(str(subject) for subject in several)
    return judging.evaluate(EvaluateSettings(names, None if against is None else str(against), **settings))


def diagnose(run: str | Path) -> Diagnosis:
    """What is wrong with a run, or may be, with the evidence and what to try; also written to its diagnosis.json."""
    from generama.diagnosis import diagnose as examine

    return examine(run_folder(run))


def compare(
    recipes: Sequence[str] = (),
    data: str = CompareSettings.data,
    budget: str = CompareSettings.budget,
    **settings: Any,
) -> Path:
    """Train, sample and measure recipes (none named: one of each family) under one equal budget.

    `budget` is per run: "35s", "5min", "200k images", "1e15 flops"; settings are those of CompareSettings, such as
    `seeds=3` or `engine="ray"`. What is already done is reused. Returns the report, one HTML file.
    """
    from generama import comparison

    return comparison.compare(CompareSettings(tuple(recipes), data, budget, **settings))


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a comparison, or of any folder with run folders in it, again; nothing is trained."""
    from generama.report import write_report as write

    return write(Path(folder), out)


def recommend(data: str | None = None, need: Need = "quality", comparison: str | Path | None = None) -> Recommendation:
    """Which model to use for a need, by the newest comparison of these data, or by the comparison in that folder.

    `data` is a name, a source or the start of a content hash; left out: whatever was compared last. Nothing is trained.
    """
    from generama.report.choosing import newest_comparison, recommend_from

    return recommend_from(Path(comparison) if comparison else newest_comparison(data), need)


def doctor() -> list[tuple[str, str, bool]]:
    """What this machine has: (what, finding, whether it is well), a row each."""
    from generama import machine
    from generama.metrics.extractors import available

    return machine.examine() + [(f"extractor {name}", finding, True) for name, finding in available()]


def run_folder(run: str | Path) -> Path:
    """A bare name means runs/NAME, unless something of that name is here; anything with a slash is a path."""
    path = Path(run)
    return path if path.is_absolute() or len(path.parts) > 1 or path.exists() else Path("runs") / path


def _train(run: Run, data: Data, device: str | None) -> Trained:
    from generama import machine, world
    from generama.errors import Diverged
    from generama.run import begun
    from generama.settings import Spent
    from generama.training import train as train_family

    if run.read_status().get("state") != "done":
        machine.keep_freed_memory()
        chosen = machine.pick_device(device)
        family = begun(run)
        with world.held_by_first(run.lock):
            run.check(data, chosen)
            try:
                train_family(family, data.train, run.record.recipe.train, run, chosen)
            except Diverged as error:
                if world.rank() == 0:
                    run.status("failed", Spent(), error=str(error))
                raise
    return load(run.folder, device)
