"""Checkpoints: safetensors and a manifest, whole and verified or invisible; loading one executes nothing.

A checkpoint is a folder named by its step. It is written under a name that nobody lists, read back, flushed to disk
and renamed; only then is an old one renamed out of sight and deleted. So a crash at any moment leaves only whole ones
to be seen, and never none.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from generama.errors import CheckpointError, Diverged, GeneramaError, ResourceError
from generama.files import discard, free_space, whole_folder
from generama.progress import tell
from generama.unsafe import refuse_pickles

FORMAT = "generama-checkpoint-1"  # a change of what the files mean must change this
MANIFEST = "state.json"
NAME = re.compile(r"([0-9]+)(?:\.([0-9]+))?")  # the step; saved again at the same step: 000000007.1
MOST_HEADER = 8 * 2**20  # bytes of a file's table of tensors
MOST_TENSORS = 50_000  # of a file
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: its tensors by file name (without ending), and the facts saved with them."""

    folder: Path
    tensors: dict[str, Tensors]
    facts: dict[str, Any]


def save(folder: Path, step: int, tensors: dict[str, Tensors], facts: dict[str, Any], keep: int = 2) -> Path:
    """Write a checkpoint below `folder`, read it back, and only then delete all but the newest `keep`.

    Raises Diverged where a tensor holds a NaN or an infinity, and ResourceError where the disk refuses; what was
    saved before is then untouched.
    """
    for kind, values in tensors.items():
        found = not_finite(values)
        if found:
            raise Diverged(f"'{found}' of {kind} holds a number that is not finite, so it was not saved")
    final = folder / _new_name(folder, step)
    with whole_folder(final, size_of(tensors)) as draft:
        sums = {}
        for name, values in tensors.items():
            content = safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in values.items()})
            (draft / f"{name}.safetensors").write_bytes(content)
            sums[name] = hashlib.sha256(content).hexdigest()
        manifest = {"format": FORMAT, "facts": facts, "facts_sha256": _digest_of_facts(facts), "sha256": sums}
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False))
        for name, digest in sums.items():
            if _digest(draft / f"{name}.safetensors") != digest:
                raise ResourceError(f"{final / name} reads back as something else than was written; check the disk")
    _purge(folder, final, keep)
    return final


def complete(folder: Path) -> list[Path]:
    """The checkpoints below `folder`, oldest first; not yet verified."""
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if NAME.fullmatch(p.name) and (p / MANIFEST).is_file()]
    return sorted(found, key=_order)


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None where there is none at all; damaged newer ones are told of.

    Raises CheckpointError where there are some and every one is damaged.
    """
    damage = []
    for candidate in reversed(complete(folder)):
        try:
            found = read(candidate)
        except CheckpointError as error:
            damage.append(str(error))
            continue
        if damage:
            tell(f"warning: {'; '.join(damage)}; going back to {found.folder}")
        return found
    if damage:
        raise CheckpointError("; ".join(damage) + "; none is whole: train again under another --run name")
    return None


def read(folder: Path) -> Checkpoint:
    """Read one checkpoint and check every file: SHA-256, table of tensors, finite numbers.

    Raises CheckpointError naming the file that is damaged, missing or not of this version. Files that the manifest
    does not list are told of and ignored. A pickle under a harmless name raises UnsafeFile.
    """
    try:
        sums, facts = _read_manifest(folder / MANIFEST)
        tensors = {name: _read_tensors(folder / f"{name}.safetensors", digest) for name, digest in sums.items()}
        extra = {p.name for p in folder.iterdir()} - {f"{name}.safetensors" for name in sums} - {MANIFEST}
    except GeneramaError:
        raise
    except Exception as error:  # a hostile file can provoke anything, and all of it means the same
        raise CheckpointError(f"the checkpoint {folder} cannot be read: {error}") from error
    if extra:
        tell(f"warning: {folder} also holds {', '.join(map(repr, sorted(extra)))}, which it never saved; ignored")
    return Checkpoint(folder, tensors, facts)


def check_fit(saved: Mapping[str, Tensor], built: Mapping[str, Tensor], what: str) -> None:
    """Refuse tensors other than those that the recipe builds, by name, shape and type, saying where they differ."""
    both = saved.keys() & built.keys()
    unlike = [name for name in sorted(both) if _kind(saved[name]) != _kind(built[name])]
    parts = {
        "missing": sorted(built.keys() - saved.keys()),
        "unknown to the recipe": sorted(saved.keys() - built.keys()),
        "other": [f"{name} (saved {_kind(saved[name])}, built {_kind(built[name])})" for name in unlike],
    }
    found = [f"{kind}: {_listed(names)}" for kind, names in parts.items() if names]
    if found:
        raise CheckpointError(f"{what} does not fit the recipe of its run; {'; '.join(found)}")


def room_for(folder: Path, needed: int) -> None:
    """Refuse to start where the volume of `folder` has not room for two checkpoints: the old one and the new."""
    free = free_space(folder)
    if free < 2 * needed:
        raise ResourceError(
            f"{folder} has {free:,} bytes free, but two checkpoints of {needed:,} bytes must fit; free some space or "
            "choose another --run"
        )


def size_of(tensors: Mapping[str, Mapping[str, Tensor]]) -> int:
    """Bytes that these tensors take in a checkpoint."""
    return sum(value.numel() * value.element_size() for values in tensors.values() for value in values.values())


def not_finite(values: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds a NaN or an infinity, if any does."""
    floats = ((name, value) for name, value in values.items() if value.is_floating_point() or value.is_complex())
    return next((name for name, value in floats if not bool(value.isfinite().all())), None)


def _new_name(folder: Path, step: int) -> str:
    """The folder for a step, free even where the step was saved before, so that the old one stays until later."""
    taken = [order for order in map(_order, complete(folder)) if order[0] == step]
    return f"{step:09d}.{max(taken)[1] + 1}" if taken else f"{step:09d}"


def _purge(folder: Path, final: Path, keep: int) -> None:
    """Delete what the newly saved checkpoint makes needless: older ones, and damaged ones of a later step."""
    there = complete(folder)
    at, step = there.index(final), _order(final)[0]
    older = [path for path in there[:at] if _order(path)[0] < step]
    for old in there[len(older) : at] + older[: max(0, len(older) + 1 - max(1, keep))]:
        _discard(old)
    for later in there[at + 1 :]:  # a run that fell back goes past what was damaged
        try:
            read(later)
        except GeneramaError:
            _discard(later)


def _discard(folder: Path) -> None:
    try:
        discard(folder)
    except OSError as error:  # the new one is safe; a disk that keeps the old one is no reason to stop
        tell(f"warning: the old checkpoint {folder} cannot be deleted: {error.strerror}")


def _order(folder: Path) -> tuple[int, int]:
    parts = NAME.fullmatch(folder.name)
    assert parts is not None
    return int(parts[1]), int(parts[2] or 0)


def _read_manifest(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """(SHA-256 by file name, facts)."""
    if path.stat().st_size > MOST_HEADER:
        raise CheckpointError(f"{path} has more than {MOST_HEADER:,} bytes, so Generama did not write it")
    try:
        manifest = json.loads(path.read_bytes())
        form, sums, facts = manifest["format"], manifest["sha256"], manifest["facts"]
        intact = manifest["facts_sha256"] == _digest_of_facts(facts) and isinstance(facts, dict)
        named = all(re.fullmatch("[a-z_]+", name) and isinstance(digest, str) for name, digest in sums.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {type(error).__name__} {error}") from error
    if form != FORMAT:
        raise CheckpointError(f"{path} is of the format {form!r}; this version reads {FORMAT!r}")
    if not intact:
        raise CheckpointError(f"{path} is damaged: the SHA-256 of its facts is not the recorded one")
    if not named:  # such as ../../elsewhere
        raise CheckpointError(f"{path} lists files that no checkpoint has: {_listed(list(map(repr, sums)))}")
    return sums, facts


def _read_tensors(path: Path, digest: str) -> Tensors:
    """The tensors of one file, once its hash, its table and its numbers are found right."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    _check_header(path)
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the recorded one")
    try:
        tensors = safetensors.torch.load(content)
    except Exception as error:  # the library raises its own error, KeyError and AssertionError
        raise CheckpointError(f"{path} is no valid safetensors file: {error}") from error
    found = not_finite(tensors)
    if found is not None:
        raise CheckpointError(f"{path} holds a number that is not finite, in {found!r}")
    return tensors


def _check_header(path: Path) -> None:
    """Refuse, before anything is allocated, a table of tensors that is too long or names a tensor twice."""
    refuse_pickles(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(MOST_HEADER, path.stat().st_size):
            raise CheckpointError(f"{path} is damaged: its table of tensors would have {length:,} bytes")
        header = file.read(length)
    try:
        names = [name for name, _ in json.loads(header, object_pairs_hook=list)]
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: its table of tensors cannot be read ({error})") from error
    if len(names) > MOST_TENSORS or len(set(names)) < len(names):
        raise CheckpointError(f"{path} lists {len(names):,} tensors, more than {MOST_TENSORS:,} or some of them twice")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of_facts(facts: dict[str, Any]) -> str:
    plain = json.loads(json.dumps(facts))  # as it will be read: keys are text, tuples are lists
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _kind(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _listed(names: list[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
