"""A comparison folder, a folder of runs or a list of runs -> everything the report is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from generama.errors import UsageError
from generama.report.lenient import dict_in, integer_in, integers, list_in, read_object, text_in
from generama.report.records import Comparison, Run
from generama.report.run_folder import read_run

RUN_FILES = ("recipe.json", "status.json", "log.jsonl", "metrics.json")  # any of these makes a folder a run


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
    about = read_object(folder / "compare.json", notes)
    runs = [_find_run(folder, str(name)) for name in list_in(about, "runs")] or _runs_inside(folder)
    return _assemble(folder, runs, about, notes)


def _assemble(folder: Path, paths: list[Path], about: dict[str, Any], notes: list[str]) -> Comparison:
    failed = {str(name): str(error) for name, error in dict_in(about, "failed").items()}
    there = [path for path in paths if path.is_dir()]
    for path in paths:
        if not path.is_dir():
            failed.setdefault(path.name, "its folder is not there")
    runs = [_with_failure(read_run(path), failed.pop(path.name, "")) for path in there]
    first = runs[0] if runs else None
    return Comparison(
        title=folder.resolve().name,
        folder=folder,
        runs=runs,
        data=dict_in(about, "data") or next((run.data for run in runs if run.data), {}),
        budget=text_in(about, "budget") or ", ".join(dict.fromkeys(run.budget for run in runs if run.budget)),
        recipes=[str(name) for name in list_in(about, "recipes")] or list(dict.fromkeys(run.recipe for run in runs)),
        seeds=integers(list_in(about, "seeds")) or sorted({run.seed for run in runs if run.seed is not None}),
        n=integer_in(about, "n") or next((run.n for run in runs if run.n), None),
        command=text_in(about, "command") or (first.command if first and len(runs) == 1 else ""),
        machine=dict_in(about, "machine") or next((run.machine for run in runs if run.machine), {}),
        version=text_in(about, "generama")
        or text_in(dict_in(about, "machine"), "generama")
        or next((run.version for run in runs if run.version), ""),
        stability=dict_in(about, "stability"),
        remarks=[str(remark) for remark in list_in(about, "notes") if remark],
        failed=failed,
        notes=notes,
    )


def _with_failure(run: Run, error: str) -> Run:
    """A run that the comparison calls failed, though its training may have ended well: what came after did not."""
    return replace(run, state="failed", error=error) if error else run


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in RUN_FILES)


def _runs_inside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and _is_run(path))


def _find_run(folder: Path, name: str) -> Path:
    """A run named in compare.json: inside the comparison folder, or (a run that was reused) beside it."""
    beside = folder.parent / Path(name).name
    return beside if not (folder / name).is_dir() and beside.is_dir() else folder / name
