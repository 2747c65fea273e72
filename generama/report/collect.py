"""Run folders -> typed rows. A missing, partial or garbled file becomes a visible note, never a traceback."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from generama.errors import UsageError


@dataclass(frozen=True)
class Reading:
    """One measure of one run; `value` is None where it is not defined, and `note` then says why."""

    value: float | None
    floor: float | None = None  # the same measure between training and held-out pictures, at the same n
    note: str = ""

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
class Run:
    """One run folder, as far as it could be read."""

    folder: Path
    recipe: str
    family: str  # the `kind` of its configuration
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
    options: dict[str, Any]  # what the samples were asked for
    histogram: list[float]
    neighbours: list[Neighbour]
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
    failed: dict[str, str]  # runs that left no folder, and why
    notes: list[str]


def collect(folder: Path | Sequence[Path]) -> Comparison:
    """Read a comparison folder, a folder of runs, one run, or a list of runs. UsageError where nothing is there."""
    if not isinstance(folder, Path):
        runs = [Path(path) for path in folder]
        if not runs:
            raise UsageError("no run to report on; name at least one run folder")
        return _assemble(runs[0].parent, runs, {}, [])
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; name a comparison or a run, such as runs/compare-mnist5k")
    if not (folder / "compare.json").exists():
        return _assemble(folder, [folder] if _is_run(folder) else _runs_inside(folder), {}, [])
    notes: list[str] = []
    about = _read_object(folder / "compare.json", notes)
    runs = [_find_run(folder, str(name)) for name in _list(about, "runs")] or _runs_inside(folder)
    return _assemble(folder, runs, about, notes)


def _assemble(folder: Path, paths: list[Path], about: dict[str, Any], notes: list[str]) -> Comparison:
    failed = {str(name): str(error) for name, error in _dict(about, "failed").items()}
    there = [path for path in paths if path.is_dir()]
    for path in paths:
        if not path.is_dir():
            failed.setdefault(path.name, "its folder is not there")
    runs = [_with_failure(_read_run(path), failed.pop(path.name, "")) for path in there]
    first = runs[0] if runs else None
    return Comparison(
        title=folder.resolve().name,
        folder=folder,
        runs=runs,
        data=_dict(about, "data") or next((run.data for run in runs if run.data), {}),
        budget=_text(about, "budget") or ", ".join(dict.fromkeys(run.budget for run in runs if run.budget)),
        recipes=[str(name) for name in _list(about, "recipes")] or list(dict.fromkeys(run.recipe for run in runs)),
        seeds=_integers(_list(about, "seeds")) or sorted({run.seed for run in runs if run.seed is not None}),
        n=_integer(about, "n") or next((run.n for run in runs if run.n), None),
        command=_text(about, "command") or (first.command if first and len(runs) == 1 else ""),
        machine=_dict(about, "machine") or next((run.machine for run in runs if run.machine), {}),
        version=_text(about, "generama")
        or _text(_dict(about, "machine"), "generama")
        or next((run.version for run in runs if run.version), ""),
        failed=failed,
        notes=notes + _disagreements(runs),
    )


def _with_failure(run: Run, error: str) -> Run:
    """A run that the comparison calls failed, though its training may have ended well: what came after did not."""
    return replace(run, state="failed", error=error) if error else run


def _budget(train: dict[str, Any]) -> str:
    """The limits of the training settings in words: "10 epochs", "35 s"."""
    minutes = _number(train, "minutes")
    limits = [f"{limit:,g} {name}" for name in ("epochs", "images", "steps") if (limit := _number(train, name))]
    flops = _number(train, "flops")
    time = [f"{60 * minutes:g} s" if minutes < 2 else f"{minutes:g} min"] if minutes else []
    return " or ".join(limits + time + ([f"{flops:.3g} FLOPs"] if flops else []))


def _disagreements(runs: list[Run]) -> list[str]:
    """What makes runs unfit to stand in one table."""
    hashes = {str(run.data["hash"]) for run in runs if run.data.get("hash")}
    sizes = {run.n for run in runs if run.n}
    extractors = {run.extractor for run in runs if run.extractor}
    found = []
    if len(hashes) > 1:
        found.append(
            f"The runs were trained on {len(hashes)} different data sets, so their numbers cannot be compared."
        )
    if len(sizes) > 1:
        counts = ", ".join(f"{n:,}" for n in sorted(sizes))
        found.append(f"The runs were measured on different numbers of samples ({counts}); distances depend on it.")
    if len(extractors) > 1:
        found.append(f"The runs were measured with different features ({', '.join(sorted(extractors))}).")
    return found


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("recipe.json", "status.json", "log.jsonl", "metrics.json"))


def _runs_inside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and _is_run(path))


def _find_run(folder: Path, name: str) -> Path:
    """A run named in compare.json: inside the comparison folder, or (a run that was reused) beside it."""
    beside = folder.parent / Path(name).name
    return beside if not (folder / name).is_dir() and beside.is_dir() else folder / name


def _read_run(folder: Path) -> Run:
    notes: list[str] = []
    made = _read_object(folder / "recipe.json", notes)
    status = _read_object(folder / "status.json", notes)
    metrics = _read_object(folder / "metrics.json", notes)
    manifest = _read_object(folder / "samples" / "main" / "manifest.json", notes)
    log = [] if made.get("kind") == "judged" else _read_log(folder / "log.jsonl", notes)
    config = _dict(made, "recipe")
    family = _dict(config, "family")
    spec = _dict(made, "spec")
    readings = _readings(metrics, manifest, status)
    for key, reading in readings.items():
        if reading.broken:
            notes.append(f"{key} is not a number")
    if any(isinstance(x, float) and not math.isfinite(x) for line in log for x in line.values()):
        notes.append("the training log holds values that are not numbers: this run diverged")
    return Run(
        folder=folder,
        recipe=_text(made, "name") or folder.name,
        family=_text(family, "kind"),
        config=config,
        seed=_integer(made, "seed"),
        budget=_text(status, "budget") or _budget(_dict(config, "train")),
        state=_text(status, "state") or "unknown",
        error=_text(status, "error"),
        conditional=bool(family.get("conditional", True) and _number(spec, "classes")) if spec else None,
        data=_dict(made, "data"),
        spec=spec,
        machine=_dict(made, "machine"),
        command=_text(made, "command"),
        version=_text(made, "generama") or _text(_dict(made, "machine"), "generama"),
        readings=readings,
        extractor=_text(metrics, "extractor"),
        extractor_note=_text(metrics, "extractor_note"),
        n=_integer(metrics, "n") or _integer(manifest, "n"),
        options=_dict(manifest, "options"),
        histogram=[_number({"count": count}, "count") or 0.0 for count in _list(metrics, "histogram")],
        neighbours=_neighbours(metrics),
        log=log,
        previews=_previews(folder / "previews"),
        notes=notes,
    )


def _readings(metrics: dict[str, Any], manifest: dict[str, Any], status: dict[str, Any]) -> dict[str, Reading]:
    """Measures by key; costs that metrics.json lacks are read from the manifest and the status."""
    found: dict[str, Reading] = {}
    for key, entry in _dict(metrics, "measures").items():
        if isinstance(entry, dict):
            found[key] = Reading(_number(entry, "value"), _number(entry, "floor"), _text(entry, "note"))
    elsewhere = {
        "seconds_per_image": _number(manifest, "seconds_per_image"),
        "seconds_one": _number(manifest, "seconds_one"),
        "evaluations": _number(manifest, "evaluations"),
        "parameters": _number(status, "parameters"),
        "train_seconds": _number(status, "seconds"),
        "images_seen": _number(status, "images"),
        "peak_memory": _number(status, "peak_memory"),
    }
    for key, value in elsewhere.items():
        if value is not None and (key not in found or found[key].value is None):
            found[key] = Reading(value)
    return found


def _neighbours(metrics: dict[str, Any]) -> list[Neighbour]:
    """Samples beside their nearest training pictures, in the order they were measured: most like copies first."""
    found = []
    for entry in _list(metrics, "nearest"):
        if not isinstance(entry, dict):
            continue
        sample, train, distance = _integer(entry, "sample"), _integer(entry, "train"), _number(entry, "distance")
        if sample is not None and train is not None and distance is not None and math.isfinite(distance):
            found.append(Neighbour(sample, train, distance, _number(entry, "held_out_distance")))
    return found


def _previews(folder: Path) -> list[tuple[int, Path]]:
    """(images seen, picture), in order."""
    if not folder.is_dir():
        return []
    return sorted((int(path.stem), path) for path in folder.glob("*.png") if path.stem.isdecimal())


def _read_log(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The lines that are whole JSON objects; the others are counted in a note."""
    if not path.exists():
        notes.append(f"{path.name} is missing")
        return []
    lines, bad = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line) if line.strip() else None
        except ValueError:
            entry, bad = None, bad + 1
        if isinstance(entry, dict):
            lines.append(entry)
    if bad:
        notes.append(f"{path.name}: {bad} {'line is' if bad == 1 else 'lines are'} cut or garbled and left out")
    return lines


def _read_object(path: Path, notes: list[str]) -> dict[str, Any]:
    """The JSON object in a file; {} and a note where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        notes.append(f"{path.name} is missing")
        return {}
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path.name} cannot be read ({type(error).__name__})")
        return {}
    if not isinstance(value, dict):
        notes.append(f"{path.name} does not hold a JSON object")
        return {}
    return value


def _dict(source: dict[str, Any], key: str) -> dict[str, Any]:
    value = source.get(key)
    return value if isinstance(value, dict) else {}


def _list(source: dict[str, Any], key: str) -> list[Any]:
    value = source.get(key)
    return value if isinstance(value, list) else []


def _text(source: dict[str, Any], key: str) -> str:
    value = source.get(key)
    return "" if value is None else str(value)


def _number(source: dict[str, Any], key: str) -> float | None:
    value = source.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _integer(source: dict[str, Any], key: str) -> int | None:
    value = _number(source, key)
    return int(value) if value is not None and math.isfinite(value) else None


def _integers(values: list[Any]) -> list[int]:
    return [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
