"""What can be judged: a run, or the pictures of any program, and how they are brought to the form of the real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generama.data import Data, open_data
from generama.data.named import NAMED
from generama.data.prepare import OnBad
from generama.data.shards import is_prepared
from generama.data.sources import HUB
from generama.errors import UsageError, unknown
from generama.unsafe import refuse_pickles

RUNS = Path("runs")


@dataclass(frozen=True)
class Subject:
    """Something to be judged, as it was found."""

    typed: str
    name: str  # of its row and its folder, different for every subject
    source: str | Path  # of its pictures, as `prepare` reads them
    run: Path | None = None  # where it is a run, which can draw more


@dataclass(frozen=True)
class Form:
    """How both sides are read: one size and one kind of colour for all."""

    size: int | None
    grey: bool | None
    on_bad: OnBad = "error"
    bad_limit: float = 0.01


def find_subjects(typed: Sequence[str | Path]) -> list[Subject]:
    """What each name or path stands for. Raises UsageError where it stands for nothing that can be judged."""
    if not typed:
        raise UsageError("name what is to be judged: a run, a folder or zip of pictures, or an .npz")
    found = [_find(str(one)) for one in dict.fromkeys(typed)]
    names = [_short_name(source, run) for source, run in found]
    taken: dict[str, int] = {}
    subjects = []
    for one, (source, run), name in zip(dict.fromkeys(typed), found, names, strict=True):
        if names.count(name) > 1 and run is None and Path(source).name != "samples.npz":
            name = f"{Path(one).resolve().parent.name}-{name}"
        taken[name] = taken.get(name, 0) + 1
        subjects.append(Subject(str(one), name if taken[name] == 1 else f"{name}-{taken[name]}", source, run))
    return subjects


def _find(typed: str) -> tuple[str | Path, Path | None]:
    """The source of the pictures, and the run where it is one; a bare name also means runs/NAME."""
    if typed in NAMED or typed.startswith(HUB):
        return typed, None
    path = Path(typed).expanduser()
    path = path if path.exists() or path.is_absolute() or len(path.parts) > 1 else RUNS / path
    if not path.exists():
        near = [run.name for run in RUNS.iterdir() if run.is_dir()] if RUNS.is_dir() else []
        raise UsageError(
            f"there is nothing to judge at '{typed}': no run, no folder, no zip, no .npz; {unknown('run', typed, near)}"
        )
    refuse_pickles(path)
    if (path / "compare.json").is_file():
        inside = sorted(str(one.parent) for one in path.glob("*/recipe.json"))
        raise UsageError(f"{path} is a comparison; judge what is in it: {', '.join(inside[:3]) or 'it is empty'}")
    if (path / "recipe.json").exists() and not is_judged(path):
        return path / "samples" / "main" / "samples.npz", path
    for samples in (path / "samples.npz", path / "samples" / "main" / "samples.npz"):  # `sample` or `evaluate` wrote it
        if samples.is_file():
            return samples, None
    return path, None


def is_judged(folder: Path) -> bool:
    """Whether a folder was written by an earlier `evaluate` of pictures, as a whole or for one subject: no model."""
    return "judged" in (_read(folder / "compare.json").get("kind"), _read(folder / "recipe.json").get("kind"))


def drawn_from(subject: Subject) -> dict[str, Any]:
    """What the run behind the pictures says of its data; empty where no run made them."""
    source = Path(subject.source).resolve()
    about = _read(source.parent.parent.parent / "recipe.json").get("data") if source.name == "samples.npz" else None
    return about if isinstance(about, dict) else {}


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _short_name(source: str | Path, run: Path | None) -> str:
    """The last telling part of a path: of runs/first/samples/drawn/samples.npz 'first-drawn'."""
    if run is not None:
        return run.resolve().name
    path = Path(str(source).removeprefix(HUB)).expanduser().resolve()
    if path.name != "samples.npz":
        return path.name.removesuffix(path.suffix if path.is_file() else "")
    owner = path.parents[2].name if path.parents[1].name == "samples" else ""
    return "-".join(part for part in (owner, path.parent.name) if part and part != "main")


def open_real(against: str, form: Form) -> Data:
    """The real side: a data set with pictures to measure against, and others held out.

    Raises UsageError for a run, whose pictures are not real.
    """
    if (Path(against) / "recipe.json").is_file():
        source = (_read(Path(against) / "recipe.json").get("data") or {}).get("source", "mnist5k")
        raise UsageError(f"{against} is a run, and its pictures are not real; its data are: --against {source}")
    return open_data(against, size=form.size, grey=form.grey, on_bad=form.on_bad, bad_limit=form.bad_limit)


def open_subject(subject: Subject, size: int, form: Form) -> Data:
    """All pictures of a subject at this size, none held out."""
    return open_data(
        subject.source, size=size, grey=form.grey, on_bad=form.on_bad, bad_limit=form.bad_limit, split=False
    )


def in_colour(source: str | Path, data: Data, form: Form, other: str) -> Data:
    """The same pictures with three channels, because `other` is in colour."""
    if is_prepared(Path(source)):
        raise UsageError(f"{other} is in colour and {source} was prepared in grey; pass --grey to measure both in grey")
    split = data.meta.split != "none"
    size, limit = data.spec.size, form.bad_limit
    return open_data(source, size=size, grey=False, on_bad=form.on_bad, bad_limit=limit, split=split)


def pixels_of(data: Data, rows: Tensor) -> Tensor:
    """Pictures (n, C, H, W) uint8 at these positions of the whole, whatever its splits."""
    return torch.from_numpy(data.train.images[rows.numpy()])


def asked_labels(subject: Subject, data: Data, real: Data, rows: Tensor) -> tuple[Tensor | None, str]:
    """The classes (n,) that the pictures were asked to be, numbered as the real ones are; or why there are none.

    The class folders or labels of a subject are wishes only where all their names are those of real classes.
    """
    if data.train.label is None or real.spec.classes < 2:
        return None, ""
    names = list(data.meta.class_names)
    known = drawn_from(subject).get("class_names", [])
    if known and all(name.isdecimal() and int(name) < len(known) for name in names):
        names = [known[int(name)] for name in names]  # samples.npz has numbers
    number = {name: i for i, name in enumerate(real.meta.class_names)}
    if not set(names) <= set(number):
        strange = ", ".join(name for name in names if name not in number)
        return None, f"its classes ({strange[:80]}) are not classes of {real.meta.name}: no picture was asked for one"
    table = np.array([number[name] for name in names])
    return torch.from_numpy(table[data.train.label[rows.numpy()]]), ""
